"""What an S3 server answers is reported as what it is, and at once unless it may pass."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from ada2i import storage
from ada2i.errors import AccessError, Ada2iError, InputError, IntegrityError, UnreachableError
from ada2i.storage import retry
from ada2i.storage.s3 import client_for

Answer = tuple[int, str, dict[str, str], bytes]


class Handler(BaseHTTPRequestHandler):
    """Answers every request as the test chooses."""

    protocol_version = "HTTP/1.1"
    choose: Callable[["Handler"], Answer]

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.count += 1  # type: ignore[attr-defined]
        status, code, headers, body = self.server.choose(self)  # type: ignore[attr-defined]
        body = body or (f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode() if code else b"")
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """An S3 server, and the environment of its clients."""
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.count = 0  # type: ignore[attr-defined]
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{running.server_address[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client_for.cache_clear()
    yield running
    running.shutdown()
    running.server_close()
    client_for.cache_clear()


def always(
    server: ThreadingHTTPServer, status: int, code: str = "", body: bytes = b"", **headers: str
) -> ThreadingHTTPServer:
    server.choose = lambda _: (status, code, headers, body)  # type: ignore[attr-defined]
    return server


def test_an_endless_redirect_is_of_the_region(server: ThreadingHTTPServer) -> None:
    always(server, 301, "PermanentRedirect")  # also to botocore's question for the region
    with pytest.raises(AccessError, match="signed for another region"):
        storage.get("s3://bucket/key")


@pytest.mark.parametrize(
    ("status", "code", "found"),
    [
        (403, "RequestTimeTooSkewed", "this machine's clock is wrong"),
        (501, "NotImplemented", "cannot write only where nothing is"),
        (400, "KeyTooLongError", "the name is too long"),
        (403, "QuotaExceeded", "the store is full, or its quota"),
        (507, "XMinioStorageFull", "the store is full, or its quota"),
        (400, "EntityTooLarge", "larger than the store allows"),
        (400, "AuthorizationHeaderMalformed", "signed for another region"),
        (400, "IllegalLocationConstraintException", "signed for another region"),
        (405, "MethodNotAllowed", "does not allow the request. Check that AWS_ENDPOINT_URL is the address of S3"),
        (403, "AccessDenied", r"refused the S3 credentials \(AccessDenied\)"),
        (403, "InvalidAccessKeyId", "refused the S3 credentials"),
        (400, "ExpiredToken", "refused the S3 credentials"),
        (401, "Unauthorized", "refused the S3 credentials"),
        (400, "InvalidRequest", "answered 400 InvalidRequest: no. Correct the location"),
        (403, "InvalidObjectState", "answered 403 InvalidObjectState: no"),
    ],
)
def test_refusals_are_distinguished(server: ThreadingHTTPServer, status: int, code: str, found: str) -> None:
    always(server, status, code)
    with pytest.raises(AccessError, match=found) as caught:
        storage.put_if_absent("s3://bucket/object", b"1")
    assert not caught.value.retryable
    assert "credentials" not in caught.value.message or "refused" in found
    assert server.count <= 2  # type: ignore[attr-defined]  # boto3 looks for a bucket's region itself


def test_a_wrong_clock_shows_in_an_answer_without_text(server: ThreadingHTTPServer) -> None:
    always(server, 403, Date="Mon, 01 Jan 2024 00:00:00 GMT")
    with pytest.raises(AccessError, match="this machine's clock is wrong"):
        storage.exists("s3://bucket/object")
    always(server, 403)
    with pytest.raises(AccessError, match="refused the S3 credentials"):
        storage.exists("s3://bucket/object")


@pytest.mark.slow
@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")])
def test_what_may_pass_is_retryable(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    monkeypatch.setattr(retry, "_RETRY_S", -1.0)
    with pytest.raises(UnreachableError, match=f"answered {status} {code}. Try again later") as caught:
        storage.get(f"s3://bucket/{always(server, status, code).server_address[1]}")
    assert caught.value.retryable


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION", "profile"])
def test_the_region_comes_from_the_usual_places(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    seen = []

    def choose(handler: Handler) -> Answer:
        found = re.search(r"Credential=[^/]+/[0-9]+/([^/]+)/s3", handler.headers["Authorization"])
        seen.append(found and found[1])
        return 200, "", {}, b""

    server.choose = choose  # type: ignore[attr-defined]
    (tmp_path / "config").write_text("[default]\nregion = eu-central-1\n" if variable == "profile" else "")
    if variable != "profile":
        monkeypatch.setenv(variable, "eu-central-1")
    assert storage.put_if_absent("s3://bucket/object", b"1")
    assert seen == ["eu-central-1"]


@pytest.mark.parametrize(
    "profile",
    [
        "credential_process = false",
        "credential_process = /does/not/exist",
        "credential_process = echo nothing",
        "sso_start_url = https://x\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r",
        "role_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = /does/not/exist",
        "role_arn = arn:aws:iam::1:role/r\nsource_profile = other",
    ],
)
def test_credentials_that_a_program_or_service_does_not_give(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "config").write_text(f"[default]\n{profile}\n")
    with pytest.raises(AccessError, match=r"needs S3 credentials, but (these could not be got|found none)") as caught:
        storage.get("s3://bucket/object")
    assert not caught.value.retryable
    assert server.count == 0  # type: ignore[attr-defined]


def test_a_damaged_object_is_called_damaged(server: ThreadingHTTPServer) -> None:
    always(server, 200, body=b"changed", **{"x-amz-checksum-crc32": "AAAAAA=="})
    with pytest.raises(IntegrityError, match="is damaged"):
        storage.get("s3://bucket/object")
    with pytest.raises(IntegrityError, match="is damaged"):
        storage.source_digest("s3://bucket/object")


def test_a_name_that_no_bucket_has(server: ThreadingHTTPServer) -> None:
    with pytest.raises(InputError, match="must be a location that S3 allows"):
        storage.get("s3://buck et/object")
    assert server.count == 0  # type: ignore[attr-defined]


KEYS = ("x/calls#2/t.parquet", "x/what?/t.parquet", "x/a::b.parquet", "x/a?versionId=3.parquet")
HIDDEN = ("x/_SUCCESS.parquet", "x/.tmp/t.parquet", "x/_delta/0/t.parquet")


def test_sources_in_s3(server: ThreadingHTTPServer) -> None:
    bodies = {f"/bucket/{key}": key.encode() * 99 for key in (*KEYS, *HIDDEN)}

    def choose(handler: Handler) -> Answer:
        place, _, query = handler.path.partition("?")
        if "list-type" in query:
            keys = "".join(f"<Contents><Key>{k}</Key><ETag>{len(k)}</ETag></Contents>" for k in (*KEYS, *HIDDEN))
            return 200, "", {}, f"<ListBucketResult>{keys}</ListBucketResult>".encode()
        body = bodies.get(unquote(place))
        if body is None:
            return 404, "NoSuchKey", {}, b""
        if part := handler.headers.get("Range"):
            start, end = map(int, part.removeprefix("bytes=").split("-"))
            return 206, "", {}, body[start : end + 1]
        return 200, "", {}, body

    server.choose = choose  # type: ignore[attr-defined]
    found = storage.source_files("s3://bucket/x/", ".parquet")
    assert found == sorted(f"s3://bucket/{key}" for key in KEYS)
    for uri in found:
        data = uri.removeprefix("s3://bucket/").encode() * 99
        assert storage.read_source(uri) == data
        assert storage.source_digest(uri) == storage.digest(data)
        assert storage.source_files(uri, ".parquet") == [uri]
        with storage.open_source(uri) as file:
            file.seek(-50, 2)
            assert file.read() == data[-50:]
        with storage.open_source(uri, whole=True) as file:
            assert file.read() == data
    assert storage.source_stamps(found) == {uri: str(len(uri) - len("s3://bucket/")) for uri in found}


def test_an_endpoint_with_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch, server: ThreadingHTTPServer) -> None:
    port = server.server_address[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:CANARY@127.0.0.1:{port}?CANARY")
    always(server, 403, "AccessDenied")
    with pytest.raises(Ada2iError) as caught:
        storage.get("s3://bucket/object")
    assert "CANARY" not in f"{caught.value}{caught.value.context}"
