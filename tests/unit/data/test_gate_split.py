"""The gate split: read like the others, or cut from the newest dialogues of train."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada2i.audit.audit import audit
from ada2i.data.manifest import FeatureSet, open_features, read_shard
from ada2i.data.splits import cut_gate
from ada2i.errors import DataError
from ada2i.importers.table import import_table
from tests.unit.data.tables import Columns, corpus, write

START = datetime(2026, 3, 1, tzinfo=UTC)
TRAIN = [("train", 2)] * 30


def timed(columns: Columns, days: Mapping[str, int | None]) -> Columns:
    """Add times, in days after the start, to the dialogues that are named."""
    times = [days.get(name) for name in columns["dialogue_id"]]
    return columns | {"recorded_at": [None if day is None else START + timedelta(days=day) for day in times]}


def dialogues(features: FeatureSet, split: str) -> set[Any]:
    tables = [read_shard(features, entry) for entry in features.shards(split)]
    return {name for table in tables for name in table["dialogue_id"].to_pylist()}


def imported(tmp_path: Path, columns: Columns, **options: Any) -> FeatureSet:
    source = write(tmp_path / "table.parquet", columns)
    return open_features(import_table(str(source), str(tmp_path / "root"), **options))


def test_rows_of_gate_are_read_like_others(tmp_path: Path) -> None:
    features = imported(tmp_path, corpus([*TRAIN, ("dev", 2), ("test", 2), ("gate", 3), ("Gate ", 2)]))
    assert dialogues(features, "gate") == {"d32", "d33"}
    assert features.manifest.splits["gate"].utterances == 5
    assert features.manifest.gate_rule is None


def test_the_newest_dialogues_of_train_become_the_gate(tmp_path: Path) -> None:
    days = {f"d{number}": 100 - number for number in range(30)} | {"d30": 900, "d31": 901}
    features = imported(tmp_path, timed(corpus([*TRAIN, ("dev", 2), ("test", 2)]), days))
    assert dialogues(features, "gate") == {"d0", "d1", "d2"}
    assert (dialogues(features, "dev"), dialogues(features, "test")) == ({"d30"}, {"d31"})
    rule = "gate = the ceil(0.1 x number) newest of train's dialogues that have `recorded_at`"
    assert features.manifest.gate_rule == rule


def test_dev_is_cut_from_what_the_gate_leaves(tmp_path: Path) -> None:
    days = {f"d{number}": number for number in range(30)}
    features = imported(tmp_path, timed(corpus([*TRAIN, ("test", 2)]), days), gate_share=0.2)
    splits = {split: dialogues(features, split) for split in ("train", "dev", "gate")}
    assert splits["gate"] == {f"d{number}" for number in range(24, 30)}
    assert len(splits["dev"]) == 3  # a tenth of 24
    assert splits["train"] | splits["dev"] == {f"d{number}" for number in range(24)}


def test_the_gate_rolls_on(tmp_path: Path) -> None:
    days = {f"d{number}": number for number in range(40)}
    first = imported(tmp_path / "a", timed(corpus([*TRAIN, ("dev", 1), ("test", 1)]), days))
    more = corpus([*TRAIN, ("dev", 1), ("test", 1), *[("train", 2)] * 8])
    second = imported(tmp_path / "b", timed(more, days))
    assert dialogues(first, "gate") == {"d27", "d28", "d29"}
    assert dialogues(second, "gate") == {"d36", "d37", "d38", "d39"}
    assert dialogues(first, "gate") <= dialogues(second, "train")


def test_unknown_times_never_gate(tmp_path: Path) -> None:
    columns = corpus([*TRAIN, ("dev", 2), ("test", 2)])
    assert "gate" not in imported(tmp_path / "none", timed(columns, {})).manifest.splits
    features = imported(tmp_path / "some", timed(columns, {"d4": 1, "d5": 2}))
    assert dialogues(features, "gate") == {"d5"}
    off = imported(tmp_path / "off", timed(columns, {"d4": 1, "d5": 2}), gate_share=0.0)
    assert "gate" not in off.manifest.splits


def test_dates_do_too(tmp_path: Path) -> None:
    columns = corpus([*TRAIN, ("dev", 2), ("test", 2)])
    columns["recorded_at"] = [date(2026, 3, 1) if name != "d7" else date(2026, 3, 2) for name in columns["dialogue_id"]]
    assert dialogues(imported(tmp_path, columns), "gate") >= {"d7"}


def test_other_times_are_refused(tmp_path: Path) -> None:
    columns = corpus() | {"recorded_at": ["yesterday"] * 8}
    with pytest.raises(
        DataError, match=r"Column `recorded_at` of .* must hold times in ISO 8601, .* holds 'yesterday'"
    ):
        imported(tmp_path, columns)


def test_the_audit_compares_the_gate_with_the_others(tmp_path: Path) -> None:
    columns = corpus([("train", 6), ("dev", 6), ("test", 6), ("gate", 6)])
    columns["text_feat"][18:] = columns["text_feat"][:6]
    columns["audio_feat"][18:] = columns["audio_feat"][:6]
    report = audit(str(write(tmp_path / "table.parquet", columns)))
    errors = {(found.code, found.split) for found in report.findings if found.severity == "error"}
    assert errors == {("cross-split-copies", "gate")}
    assert not any(found.code == "unknown-split" for found in report.findings)


@given(st.dictionaries(st.text(max_size=4), st.datetimes(), min_size=1, max_size=50), st.sampled_from([0.05, 0.1, 0.3]))
def test_the_cut_is_the_newest_share(recorded: dict[str, datetime], share: float) -> None:
    times = [int(time.replace(tzinfo=UTC).timestamp() * 1e6) for time in recorded.values()]
    table = pa.table({"dialogue_id": pa.array(list(recorded), pa.string()), "time": times})
    newest = sorted(zip(times, recorded, strict=True), reverse=True)
    assert cut_gate(table, share).to_pylist() == [name for _, name in newest[: len(cut_gate(table, share))]]
    chosen = set(cut_gate(table, share).to_pylist())
    assert share * len(recorded) - 1e-6 <= len(chosen) < share * len(recorded) + 1
    rest = recorded.keys() - chosen
    assert not rest or max(recorded[name] for name in rest) <= min(recorded[name] for name in chosen)
