"""A stored config that names code is not followed unless the caller names the class and has its source."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ada2i import storage, usecases
from ada2i.config import TrainConfig
from ada2i.errors import Ada2iError, ConfigError, IntegrityError
from ada2i.inference.models import load_model
from ada2i.inference.versions import open_version
from ada2i.jobs import code
from ada2i.prediction.request import PredictSpec
from ada2i.promotion.gate import dry_run, resolve_rules
from ada2i.records import FileEntry, FolderManifest, RunResult
from ada2i.registry.aliases import move
from ada2i.registry.pull import pull
from ada2i.registry.versions import Version, find, read_file, register
from ada2i.store import RunFolder, Store
from ada2i.training.dedup import repeats
from ada2i.training.evaluate import evaluate_run
from ada2i.training.launch import train_group
from ada2i.training.reporter import Reporter
from ada2i.training.request import TrainSpec, prepare
from tests.own import FILES, write_examples
from tests.unit.promotion.versions import Splitter, early, features
from tests.unit.registry.finished import ENVIRONMENT
from tests.unit.training.small import TINY as SMALL

OWN = {
    "model.encoder": "doc_encoder:Gru",
    "model.fusion": "doc_fusion:Concat",
    "balance.method": "doc_balance:SlowLeader",
}
TINY = {name: value for name, value in SMALL.items() if not name.startswith("balance.")} | {
    "training.epochs": 1,
    "resources.workers": 1,
}
MODEL = ("doc_encoder:Gru", "doc_fusion:Concat")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path with the examples, and a root below it."""
    write_examples(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget(monkeypatch)
    return tmp_path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process as one that has not imported the examples."""
    monkeypatch.setattr(code, "_imported", {})
    for name in FILES:
        monkeypatch.delitem(sys.modules, name, raising=False)


def made(
    folder: Path, run_id: str = "own", split_of: Splitter = early, overrides: Mapping[str, Any] | None = None
) -> Version:
    """Train a tiny model, with the examples unless fields are given, and register it."""
    root, own = (folder / "root").as_uri(), dict(overrides or OWN)
    spec = TrainSpec(features=features(root, split_of), overrides={**TINY, **own})
    run = RunFolder(prepare(spec, root=root, run_id=run_id).uri)
    request = run.request()
    assert train_group(run, request, [5], Reporter(), use_gpu=False, in_process=True) is None
    storage.put(storage.join(run.uri, "environment.json"), json.dumps(ENVIRONMENT).encode())
    with code.named(request.own_code):
        evaluate_run(run.uri)
    return register(run.uri, root=root, model="talks")


def predict(folder: Path, names: tuple[str, ...], version: str = "talks") -> str:
    root = (folder / "root").as_uri()
    spec = PredictSpec(version=version, source=find(root, "talks").features.uri, split="test", code=names)
    return usecases.predict(spec, Store.open(root), hooks=usecases.Hooks(), extraction_run="x")[0]


def test_a_version_of_own_classes_is_registered_and_predicts_if_they_are_named(folder: Path) -> None:
    version, root = made(folder), (folder / "root").as_uri()
    digests = code.digests(OWN.values())
    assert version.own_code == digests
    result = RunResult.model_validate_json(read_file(root, version, "result.json"))
    assert result.own_code == digests
    for page in ("README.md", "report.html"):
        text = read_file(root, version, page).decode().replace("\\", "")
        assert all(name in text and digest in text for name, digest in digests.items())
    copy = str(pull(root, "talks", folder / "copy"))
    for reference in ("talks", copy):
        for names in ((), MODEL[:1], (MODEL[1], "json:loads")):
            missing = next(name for name in MODEL if name not in names)
            with pytest.raises(ConfigError, match=f"talks@1 was trained with {missing}, .* add `--code {missing}`"):
                predict(folder, names, reference)
    assert storage.children(predict(folder, MODEL)) == ["manifest.json", "part-00000.parquet", "request.json"]


def test_predictions_of_own_classes_are_compared_if_they_are_named(folder: Path) -> None:
    version, store = made(folder), Store.open((folder / "root").as_uri())
    spec = PredictSpec(version="talks", source=version.features.uri, split="train", code=MODEL)
    usecases.predict(spec, store, hooks=usecases.Hooks(), extraction_run="x")
    with pytest.raises(ConfigError, match=f"add `--code {MODEL[0]}`"):
        usecases.drift("talks", store)
    _, ((window, _),) = usecases.drift("talks", store, own=MODEL)
    assert window.dialogues > 4


@pytest.mark.parametrize("file", ["doc_encoder.py", "doc_fusion.py"])
def test_another_source_than_that_of_training_is_refused(folder: Path, file: str) -> None:
    version = made(folder)
    with (folder / file).open("a") as source:
        source.write("# changed\n")
    with pytest.raises(IntegrityError) as found:
        predict(folder, MODEL)
    name = next(name for name in MODEL if name.startswith(file[:-3]))
    assert version.own_code[name][:16] in found.value.message
    assert code.digests([name])[name][:16] in found.value.message


def test_a_run_continues_with_its_source_only_and_another_source_is_no_repetition(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, version = (folder / "root").as_uri(), made(folder)
    spec = TrainSpec(features=version.features.uri, overrides={**TINY, **OWN})
    first = prepare(spec, root=root, run_id="again")
    assert prepare(spec, root=root, run_id="again") == first
    assert repeats(RunFolder(first.uri).request(), root=root, model="talks") == version
    with (folder / "doc_balance.py").open("a") as source:
        source.write("# changed\n")
    with pytest.raises(ConfigError, match="was changed since"):
        prepare(spec, root=root, run_id="again")
    forget(monkeypatch)
    with pytest.raises(ConfigError, match=r"Run again must be resumed with .* the same source of classes of your own"):
        prepare(spec, root=root, run_id="again")
    assert repeats(RunFolder(prepare(spec, root=root, run_id="other").uri).request(), root=root, model="talks") is None


def test_a_worker_with_another_source_refuses_the_job(folder: Path) -> None:
    root, version = (folder / "root").as_uri(), made(folder)
    spec = TrainSpec(features=version.features.uri, overrides={**TINY, **OWN})
    run = RunFolder(prepare(spec, root=root, run_id="elsewhere").uri)
    request = run.request().model_copy(update={"own_code": {**version.own_code, MODEL[0]: "0" * 64}})
    with pytest.raises(IntegrityError, match=f"needs {MODEL[0]} with the source of SHA-256 0000000000000000, but"):
        train_group(run, request, [5], Reporter(), use_gpu=False, in_process=True)
    assert not run.is_trained()


def test_the_gate_runs_a_version_only_if_its_classes_are_named(folder: Path) -> None:
    version, root = made(folder), (folder / "root").as_uri()
    other = made(folder, "plain", lambda d: "gate" if d > 69 else early(d), overrides={"balance.method": "none"})
    move(root, "talks", "champion", version.number, expected=None, by="anna", reason="first")
    rules = resolve_rules({"dialogues": 1, "utterances": 1, "min_over_floor": -1})
    with pytest.raises(ConfigError, match="talks@1 was trained with doc_encoder:Gru"):
        dry_run(root, other, rules, by="anna")
    with code.named(code.digests(MODEL)):
        assert dry_run(root, other, rules, by="anna").split == "gate"


HOSTILE: list[Mapping[str, str]] = [
    {"model.encoder.kind": "marks_by_import:Encoder"},
    {"model.fusion": "marks_by_import:Fusion"},
    {"balance.method": "marks_by_import:Method"},
    {"model.fusion": "subprocess:Popen"},
]


@pytest.mark.parametrize("fields", HOSTILE)
@pytest.mark.parametrize("place", ["version", "request", "checkpoint"])
def test_a_stored_name_is_never_imported(folder: Path, fields: Mapping[str, str], place: str) -> None:
    root = (folder / "root").as_uri()
    (folder / "marks_by_import.py").write_text(f"open({str(folder / 'marker')!r}, 'w').close()\n")
    version = made(folder, "run", overrides={"balance.method": "none"})
    ((field, name),) = fields.items()
    run, (uri, _) = Store.open(root).run("run"), open_version(root, "talks")
    if place == "version":
        data = _changed(storage.get(f"{uri}/config.json"), field, name)
        files = {**version.files, "config.json": FileEntry(size=len(data), sha256=storage.digest(data))}
        storage.put(f"{uri}/config.json", data)
        storage.put(f"{uri}/manifest.json", version.model_copy(update={"files": files}).stored())
    elif place == "request":
        request = run.request()
        config = TrainConfig.model_validate_json(_changed(request.config.model_dump_json().encode(), field, name))
        changed = {"config": config, "own_code": {name: "0" * 64}}
        storage.put(run.request_uri, request.model_copy(update=changed).stored())
    else:
        _change_checkpoint(run.result().seeds[0].checkpoint_uri, field, name)
    storage.delete_folder(run.seed(5).uri + "/attempts")
    Path(str(storage.local_path(run.seed(5).test_uri))).unlink()  # so that the run is evaluated again
    rules = resolve_rules({})
    uses: list[Callable[[], object]] = [
        lambda: load_model(*open_version(root, "talks")),
        lambda: predict(folder, ()),
        lambda: evaluate_run(run.uri),
        lambda: prepare(TrainSpec(features=version.features.uri, overrides=TINY), root=root, run_id="run"),
        lambda: repeats(run.request(), root=root, model="talks"),
        lambda: dry_run(root, version, rules, by="anna"),
    ]
    refused = 0
    for use in uses:
        try:
            use()
        except Ada2iError:
            refused += 1
    assert refused or field == "balance.method"  # which no prediction needs
    assert not (folder / "marker").exists()
    assert "marks_by_import" not in sys.modules


def _change_checkpoint(uri: str, field: str, name: str) -> None:
    place = storage.join(uri, "manifest.json")
    manifest = FolderManifest.load(place)
    stored = str(manifest.stored_name("state.json"))
    state = json.loads(storage.get(storage.join(uri, stored)))
    state["progress"]["config"] = json.loads(_changed(json.dumps(state["progress"]["config"]).encode(), field, name))
    data = json.dumps(state).encode()
    storage.put(storage.join(uri, stored), data)
    files = {**manifest.files, stored: FileEntry(size=len(data), sha256=storage.digest(data))}
    storage.put(place, manifest.model_copy(update={"files": files}).stored())


def _changed(data: bytes, field: str, name: str) -> bytes:
    tree = json.loads(data)
    *groups, last = field.split(".")
    inner = tree
    for group in groups:
        inner = inner[group]
    inner[last] = name
    if field == "balance.method":
        tree["balance"] = {"method": name, "ratio": "linear"}
    return json.dumps(tree).encode()
