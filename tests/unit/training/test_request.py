"""Everything is checked before anything is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ada2i import storage
from ada2i.data.shards import write_features
from ada2i.errors import Ada2iError, ConfigError, DataError, IntegrityError, ResourceError
from ada2i.importers.demo import write_demo_corpus
from ada2i.importers.join import import_joined
from ada2i.records import RunRequest
from ada2i.training.request import TrainSpec, new_run_id, prepare
from tests.unit.data.tables import WIDTHS, corpus, shard_table, write, written


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "ADA2I_ROOT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def features(tmp_path: Path) -> str:
    """A feature set elsewhere, with text and audio only."""
    rows = shard_table([("train", "t0", 3), ("dev", "v0", 2), ("test", "x0", 4)])
    return write_features(
        (tmp_path / "elsewhere").as_uri(),
        rows,
        dataset="my-meld",
        synthetic=True,
        labels=("a", "b"),
        encoders=dict.fromkeys(WIDTHS, "random"),
        dev_rule=None,
        source="test",
    )


def prepared(root: Path, features: str, run_id: str = "r1", **spec: Any) -> RunRequest:
    uri = prepare(TrainSpec.model_validate({"features": features, **spec}), root=str(root), run_id=run_id).uri
    assert uri == storage.join(root.as_uri(), "runs", run_id)
    return RunRequest.load(storage.join(uri, "request.json"))


def test_writes_the_request_and_nothing_else(tmp_path: Path, features: str) -> None:
    request = prepared(tmp_path / "root", features, modalities="ta", overrides={"training.epochs": 3})
    assert written(tmp_path / "root") == ["runs", "runs/r1", "runs/r1/request.json"]
    assert request.run_id == "r1"
    assert request.features.uri == features
    assert request.features.widths == WIDTHS
    assert request.config.settings == "meld"  # from the dataset's name
    assert request.config.model.modalities == ("text", "audio")
    assert request.config.training.epochs == 3


def test_without_modalities_all_that_the_features_hold_are_used(tmp_path: Path, features: str) -> None:
    assert prepared(tmp_path / "root", features).config.model.modalities == ("text", "audio")


def test_settings_may_be_named(tmp_path: Path, features: str) -> None:
    request = prepared(tmp_path / "root", features, modalities="at", settings="mosei")
    assert (request.config.settings, request.config.model.hidden_dim) == ("mosei", 500)


def test_the_first_request_of_a_run_stands(tmp_path: Path, features: str) -> None:
    first = prepared(tmp_path / "root", features, modalities="ta")
    assert prepared(tmp_path / "root", features, modalities="ta") == first
    with pytest.raises(ConfigError, match="must be resumed with the config and features that it was started with"):
        prepared(tmp_path / "root", features, modalities="t")


def test_the_demo_is_written_under_the_given_root(tmp_path: Path) -> None:
    request = prepared(tmp_path / "root", "demo")
    assert request.features.uri == write_demo_corpus((tmp_path / "root").as_uri())
    assert request.config.settings == "demo"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"modalities": "tav"}, DataError, "has no visual, only text, audio"),
        ({"modalities": "tx"}, ConfigError, "`--modalities` must be a combination of the letters"),
        ({"preset": "best"}, ConfigError, "`preset` must be one of"),
        ({"overrides": {"model.modalities": ["text"]}}, ConfigError, "is set by `--modalities`"),
        (
            {"allow": ["copies"]},
            ConfigError,
            r"`--allow` must name codes of findings, but 'copies' is not one\. Known codes are",
        ),
        ({"settings": "meldd"}, ConfigError, "`settings` must be one of"),
        ({"overrides": {"training.epoch": 1, "model.hidden_dim": 0}}, ConfigError, "training.epoch(.|\n)*hidden_dim"),
        ({"overrides": {"resources.workers": 10_000}}, ResourceError, "needs 10000 CPUs"),
    ],
)
def test_a_bad_spec_writes_nothing(
    tmp_path: Path, features: str, spec: dict[str, Any], error: type[Ada2iError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        prepared(tmp_path / "root", features, **{"modalities": "ta", **spec})
    assert caught.value.exit_code == 2
    assert written(tmp_path / "root") == []


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("harm", "error", "message"),
    [
        (truncated, IntegrityError, "must hold the .* bytes"),
        (Path.unlink, DataError, "must exist, because manifest.json"),
    ],
)
def test_nothing_is_written_on_damaged_features(
    tmp_path: Path, features: str, harm: Callable[[Path], None], error: type[Ada2iError], message: str
) -> None:
    folder = storage.local_path(features)
    assert folder is not None
    harm(folder / "part-00002.parquet")  # even of the split that training does not read
    with pytest.raises(error, match=message):
        prepared(tmp_path / "root", features, modalities="ta")
    assert written(tmp_path / "root") == []


def copied(root: Path) -> str:
    """A feature set whose test vectors are copies of train vectors."""
    rows = shard_table([("train", "t0", 4), ("dev", "v0", 2), ("test", "x0", 4)])
    for name in ("text_feat", "audio_feat"):
        train, dev = rows[name].to_pylist()[:4], rows[name].to_pylist()[4:6]
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), pa.array(train + dev + train, rows[name].type))
    encoders = dict.fromkeys(WIDTHS, "random")
    more: dict[str, Any] = {"dataset": "toy", "synthetic": True, "dev_rule": None, "source": "test"}
    return write_features(root.as_uri(), rows, labels=("a", "b"), encoders=encoders, **more)


def test_what_the_audit_finds_forbids_a_run(tmp_path: Path) -> None:
    features = copied(tmp_path / "elsewhere")
    with pytest.raises(
        DataError, match=r"must pass the audit(.|\n)*cross-split-copies: (.|\n)*--allow cross-split-copies`"
    ):
        prepared(tmp_path / "root", features, modalities="ta")
    assert written(tmp_path / "root") == []


def test_what_is_allowed_is_recorded(tmp_path: Path) -> None:
    allowed = ("cross-split-copies", "absent-class", "missing-vectors")
    request = prepared(tmp_path / "root", copied(tmp_path / "elsewhere"), modalities="ta", allow=allowed)
    assert request.audit is not None
    assert request.audit.allowed == allowed
    assert ("cross-split-copies", "error") in {(found.code, found.severity) for found in request.audit.findings}


def test_a_request_older_than_the_audit_loads(tmp_path: Path, features: str) -> None:
    request = prepared(tmp_path / "root", features, modalities="ta")
    old = request.model_dump(mode="json", exclude={"audit"})
    assert RunRequest.model_validate(old) == request.model_copy(update={"audit": None})


def test_missing_features(tmp_path: Path) -> None:
    with pytest.raises(Ada2iError, match="has none") as caught:
        prepared(tmp_path / "root", str(tmp_path / "none"))
    assert caught.value.exit_code == 2
    assert written(tmp_path / "root") == []


def test_a_table_is_imported(tmp_path: Path) -> None:
    table = write(tmp_path / "table.parquet", corpus(), dataset="tiny")
    request = prepared(tmp_path / "root", str(table), modalities="ta")
    assert request.features.dataset == "tiny"
    assert request.features.uri.startswith((tmp_path / "root" / "features").as_uri())


def test_run_ids_sort_by_time_and_differ() -> None:
    ids = [new_run_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert [name[:15] for name in ids] == sorted(name[:15] for name in ids)


@pytest.mark.shared
def test_vectors_fitted_to_train_labels_are_left_out_unless_allowed(tmp_path: Path, shared_data: Path) -> None:
    text = str(shared_data / "derived" / "mosi_minilm384.parquet")
    features = import_joined(str(shared_data / "mosi"), tmp_path.as_uri(), tables={"text": text})
    request = prepared(tmp_path, features, preset="corrected")
    assert request.config.model.modalities == ("text", "audio")
    assert request.left_out.startswith("Left out: visual, whose vectors were fitted to the labels of train")
    ways: list[dict[str, Any]] = [{"allow": ("train-fitted-features",)}, {"overrides": {"model.train_fitted": "keep"}}]
    for number, way in enumerate(ways):
        again = prepared(tmp_path, features, preset="corrected", run_id=f"kept-{number}", **way)
        assert again.config.model.modalities == ("text", "audio", "visual")
        assert again.left_out == ""
    with pytest.raises(DataError, match="must hold a modality that was not fitted to the labels of train, but visual"):
        prepared(tmp_path, features, preset="corrected", modalities="v", run_id="alone")


def test_a_resumed_run_uses_the_new_number_of_workers(tmp_path: Path, features: str) -> None:
    for workers in (2, 1):
        request = prepared(tmp_path / "root", features, modalities="ta", overrides={"resources.workers": workers})
        assert request.config.resources.workers == workers
    with pytest.raises(ConfigError, match="must be resumed with the config"):
        prepared(tmp_path / "root", features, modalities="ta", overrides={"training.epochs": 7})
