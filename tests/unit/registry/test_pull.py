"""Pulling: a folder is a whole copy of a version, or not there."""

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.errors import DataError, InputError, NotFoundError
from ada2i.registry.pull import pull
from ada2i.registry.versions import SWEPT, Version, version_uri
from tests.unit.registry.finished import registered


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_copy_holds_every_file_and_the_manifest(root: str, tmp_path: Path) -> None:
    version = registered(root, "run-a")
    folder = pull(root, "ada2i@1", tmp_path / "deep" / "copy")
    assert folder == tmp_path / "deep" / "copy"
    uri = version_uri(root, version)
    assert content(folder) == {n: storage.get(storage.join(uri, n)) for n in (*version.files, "manifest.json")}
    assert Version.load((folder / "manifest.json").as_uri()) == version
    assert list(folder.parent.iterdir()) == [folder]


def test_pulling_again_changes_nothing(root: str, tmp_path: Path) -> None:
    registered(root, "run-a")
    folder = pull(root, "ada2i", tmp_path / "copy")
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert pull(root, "ada2i", tmp_path / "copy") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written


def test_an_empty_folder_is_filled(root: str, tmp_path: Path) -> None:
    registered(root, "run-a")
    (tmp_path / "copy").mkdir()
    assert (pull(root, "ada2i", tmp_path / "copy") / "config.json").is_file()


def test_what_is_there_is_never_touched(root: str, tmp_path: Path) -> None:
    registered(root, "run-a")
    registered(root, "run-b")
    folder = pull(root, "ada2i@1", tmp_path / "copy")
    with pytest.raises(InputError, match=r"copy must be new, empty or a copy of ada2i@2, but is not: It holds another"):
        pull(root, "ada2i@2", folder)
    (folder / "report.html").write_bytes(b"edited")
    with pytest.raises(InputError, match=r"a copy of ada2i@1, but is not: .*report\.html must hold the"):
        pull(root, "ada2i@1", folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"mine")
    for name in ("other", "file"):
        with pytest.raises(InputError, match=r"manifest\.json does not exist"):
            pull(root, "ada2i@1", tmp_path / name)
    assert (folder / "report.html").read_bytes() == b"edited"
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "file", "other", "store"]


def test_threads_that_pull_to_one_folder(root: str, tmp_path: Path) -> None:
    registered(root, "run-a")
    start = threading.Barrier(8)

    def go(_: int) -> Path:
        start.wait()
        return pull(root, "ada2i", tmp_path / "copy")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(go, range(8))) == {tmp_path / "copy"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "store"]


def test_damage_leaves_nothing(root: str, tmp_path: Path) -> None:
    version = registered(root, "run-a")
    damaged = storage.join(version_uri(root, version), "README.md")
    storage.put(damaged, b"other")
    with pytest.raises(DataError, match=re.escape(damaged)):
        pull(root, "ada2i", tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_version_that_is_swept_meanwhile(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = registered(root, "run-a")
    manifest = storage.join(version_uri(root, version), "manifest.json")
    real = storage.put

    def sweep_then_put(uri: str, data: bytes) -> None:
        real(uri, data)
        real(manifest, SWEPT)

    monkeypatch.setattr(storage, "put", sweep_then_put)
    with pytest.raises(DataError, match="must hold a Version"):
        pull(root, "ada2i", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_remains_of_a_killed_pull_go_after_a_day(root: str, tmp_path: Path) -> None:
    registered(root, "run-a")
    for name, age in (("old", 90_000), ("new", 60)):
        remains = tmp_path / f".copy.partial-{name}"
        remains.mkdir()
        (remains / "config.json").write_bytes(b"")
        os.utime(remains, (time.time() - age,) * 2)
    pull(root, "ada2i", tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".copy.partial-new", "copy", "store"]


def test_a_folder_below_a_file(root: str, tmp_path: Path) -> None:
    registered(root, "run-a")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotFoundError, match=r"file/\.copy\.partial-\w+/weights\.safetensors does not exist"):
        pull(root, "ada2i", tmp_path / "file" / "copy")


def test_what_is_not_registered(root: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="must hold a version ada2i"):
        pull(root, "ada2i", tmp_path / "deep" / "copy")
    assert list(tmp_path.iterdir()) == []
