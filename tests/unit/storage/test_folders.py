"""Objects in folders: complete or absent, one winner, errors that say what to do."""

import errno
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ada2i import storage
from ada2i.errors import AccessError, IntegrityError, NotFoundError, UnreachableError

# Dies at the moment that its argument names, in the middle of a write.
KILLED_WRITE = """
import os, signal, sys
from ada2i import storage
moment, uri, how = sys.argv[1:]
real = getattr(os, moment)
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(os, moment, die)
getattr(storage, how)(uri, b"new" * 100000)
"""


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_put_then_get(tmp_path: Path) -> None:
    uri = storage.join(tmp_path.as_uri(), "a", "b", "object")
    storage.put(uri, b"one")
    storage.put(uri, b"two")
    assert storage.get(uri) == b"two"
    assert storage.exists(uri)
    assert files(tmp_path) == ["object"]


def test_put_if_absent_leaves_what_is_there(tmp_path: Path) -> None:
    uri = storage.join(tmp_path.as_uri(), "object")
    assert storage.put_if_absent(uri, b"one")
    assert not storage.put_if_absent(uri, b"two")
    assert storage.get(uri) == b"one"
    assert files(tmp_path) == ["object"]


def test_put_if_absent_has_one_winner_of_16(tmp_path: Path) -> None:
    for attempt in range(10):
        uri = storage.join(tmp_path.as_uri(), f"object-{attempt}")
        start = threading.Barrier(16)

        def claim(number: int, uri: str = uri, start: threading.Barrier = start) -> bool:
            start.wait()
            return storage.put_if_absent(uri, f"winner {number}".encode())

        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(claim, range(16)))
        assert won.count(True) == 1
        assert storage.get(uri) == f"winner {won.index(True)}".encode()


@pytest.mark.parametrize(("moment", "how"), [("fsync", "put"), ("fsync", "put_if_absent"), ("link", "put_if_absent")])
def test_killed_write_leaves_nothing_visible(tmp_path: Path, moment: str, how: str) -> None:
    uri = storage.join(tmp_path.as_uri(), "folder", "object")
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITE, moment, uri, how], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert files(tmp_path)  # it did get as far as writing
    assert storage.children(tmp_path.as_uri()) == ["folder"]
    assert storage.children(storage.join(tmp_path.as_uri(), "folder")) == []
    assert not storage.exists(uri)
    assert storage.put_if_absent(uri, b"next")


def test_killed_overwrite_leaves_the_old_bytes(tmp_path: Path) -> None:
    uri = storage.join(tmp_path.as_uri(), "object")
    storage.put(uri, b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITE, "fsync", uri, "put"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert storage.get(uri) == b"old"


def test_overwriting_is_never_seen_half_done(tmp_path: Path) -> None:
    uri = storage.join(tmp_path.as_uri(), "object")
    storage.put(uri, b"0" * 300_000)
    done = threading.Event()

    def write() -> None:
        for number in range(25):
            storage.put(uri, str(number % 10).encode() * 300_000)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set() and not writing.done():
            data = storage.get(uri)
            assert len(data) == 300_000
            assert len(set(data)) == 1
        writing.result()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    uri = storage.join(tmp_path.as_uri(), "object")
    with pytest.raises(UnreachableError, match="the disk is full") as caught:
        storage.put(uri, b"data")
    assert caught.value.retryable
    assert files(tmp_path) == []


def test_get_checked(tmp_path: Path) -> None:
    uri = storage.join(tmp_path.as_uri(), "object")
    storage.put(uri, b"data")
    sha256 = "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"  # of b"data"
    assert storage.digest(b"data") == sha256
    assert storage.get_checked(uri, size=4, sha256=sha256) == b"data"
    with pytest.raises(IntegrityError, match=f"{re.escape(uri)} must hold the 5 bytes"):
        storage.get_checked(uri, size=5, sha256=sha256)
    storage.put(uri, b"dat\x00")
    with pytest.raises(IntegrityError, match="changed or damaged after it was written"):
        storage.get_checked(uri, size=4, sha256=sha256)


def test_what_does_not_exist(tmp_path: Path) -> None:
    uri = storage.join(tmp_path.as_uri(), "none")
    with pytest.raises(NotFoundError, match="none does not exist"):
        storage.get(uri)
    with pytest.raises(NotFoundError, match="does not exist"):
        storage.get(tmp_path.as_uri())  # a folder is no object
    assert not storage.exists(uri)
    assert not storage.exists(tmp_path.as_uri())
    assert storage.children(uri) == []
    storage.delete(uri)
    storage.delete_folder(uri)


def test_children_are_sorted_names_of_objects_and_folders(tmp_path: Path) -> None:
    for name in ("b/deep/object", "a", "c/object", ".partial-0123", "10", "9"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert storage.children(tmp_path.as_uri()) == ["10", "9", "a", "b", "c"]


def test_deleting(tmp_path: Path) -> None:
    root = tmp_path.as_uri()
    for name in ("keep", "gone", "folder/a", "folder/deep/b"):
        storage.put(storage.join(root, name), b"")
    storage.delete(storage.join(root, "gone"))
    storage.delete_folder(storage.join(root, "folder"))
    assert files(tmp_path) == ["keep"]
    assert storage.children(root) == ["keep"]


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    storage.check_writable(storage.join(tmp_path.as_uri(), "new", "folder"))
    assert list(tmp_path.iterdir()) == []


def test_check_writable_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AccessError, match="must be a writable folder"):
        storage.check_writable(storage.join(tmp_path.as_uri(), "file", "root"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_writable_in_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(AccessError, match="must be a writable folder"):
        storage.check_writable(storage.join(tmp_path.as_uri(), "root"))


def test_a_refused_write_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(AccessError, match="object may not be read or written"):
        storage.put_if_absent(storage.join(tmp_path.as_uri(), "object"), b"")


def test_age_is_that_of_the_newest_object(tmp_path: Path) -> None:
    root = tmp_path.as_uri()
    assert storage.age(storage.join(root, "none")) == math.inf
    (tmp_path / "empty").mkdir()
    assert storage.age(root) == math.inf
    for name, seconds in (("a", 500), ("deep/b", 100), ("deep/.partial-0", 50)):
        storage.put(storage.join(root, name), b"")
        os.utime(tmp_path / name, (time.time() - seconds,) * 2)
    assert 50 <= storage.age(root) < 60


def test_partials_go_when_they_are_old(tmp_path: Path) -> None:
    for name, seconds in ((".partial-0", 100), ("deep/.partial-1", 100), ("deep/.partial-2", 10), ("deep/a", 100)):
        storage.put(storage.join(tmp_path.as_uri(), name), b"")
        os.utime(tmp_path / name, (time.time() - seconds,) * 2)
    expected = [(tmp_path / name).as_uri() for name in (".partial-0", "deep/.partial-1")]
    assert storage.delete_partials(tmp_path.as_uri(), older_than_s=50) == expected
    assert files(tmp_path) == [".partial-2", "a"]
    assert storage.delete_partials(storage.join(tmp_path.as_uri(), "none"), older_than_s=0) == []
