"""The root, and the folders under it."""

from pathlib import Path

import pytest

from ada2i.errors import ConfigError
from ada2i.store import RunFolder, Store
from ada2i.training.request import TrainSpec, prepare


def test_the_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADA2I_ROOT", raising=False)
    assert Store.open().root == (Path.cwd() / "ada2i-store").as_uri()
    monkeypatch.setenv("ADA2I_ROOT", "s3://bucket/x/")
    assert Store.open().root == "s3://bucket/x"
    assert Store.open("s3://other").root == "s3://other"


def test_a_run_folder_knows_its_objects() -> None:
    run = Store.open("s3://b/root").run("r1")
    assert run == RunFolder("s3://b/root/runs/r1")
    assert (run.run_id, run.request_uri) == ("r1", "s3://b/root/runs/r1/request.json")
    assert run.seed(3).result_uri == "s3://b/root/runs/r1/seed-3/result.json"


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".x", "a%2fb", "a\n", "a\\b", "x" * 201, "a?b"])
def test_an_id_is_one_segment_of_a_path(tmp_path: Path, name: str) -> None:
    store = Store.open(str(tmp_path))
    for folder in (store.run, store.extraction, store.search, store.study, store.prediction):
        with pytest.raises(ConfigError, match="An id must be"):
            folder(name)
    with pytest.raises(ConfigError, match="An id must be"):
        prepare(TrainSpec(features="demo"), root=str(tmp_path), run_id=name)
    assert store.run("my run ü").uri.endswith("/runs/my%20run%20%C3%BC")
    assert store.run("my run ü").run_id == "my run ü"
