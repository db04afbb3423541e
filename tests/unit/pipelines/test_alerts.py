"""Alerts reach the target that the environment names; their failure affects nothing else."""

import json
import logging
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.blocks.core import Block
from prefect.blocks.notifications import AppriseNotificationBlock
from prefect.states import Crashed
from pydantic import SecretStr

from pipelines import alerts

SECRET = "T000-B000-secret"


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's URL, and what it got."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204 if "broken" not in self.path else 500)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{SECRET}", got
        server.shutdown()


@pytest.fixture(autouse=True)
def _log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "flow_run_logger", lambda *_: logging.getLogger("flow"))


def send(monkeypatch: pytest.MonkeyPatch, target: str | None) -> None:
    monkeypatch.delenv(alerts.ALERTS, raising=False)
    if target is not None:
        monkeypatch.setenv(alerts.ALERTS, target)
    flow: Any = SimpleNamespace(name="train-ada2i")
    run: Any = SimpleNamespace(id=uuid.UUID(int=7), name="quiet-otter")
    alerts.alert(flow, run, Crashed(message="No sign of life."))


def test_a_webhook_gets_what_happened_to_which_run(
    hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(monkeypatch, hook[0])
    (got,) = hook[1]
    assert got["text"].startswith("train-ada2i quiet-otter: Crashed. No sign of life. ")
    assert str(uuid.UUID(int=7)) in got["text"]


def test_without_a_target_no_alert_is_sent(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    send(monkeypatch, None)
    assert caplog.records == []


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/{secret}", "http://[{secret}", "{secret}", "{hook}/broken"])
def test_an_alert_that_fails_is_a_warning_without_the_secret(
    target: str,
    hook: tuple[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    send(monkeypatch, target.format(secret=SECRET, hook=hook[0]))
    assert "The alert to ADA2I_ALERTS could not be sent: " in caplog.text
    assert SECRET not in caplog.text


class JsonWebhook(AppriseNotificationBlock):
    """A block that sends through Apprise, as `slack-webhook` does, to any host."""


@pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise imports it in Python 3.11
@pytest.mark.parametrize("port", ["{port}", "9"], ids=["reached", "not reached"])
def test_a_block_gets_the_alert_or_the_log_says_that_it_did_not(
    port: str,
    hook: tuple[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = port.format(port=httpx.URL(hook[0]).port)
    block = JsonWebhook(url=SecretStr(f"json://127.0.0.1:{host}/{SECRET}"))
    monkeypatch.setattr(Block, "load", lambda _: block)
    send(monkeypatch, "json-webhook/ops")
    texts = [got["message"] for got in hook[1]]
    warnings = [record.getMessage() for record in caplog.records if record.name == "flow"]
    if port == "9":
        assert (texts, warnings) == ([], ["The alert to ADA2I_ALERTS could not be sent: NotificationError"])
    else:
        assert (len(texts), warnings) == (1, [])
        assert texts[0].startswith("train-ada2i quiet-otter: Crashed.")
