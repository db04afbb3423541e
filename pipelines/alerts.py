"""Sends an alert when a flow run fails: ``ADA2I_ALERTS`` names a webhook's URL, or a Prefect notification block.

A webhook gets JSON with one field, ``text``, which chat services understand. A block is named by type and name, such as
``slack-webhook/ops``; Prefect stores its URL encrypted. The URL in the variable is never logged.
"""

import asyncio
import inspect
import os
from collections.abc import Awaitable
from typing import Any

import httpx
from prefect.blocks.abstract import NotificationBlock, NotificationError
from prefect.blocks.core import Block
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.urls import url_for

ALERTS = "ADA2I_ALERTS"
_SECONDS = 10.0


def alert(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Send the alert, if the environment names a target; Prefect calls it with these argument names."""
    target = os.environ.get(ALERTS)
    if not target:
        return
    where = url_for("flow-run", obj_id=flow_run.id) or flow_run.id
    text = f"{flow.name} {flow_run.name}: {state.name}. {state.message or ''} {where}"
    try:
        _send(target, text, subject=f"{flow.name}: {state.name}")
    except (httpx.HTTPError, httpx.InvalidURL, NotificationError, ValueError, TypeError) as problem:
        # Log neither target nor message: either may contain a secret.
        flow_run_logger(flow_run, flow).warning("The alert to %s could not be sent: %s", ALERTS, type(problem).__name__)


def _send(target: str, text: str, *, subject: str) -> None:
    if target.startswith(("http://", "https://")):
        httpx.post(target, json={"text": text}, timeout=_SECONDS).raise_for_status()
        return
    if "/" not in target:
        raise ValueError
    block = Block.load(target)
    if not isinstance(block, NotificationBlock):
        raise TypeError
    with block.raise_on_failure():
        sent: Any = block.notify(text, subject=subject)
        if inspect.isawaitable(sent):  # some blocks return a coroutine even here
            asyncio.run(_wait(sent))


async def _wait(sent: Awaitable[None]) -> None:
    await sent
