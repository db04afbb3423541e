"""Who can write to the registry can damage it, but not make it read, write or believe what lies elsewhere."""

import shutil
import tracemalloc
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from pydantic import BaseModel, ValidationError

from ada2i import storage
from ada2i.data.entries import ShardEntry
from ada2i.data.manifest import Manifest, open_features
from ada2i.errors import ConfigError, DataError, IntegrityError, NotFoundError
from ada2i.importers.demo import write_demo_corpus
from ada2i.prediction.records import Part, PredictionManifest
from ada2i.records import FileEntry, FolderManifest, RunResult
from ada2i.registry.aliases import aliases, current, history, move
from ada2i.registry.gc import sweep
from ada2i.registry.paths import MANIFEST
from ada2i.registry.pull import pull
from ada2i.registry.references import resolve
from ada2i.registry.verdicts import verdicts
from ada2i.registry.verify import verify
from ada2i.registry.versions import Version, find, load_version, models, register, versions
from ada2i.store import RunFolder
from ada2i.training.dedup import repeats
from ada2i.training.request import TrainSpec, prepare
from tests.unit.registry.finished import finished_run, with_champion

NAMES = ("../x", "a/b", "/x", "..%2fx", "s3://x", "x\0", "", ".", "..", ".x", "x\n", "a\\b", "x?y", "x" * 256)


@pytest.fixture
def root(root: str) -> str:
    return with_champion(root)


def home(root: str) -> Path:
    path = storage.local_path(storage.join(root, "registry", "ada2i"))
    assert path is not None
    return path


def change(root: str, version: int, **fields: Any) -> None:
    """Change the manifest of a version, and seal it anew."""
    place = storage.join(root, "registry", "ada2i", "versions", str(version), MANIFEST)
    storage.put(place, Version.load(place).model_copy(update=fields).stored())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("record", [Version, FolderManifest, RunResult, Manifest, PredictionManifest, ShardEntry, Part])
def test_a_record_names_files_by_one_safe_segment(record: type[BaseModel], name: str) -> None:
    field = "name" if record in (ShardEntry, Part) else "files"
    good, bad = (value if field == "name" else {value: {"size": 1, "sha256": "0" * 64}} for value in ("a-1.b", name))
    assert field in wrong(record, {field: bad})
    assert field not in wrong(record, {field: good})


def wrong(record: type[BaseModel], values: dict[str, Any]) -> set[Any]:
    try:
        record.model_validate(values)
    except ValidationError as problem:
        return {error["loc"][0] for error in problem.errors() if error["type"] != "missing"}
    return set()


@pytest.mark.parametrize("name", ["../../.bashrc", "..%2f..%2f.profile", "/etc/x"])
def test_a_pull_writes_only_into_its_folder(root: str, tmp_path: Path, name: str) -> None:
    data = b"evil"
    entry = FileEntry(size=len(data), sha256=storage.digest(data))
    version = find(root, "ada2i", 2)
    storage.put(storage.join(root, "registry", "ada2i", "versions", "2", name.replace("/etc", "etc")), data)
    change(root, 2, files={**version.files, name: entry})
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(DataError, match="files"):
        pull(root, "ada2i@2", tmp_path / "a" / "b" / "copy")
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert [problem.message for problem in verify(root, "ada2i")]


def test_a_version_is_that_of_its_folder(root: str) -> None:
    for fields in ({"model": "other"}, {"number": 77}, {"model": "outside", "number": 7}):
        change(root, 1, **fields)
        for read in (lambda: resolve(root, "ada2i@1"), lambda: versions(root, "ada2i")):
            with pytest.raises(IntegrityError, match="must be the manifest of ada2i@1, but is that of"):
                read()
        assert any("must be the manifest of ada2i@1" in problem.message for problem in verify(root, "ada2i"))
        change(root, 1, model="ada2i", number=1)
    shutil.copyfile(home(root) / "versions/2" / MANIFEST, home(root) / "versions/1" / MANIFEST)
    with pytest.raises(IntegrityError, match="but is that of ada2i@2"):
        resolve(root, "ada2i@1")
    with pytest.raises(IntegrityError, match="but is that of ada2i@2"):
        move(root, "ada2i", "champion", 1, expected=2, by="anna", reason="an honest one")
    assert not (home(root).parent / "other").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "../../../outside"},
        {"number": 10**30},
        {"number": 0},
        {"created": "yesterday"},
        {"created": "2026-11-28T10:00:00"},
        {"run_id": "../x"},
    ],
)
def test_a_version_with_a_value_that_no_version_has_is_refused(root: str, fields: dict[str, Any]) -> None:
    change(root, 1, **fields)
    with pytest.raises(DataError, match="must hold a Version"):
        resolve(root, "ada2i@1")


def test_a_move_is_that_of_its_place(root: str) -> None:
    move(root, "ada2i", "challenger", 1, expected=None, by="anna", reason="new")
    places = home(root) / "aliases"
    shutil.copyfile(places / "challenger/1.json", places / "champion/1.json")
    with pytest.raises(IntegrityError, match="must be move 1 of ada2i@champion, but is move 1 of ada2i@challenger"):
        history(root, "ada2i", "champion")
    shutil.copyfile(places / "champion/1.json", places / "champion/2.json")
    with pytest.raises(IntegrityError, match="must be move 2 of ada2i@champion"):
        current(root, "ada2i", "champion")
    assert any("must be move" in problem.message for problem in verify(root, "ada2i"))


def test_names_of_others_are_passed_over_and_reported(root: str) -> None:
    strays = ["aliases/.DS_Store", "aliases/champion/.DS_Store", "aliases/champion/01.json", "aliases/champion/²"]
    strays += ["aliases/champion/9999999999.json", "versions/.DS_Store", "versions/0", "verdicts/Thumbs.db"]
    for name in strays:
        (home(root) / name).parent.mkdir(exist_ok=True)
        (home(root) / name).touch()
    (home(root).parent / ".DS_Store").touch()
    assert models(root) == ["ada2i"]
    assert {name: found.number for name, found in aliases(root, "ada2i").items()} == {"champion": 2}
    assert [version.number for version in versions(root, "ada2i")] == [1, 2]
    assert sweep(root, "ada2i", versions_older_than_s=0.0) == []
    assert verdicts(root, "ada2i") == []
    problems = [problem.uri.rpartition("/ada2i/")[2] for problem in verify(root, "ada2i")]
    assert sorted(map(unquote, problems)) == sorted(strays)


@pytest.mark.parametrize("name", ["20000000.json", "999999999.json"])
def test_a_huge_number_costs_no_memory(root: str, name: str) -> None:
    (home(root) / "aliases/champion" / name).write_text("{}")
    tracemalloc.start()
    with pytest.raises(IntegrityError, match=rf"must hold every record up to {name}, but lacks 3\.json"):
        resolve(root, "ada2i@champion")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_numbers_that_no_version_has(root: str) -> None:
    for number in ("9" * 5_000, "0", "01", "²"):
        with pytest.raises(ConfigError, match="must be") as caught:
            resolve(root, f"ada2i@{number}")
        assert len(caught.value.message) < 400
    with pytest.raises(NotFoundError):
        resolve(root, "ada2i@999999999")
    (home(root) / "versions/999999999").mkdir()
    finished_run(root, "run-c")
    with pytest.raises(IntegrityError, match="must hold numbers with fewer than 10 digits, but holds 999999999"):
        register(storage.join(root, "runs", "run-c"), root=root, model="ada2i")


def test_a_pointer_that_is_no_number_is_refused(root: str) -> None:
    (home(root) / "runs/run-a.json").write_text("9" * 5_000)
    with pytest.raises(IntegrityError, match=r"run-a\.json must hold a version number"):
        register(storage.join(root, "runs", "run-a"), root=root, model="ada2i")
    assert any("must name a version number" in problem.message for problem in verify(root, "ada2i"))


def test_a_history_without_its_end_is_reported(root: str) -> None:
    assert verify(root, "ada2i") == []
    (home(root) / "aliases/champion/2.json").unlink()
    (problem,) = verify(root, "ada2i")
    assert "ada2i@2 was given champion by move 2, but " in problem.message
    assert "2.json is missing: the history lost its end" in problem.message
    shutil.rmtree(home(root) / "aliases")
    assert len(verify(root, "ada2i")) == 2


def test_records_without_their_seals_are_reported(root: str) -> None:
    for place in ("versions/1/manifest.json", "versions/2/manifest.json", "aliases/champion/2.json"):
        path = home(root) / place
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if '"seal"' not in line))
        assert any("must carry its seal, but has none" in problem.message for problem in verify(root, "ada2i")), place
        path.write_text("".join(lines))


@pytest.mark.parametrize("field", ["run_id", "run_uri", "seeds"])
def test_a_result_that_names_what_lies_elsewhere_is_not_registered(root: str, field: str) -> None:
    result = finished_run(root, "run-c")
    seeds = tuple(seed.model_copy(update={"checkpoint_uri": "file:///elsewhere/1"}) for seed in result.seeds)
    other = {"run_id": "run-a", "run_uri": f"{root}/runs/run-a", "seeds": seeds}[field]
    storage.put(f"{root}/runs/run-c/result.json", result.model_copy(update={field: other}).stored())
    with pytest.raises(IntegrityError, match="must be the result of run run-c in its folder"):
        register(f"{root}/runs/run-c", root=root)


@pytest.mark.parametrize("dataset", ["x/../../../../escape/y", "x/../ada2i", "X", "", "..", "a b", "d" * 300])
def test_a_feature_set_that_is_called_like_a_path_is_refused_before_training(tmp_path: Path, dataset: str) -> None:
    uri = write_demo_corpus((tmp_path / "store").as_uri(), dialogues=20)
    manifest = open_features(uri).manifest.model_copy(update={"dataset": dataset})
    storage.put(storage.join(uri, MANIFEST), manifest.stored())
    with pytest.raises(DataError, match=r"must hold a Manifest .* at `dataset`"):
        prepare(TrainSpec(features=uri), root=str(tmp_path / "store"), run_id="run")
    assert not (tmp_path / "store" / "runs").exists()


def test_a_dataset_whose_name_is_too_long_for_a_model_is_refused_before_training(tmp_path: Path) -> None:
    uri = write_demo_corpus((tmp_path / "store").as_uri(), dialogues=20)
    manifest = open_features(uri).manifest.model_copy(update={"dataset": "d" * 60})
    storage.put(storage.join(uri, MANIFEST), manifest.stored())
    job = prepare(TrainSpec(features=uri), root=str(tmp_path / "store"), run_id="run")
    with pytest.raises(ConfigError, match="A model's name must be"):
        repeats(RunFolder(job.uri).request(), root=str(tmp_path / "store"), model=None)
    assert repeats(RunFolder(job.uri).request(), root=str(tmp_path / "store"), model="mine") is None


def test_a_copy_elsewhere_may_be_any_version(root: str, tmp_path: Path) -> None:
    folder = pull(root, "ada2i@2", tmp_path / "copy")
    found = load_version(folder.as_uri())
    assert found == find(root, "ada2i", 2)
