"""Objects in folders: complete or absent, one winner, errors that say what to do."""

import errno
import io
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from botocore.exceptions import ResponseStreamingError
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from ada2i import storage
from ada2i.errors import AccessError, Ada2iError, InputError, IntegrityError, NotFoundError, UnreachableError

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in (".", "..") and not name.startswith("~") and name.strip() == name and "://" not in name
)

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
    with pytest.raises(AccessError, match="must be a folder that can be written"):
        storage.check_writable(storage.join(tmp_path.as_uri(), "file", "root"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_writable_in_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(AccessError, match="must be a folder that can be written"):
        storage.check_writable(storage.join(tmp_path.as_uri(), "root"))


def test_a_refused_write_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(AccessError, match="object may not be read or written"):
        storage.put_if_absent(storage.join(tmp_path.as_uri(), "object"), b"")


@given(NAMES)
def test_any_name_survives_normalising(name: str) -> None:
    path = Path("/somewhere", name)
    uri = storage.normalise(str(path))
    assert storage.local_path(uri) == path
    assert storage.normalise(uri) == uri


@pytest.mark.parametrize(
    ("location", "uri"),
    [
        ("/data/x/", "file:///data/x"),
        ("file:///data/x/", "file:///data/x"),
        ("file://localhost/data", "file:///data"),
        ("/data/../x y", "file:///x%20y"),
        ("file:///x%20y", "file:///x%20y"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
    ],
)
def test_normalise(location: str, uri: str) -> None:
    assert storage.normalise(location) == uri


def test_normalise_makes_paths_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.normalise("store") == (tmp_path / "store").as_uri()


@pytest.mark.parametrize(
    "location", ["", "  ", "gs://bucket/x", "s3://", "s3:///key", "http://host/x", "file://data/x"]
)
def test_normalise_refuses(location: str) -> None:
    with pytest.raises(InputError, match="must be a"):
        storage.normalise(location)


def test_a_key_may_hold_any_character() -> None:
    assert storage._split("s3://bucket/a#b/c?d") == ("bucket", "a#b/c?d")


def test_local_path_of_another_scheme() -> None:
    assert storage.local_path("s3://bucket/key") is None


def test_sources(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "deep/c.parquet", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = storage.source_files(str(tmp_path), ".parquet")
    assert [storage.read_source(uri) for uri in found] == [b"a.parquet", b"b.parquet", b"deep/c.parquet"]
    assert len(storage.source_files(str(tmp_path / "notes.txt"), ".parquet")) == 1
    for nothing in ("none", "deep/none.parquet"):
        with pytest.raises(NotFoundError, match="holds none"):
            storage.source_files(str(tmp_path / nothing), ".parquet")
    with pytest.raises(Ada2iError, match="does not exist"):
        storage.read_source(str(tmp_path / "none.parquet"))


@pytest.mark.parametrize(
    ("answers", "created"), [([None], True), ([412], False), ([409, None], True), ([409, 409, 412], False)]
)
def test_conflicts_on_s3_are_tried_again(s3: Stubber, answers: list[int | None], created: bool) -> None:
    for status in answers:
        answer(s3, status)
    assert storage.put_if_absent("s3://bucket/key", b"data") is created
    s3.assert_no_pending_responses()


def test_endless_conflicts_on_s3(s3: Stubber) -> None:
    for _ in range(5):
        answer(s3, 409)
    with pytest.raises(UnreachableError, match="answered 409") as caught:
        storage.put_if_absent("s3://bucket/key", b"data")
    assert caught.value.retryable


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """S3 with answers that no server of ours gives: AWS says 409 while another conditional write is under way."""
    client = boto3.session.Session().client(
        "s3", region_name="us-east-1", aws_access_key_id="fake", aws_secret_access_key="fake"
    )
    monkeypatch.setattr(storage, "_client", lambda: client)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with Stubber(client) as stubber:
        yield stubber


def answer(s3: Stubber, status: int | None) -> None:
    expected = {"Bucket": "bucket", "Key": "key", "Body": b"data", "IfNoneMatch": "*"}
    if status is None:
        s3.add_response("put_object", {}, expected)
    else:
        s3.add_client_error("put_object", http_status_code=status, expected_params=expected)


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


def test_stamps_of_source_files_change_with_their_content(tmp_path: Path) -> None:
    path = tmp_path / "a b.wav"
    path.write_bytes(b"one")
    uri, absent = path.as_uri(), (tmp_path / "absent").as_uri()
    before = storage.source_stamps([uri, str(path), absent])
    assert before.keys() == {uri, str(path)}
    time.sleep(0.02)  # a filesystem's clock may tick this slowly
    path.write_bytes(b"two")
    assert storage.source_stamps([uri])[uri] != before[uri]
    assert storage.source_stamps(["memory://nowhere/a", "memory://nowhere/b"]) == {}


def test_digests_of_source_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    assert storage.source_digest((tmp_path / "a").as_uri()) == storage.digest(b"one")
    with pytest.raises(NotFoundError, match="does not exist"):
        storage.source_digest(str(tmp_path / "b"))


LOST: list[dict[str, Any]] = [
    {"service_error_code": "InternalError", "http_status_code": 500},
    {"service_error_code": "SlowDown", "http_status_code": 503},
    {"service_error_code": "RequestTimeout", "http_status_code": 400},
]


@pytest.mark.parametrize("problem", LOST)
@pytest.mark.parametrize(("there", "created"), [(b"data", True), (b"other", False)])
def test_a_write_whose_answer_was_lost_is_recognised(
    s3: Stubber, problem: dict[str, Any], there: bytes, *, created: bool
) -> None:
    s3.add_client_error("put_object", **problem)
    answer(s3, 412)
    s3.add_response("get_object", {"Body": io.BytesIO(there)}, {"Bucket": "bucket", "Key": "key"})
    assert storage.put_if_absent("s3://bucket/key", b"data") is created
    s3.assert_no_pending_responses()


def test_a_lost_answer_is_remembered_over_a_conflict(s3: Stubber) -> None:
    s3.add_client_error("put_object", http_status_code=500)
    answer(s3, 409)
    answer(s3, 412)
    s3.add_response("get_object", {"Body": io.BytesIO(b"data")}, {"Bucket": "bucket", "Key": "key"})
    assert storage.put_if_absent("s3://bucket/key", b"data")
    s3.assert_no_pending_responses()


def test_an_answer_that_breaks_off_is_asked_for_again(s3: Stubber) -> None:
    class Broken:
        def read(self) -> bytes:
            raise ResponseStreamingError(error="broken off")

    for body in (Broken(), io.BytesIO(b"data")):
        s3.add_response("get_object", {"Body": body})
    assert storage.get("s3://bucket/key") == b"data"


@pytest.mark.parametrize(("code", "status"), [("ExpiredToken", 400), ("AccessDenied", 403)])
def test_a_refusal_is_not_asked_again(s3: Stubber, code: str, status: int) -> None:
    s3.add_client_error("get_object", service_error_code=code, http_status_code=status)
    with pytest.raises(AccessError, match=rf"refused the S3 credentials \({code}\)"):
        storage.get("s3://bucket/key")
    s3.assert_no_pending_responses()


def test_patience_has_an_end(s3: Stubber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PATIENCE_S", -1.0)
    s3.add_client_error("get_object", service_error_code="SlowDown", http_status_code=503)
    with pytest.raises(UnreachableError, match="answered 503 SlowDown") as caught:
        storage.get("s3://bucket/key")
    assert caught.value.retryable


def test_lists_go_on_where_a_page_ends(s3: Stubber) -> None:
    pages: list[dict[str, Any]] = [{"IsTruncated": True, "NextContinuationToken": "t"}, {"IsTruncated": False}]
    for page, key in zip(pages, ("folder/a", "folder/b/c"), strict=True):
        s3.add_response("list_objects_v2", {**page, "Contents": [{"Key": key, "LastModified": datetime.now(UTC)}]})
    assert storage.age("s3://bucket/folder") < 60
    s3.assert_no_pending_responses()


def test_sources_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    memory, failures = fsspec.filesystem("memory"), [ConnectionResetError("away"), OSError(errno.EBUSY, "busy")]

    def cat_file(_path: str) -> bytes:
        if failures:
            raise failures.pop()
        return b"data"

    monkeypatch.setattr(memory, "cat_file", cat_file)
    assert storage.read_source("memory://place/a") == b"data"
