"""The registry in numbers: those of what was registered and moved."""

import re
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.errors import DataError
from ada2i.records import DriftSummary
from ada2i.registry import metrics
from ada2i.registry.aliases import move, rollback
from ada2i.registry.metrics import METRICS, Sample, measure
from ada2i.registry.verdicts import Judgement, record
from ada2i.store import DRIFT_SUMMARY, Store
from tests.unit.registry.finished import finished_run, registered

REFUSAL = Judgement(
    model="m",
    alias="champion",
    challenger=2,
    champion=1,
    decision="refuse",
    split="test",
    dialogues=9,
    utterances=99,
    left_out={},
    notes=(),
    test_uses=1,
    synthetic=True,
    rules={},
    results=(),
    sides=(),
)


def samples(root: str) -> dict[tuple[str, ...], float]:
    return {(name, *tags.values()): value for name, value, tags in measure(root)}


def test_numbers_are_those_of_the_versions(root: str) -> None:
    first, second = (registered(root, name, "m") for name in ("run-a", "run-b"))
    move(root, "m", "champion", 1, expected=None, by="anna", reason="first")
    move(root, "m", "champion", 2, expected=1, by="anna", reason="better")
    rollback(root, "m", "champion", by="anna", reason="worse")
    record(root, REFUSAL, by="anna")
    found = samples(root)
    assert found["registry_versions", "m"] == 2
    assert (found["registry_number", "m", "champion"], found["registry_number", "m", "newest"]) == (1, 2)
    assert found["registry_moves", "m", "champion", "promote"] == 2
    assert found["registry_moves", "m", "champion", "rollback"] == 1
    assert found["registry_verdicts", "m", "champion", "refuse"] == 1
    assert found["registry_dev_weighted_f1", "m", "champion"] == first.dev_weighted_f1
    assert found["registry_test_macro_f1", "m", "newest"] == second.test_summary["macro_f1"].mean
    seconds = sum(epoch.seconds for seed in finished_run(root, "run-b").seeds for epoch in seed.history)
    assert found["registry_training_seconds", "m", "newest"] == seconds


def test_every_metric_is_measured_with_its_labels(root: str) -> None:
    registered(root, "run-a", "m")
    move(root, "m", "champion", 1, expected=None, by="anna", reason="first")
    record(root, REFUSAL, by="anna")
    compared(root, 1)
    labels = {name: tuple(tags) for name, _, tags in measure(root)}
    assert labels == {metric.name: metric.tags for metric in METRICS}


def compared(root: str, number: int, **ratios: float) -> str:
    """Store what `ada2i drift` does; return the place."""
    summary = DriftSummary(
        model="m", version=number, run_id="r", created="1970-01-01T00:01:00+00:00", ratios={"psi": 0.5} | ratios
    )
    place = storage.join(Store.open(root).drift("m", number), DRIFT_SUMMARY)
    storage.put(place, summary.stored())
    return place


def test_drift_is_that_of_the_last_comparison_of_each_version(root: str, caplog: pytest.LogCaptureFixture) -> None:
    for run in ("run-a", "run-b"):
        registered(root, run, "m")
    move(root, "m", "champion", 1, expected=None, by="anna", reason="first")
    place = compared(root, 1, missing=1.5)
    found = samples(root)
    assert (found["drift_ratio", "m", "champion", "psi"], found["drift_ratio", "m", "champion", "missing"]) == (
        0.5,
        1.5,
    )
    assert (found["drift_detected", "m", "champion"], found["drift_window", "m", "champion"]) == (1, 60)
    assert not any(name.startswith("drift") and "newest" in tags for name, *tags in found)
    compared(root, 2)
    assert samples(root)["drift_detected", "m", "newest"] == 0
    whole = storage.get(place)
    bare = whole[: whole.index(b'"seal"')] + whole[whole.index(b'"schema_version"') :]
    for damaged in (whole.replace(b"1.5", b"1.4"), re.sub(rb'"ratios": {[^}]*}', b'"ratios": {}', bare)):
        storage.put(place, damaged)
        caplog.clear()
        assert {tags[1] for name, *tags in samples(root) if name == "drift_detected"} == {"newest"}
        assert "`ada2i drift m@1` writes it again" in caplog.text
    storage.put(place, bare)
    assert {tags[1] for name, *tags in samples(root) if name == "drift_detected"} == {"champion", "newest"}


def test_nothing_registered_yields_nothing(tmp_path: Path) -> None:
    nothing: list[Sample] = []
    assert list(measure(str(tmp_path))) == nothing


def test_a_damaged_version_is_refused(root: str) -> None:
    registered(root, "run-a", "m")
    place = storage.join(root, "registry", "m", "versions", "1", "manifest.json")
    storage.put(place, storage.get(place).replace(b"run-a", b"run-b", 1))
    with pytest.raises(DataError, match=r"manifest\.json must have the SHA-256"):
        samples(root)


def test_a_result_of_another_schema_costs_one_metric_only(
    root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registered(root, "run-a", "m")
    whole = samples(root)
    monkeypatch.setattr(metrics, "read_file", lambda *_: b"{}")
    known: dict[str, float | None] = {}
    for _ in range(2):
        found = {(name, *sorted(labels.items())): value for name, value, labels in metrics.measure(root, known)}
    assert known == {"m@1": None}
    assert len(found) == len(whole) - 1
    assert not any(key[0] == "registry_training_seconds" for key in found)
    assert caplog.text.count("must hold a run's result of this version of ada2i") == 1
