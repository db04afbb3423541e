"""What is checked before anything starts."""

import socket
from pathlib import Path
from typing import Any

import pytest

from ada2i import storage
from ada2i.data.manifest import open_features
from ada2i.errors import AccessError, ConfigError, NotFoundError, ResourceError
from ada2i.importers.demo import write_demo_corpus
from ada2i.serving.request import TOKEN, check, check_port, spec_of, token
from tests.unit.prediction.tiny import registered


def test_a_token_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "short"):
        monkeypatch.delenv(TOKEN, raising=False)
        if value is not None:
            monkeypatch.setenv(TOKEN, value)
        with pytest.raises(AccessError, match=r"ADA2I_SERVE_TOKEN must hold a token of at least 16 characters"):
            token()
    monkeypatch.setenv(TOKEN, "0123456789abcdef")
    assert token() == "0123456789abcdef"


def test_the_address_is_loopback_unless_another_is_named() -> None:
    assert spec_of("m@champion").host == "127.0.0.1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"port": 0}, r"`port`: .* found 0"),
        ({"replicas": 0}, r"`replicas`"),
        ({"limits": {"turn": 1}}, r"`limits\.turn`: Extra inputs"),
        ({"limits": {"seconds": -1}}, r"`limits\.seconds`"),
        ({"drift_window": 3}, r"`drift_window`: .*must be 0, or at least 5"),
    ],
)
def test_wrong_fields_are_named(fields: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec_of("m@champion", **fields)


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ResourceError, match=rf"Port {port} of 127\.0\.0\.1 must be free, .* `--port`"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_a_host_of_another_machine_is_refused() -> None:
    with pytest.raises(ResourceError, match="cannot be listened on"):
        check_port("192.0.2.77", 8100)


def test_a_missing_version_is_named_before_ray_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv(TOKEN, "0123456789abcdef")
    with pytest.raises(NotFoundError):
        check(spec_of("none@champion", port=free()), f"file://{tmp_path}")


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_relative_folder_is_named_by_its_whole_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert spec_of("copy/").version.rstrip("/") == (tmp_path / "copy").as_uri()


def test_a_store_that_cannot_be_written_gets_no_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(TOKEN, "0123456789abcdef")
    root = tmp_path.as_uri()
    registered(root, open_features(write_demo_corpus(root, dialogues=20)).info())

    def refuse(uri: str) -> None:
        raise AccessError(f"{uri} must be a writable folder, but is not.", uri=uri)

    monkeypatch.setattr(storage, "check_writable", refuse)
    with pytest.raises(AccessError, match=r"must be a writable folder, .* set `--drift-window 0`\.") as caught:
        check(spec_of("tiny", port=free()), root)
    assert caught.value.context["uri"] == root
    assert check(spec_of("tiny", port=free(), drift_window=0), root).name == "tiny@1"
