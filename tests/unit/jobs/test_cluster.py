"""The cluster that jobs go to, without starting one."""

import os
import socket
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import pytest

from ada2i.errors import AccessError, ResourceError, UnreachableError
from ada2i.jobs import cluster, http, processes


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_a_configured_cluster_is_used_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:8265")
    with cluster.cluster() as found:
        assert found.address == "http://elsewhere:8265"
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ


def test_headers_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert http.auth_headers() == {}
    (tmp_path / "token").write_text("of the file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert http.auth_headers() == {"Authorization": "Bearer of the file"}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "itself")
    assert http.auth_headers() == {"Authorization": "Bearer itself"}


def test_a_missing_token_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(
        AccessError, match=r"RAY_AUTH_TOKEN_PATH must name .* cannot be read: No such file or directory\. Correct"
    ):
        http.auth_headers()


def test_a_long_folder_is_refused(tmp_path: Path) -> None:
    folder = Path("/tmp") / ("x" * 60)
    with pytest.raises(ResourceError, match=r"at most 40 characters, as sockets lie in it, but /tmp/x+ has 65\."):
        cluster.start_head(folder=folder, token=tmp_path / "t", dashboard_port=1, env={}, log=tmp_path / "log")


def test_short_folders_are_short_and_private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / ("long" * 9)))
    folder = cluster.short_folder()
    assert len(str(folder)) <= 40
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()


def test_secrets_are_private_also_over_a_file_that_is_not(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    cluster.write_secret(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_taken_port_is_not_chosen() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert cluster.free_port(taken) != taken
    assert cluster.free_port(taken) == taken


def test_a_paired_port_is_free_twice() -> None:
    port = cluster.free_port(paired=True)
    assert cluster.free_port(port + 10000) == port + 10000
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port + 10000))
        listener.listen()
        assert cluster.free_port(port, paired=True) != port


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/", "no URL", "ftp://127.0.0.1:{port}/", "http://[::1:{port}/"]
)
def test_no_response(url: str) -> None:
    assert http.request(url.format(port=cluster.free_port()), {}) == (0, b"")


def test_loopback_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(str(self.headers["Authorization"]).encode())

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{cluster.free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert http.request(f"http://127.0.0.1:{server.server_port}/", {"Authorization": "me"}) == (200, b"me")
    assert http.request("http://elsewhere.invalid/", {}) == (0, b"")  # the proxy does not answer


def test_a_private_head_that_does_not_start_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    folders: list[Path] = []

    def start_head(*, folder: Path, log: Path, **_: Any) -> subprocess.Popen[bytes]:
        folders.append(folder)
        command = [sys.executable, "-c", "raise SystemExit('no memory')"]
        return processes.spawn(command, owner=str(folder), env=os.environ, log=log)

    monkeypatch.setattr(cluster, "start_head", start_head)
    with pytest.raises(UnreachableError, match=r"The Ray head must answer at .* ended with code 1(?s:.*)no memory"):  # noqa: SIM117
        with cluster.cluster():
            pytest.fail("no head has started")
    assert len(folders) == 2
    assert not any(folder.exists() for folder in folders)
    assert "It is started once more." in capsys.readouterr().err


@pytest.mark.parametrize("first", [None, ""], ids=["no file at first", "an empty file at first"])
def test_the_address_of_a_head_is_awaited(tmp_path: Path, first: str | None) -> None:
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    if first is not None:
        file.write_text(first)
    head = processes.spawn(["sleep", "60"], owner=str(tmp_path), env=os.environ, log=tmp_path / "log")
    late = Timer(0.5, file.write_text, ["127.0.0.1:1234\n"])
    late.start()
    try:
        assert cluster._gcs_address(tmp_path, "http://127.0.0.1:1", head, tmp_path / "log") == "127.0.0.1:1234"
    finally:
        head.kill()
        head.wait()
