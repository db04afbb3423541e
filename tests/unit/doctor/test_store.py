"""A root that can be used, and stores that break a promise."""

import re
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from ada2i import storage
from ada2i.doctor import clock
from ada2i.doctor.check import Check
from ada2i.doctor.store import check_store
from tests.unit.doctor.servers import Answer, serving


def found(root: str) -> dict[str, Check]:
    return {check.name: check for check in check_store(root)}


def test_a_folder_works_and_stays_as_it_was(tmp_path: Path) -> None:
    checks = found(str(tmp_path / "not" / "yet"))
    assert {name: check.status for name, check in checks.items()} == {
        "room for the root": "ok",
        "storage": "ok",
        "conditional writes": "ok",
    }
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = found(str(tmp_path / "file"))["storage"]
    assert check.status == "fail"
    assert "must be a writable folder" in check.found
    assert check.todo == "Choose another with `--root`."


class Bucket:
    """An S3 server without authentication, and without conditional writes by default."""

    def __init__(self, *, conditions: bool) -> None:
        self.conditions = conditions
        self.objects: dict[str, bytes] = {}

    def __call__(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Answer a request."""
        key, _, query = path.partition("?")
        if method == "PUT":
            if self.conditions and "If-None-Match" in headers and key in self.objects:
                return 412, b"<Error><Code>PreconditionFailed</Code></Error>"
            self.objects[key] = body
            return 200, b""
        if method == "DELETE":
            self.objects.pop(key, None)
            return 204, b""
        if method == "POST":  # of several objects
            for name in re.findall("<Key>(.*?)</Key>", body.decode()):
                self.objects.pop(f"{key.rstrip('/')}/{name}", None)
            return 200, b"<DeleteResult/>"
        if "list-type" in query:
            folder = query.partition("prefix=")[2].partition("&")[0].replace("%2F", "/")
            names = [name.partition("/b/")[2] for name in self.objects]
            rows = "".join(f"<Contents><Key>{n}</Key></Contents>" for n in names if n.startswith(folder))
            return 200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
        return (200, self.objects[key]) if key in self.objects else (404, b"<Error><Code>NoSuchKey</Code></Error>")


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-this-test")


def at(monkeypatch: pytest.MonkeyPatch, respond: Any, date: str | None = None) -> dict[str, Check]:
    with serving(respond, date=date) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        return found("s3://b/root")


def test_a_store_that_keeps_its_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(conditions=True)
    checks = at(monkeypatch, bucket)
    assert {name: check.status for name, check in checks.items()} == {
        "S3 clock": "ok",
        "storage": "ok",
        "conditional writes": "ok",
    }
    assert bucket.objects == {}


def test_a_store_that_knows_no_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    check = at(monkeypatch, Bucket(conditions=False))["conditional writes"]
    assert check.status == "fail"
    assert check.found.startswith("exactly one of 8 concurrent writers of one object must succeed")
    assert (
        "8 succeeded (0, 1, 2, 3, 4, 5, 6, 7), the bytes of the later one stayed, and a later writer succeeded"
        in check.found
    )
    assert "`If-None-Match: *`" in check.todo


def test_a_store_that_refuses_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = b"<Error><Code>InvalidAccessKeyId</Code></Error>"
    checks = at(monkeypatch, lambda *_: (403, refusal))
    assert checks["storage"].status == "fail"
    assert "refused the S3 credentials (InvalidAccessKeyId)" in checks["storage"].found
    assert "secret-of-this-test" not in str(checks)


def test_a_store_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    begun = time.monotonic()
    checks = found("s3://b/root")
    assert [(check.name, check.status) for check in checks.values()] == [("S3 clock", "fail")]
    assert "http://127.0.0.1:9 does not answer" in checks["S3 clock"].found
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("ahead", "status"), [(0, "ok"), (-30, "ok"), (120, "warn"), (-120, "warn"), (1000, "fail"), (-1000, "fail")]
)
def test_clocks(ahead: int, status: str) -> None:
    with serving(lambda *_: (403, b""), date=formatdate(time.time() + ahead, usegmt=True)) as url:
        check = clock.check_clock("clock", url)
    assert check.status == status
    if ahead:
        assert ("behind" if ahead > 0 else "ahead of") in check.found or status == "ok"


def test_a_clock_that_is_not_a_date_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # not for this machine
    with serving(lambda *_: (200, b""), date="soon") as url:
        check = clock.check_clock("clock", url)
    assert (check.status, check.found) == ("warn", f"{url} sends no valid Date header")


def test_the_probe_is_written_next_to_the_data(tmp_path: Path) -> None:
    storage.put((tmp_path / "kept").as_uri(), b"kept")
    found(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
