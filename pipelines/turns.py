"""Turns of flow runs that train the same model: one trains, the others wait until it has ended.

The newest object of ``turns/MODEL`` under the root names the flow run that has the turn. The next run takes it once
that flow run has ended, by writing the next number, which succeeds for one run only. Nothing is given back: a run that
ends, or is marked as crashed, has no turn any more, and a run that is retried still has its own.
"""

import re
import time
import uuid

import httpx
from prefect import get_client, get_run_logger
from prefect.exceptions import ObjectNotFound

from ada2i import storage
from ada2i.store import Store

_POLL_SECONDS = 5.0
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def take_turn(store: Store, model: str, flow_run: str) -> bool:
    """Wait until a flow run may train a model; return whether it waited for another one."""
    folder, waited = store.turns(model), False
    while True:
        newest = max((int(name) for name in storage.children(folder) if _NUMBER.fullmatch(name)), default=0)
        holder = storage.get(storage.join(folder, str(newest))).decode(errors="replace") if newest else ""
        if holder == flow_run:
            return waited
        if not holder or _has_ended(holder):
            if storage.put_if_absent(storage.join(folder, str(newest + 1)), flow_run.encode()):
                return waited
            continue
        if not waited:
            get_run_logger().info("Flow run %s trains %s: this run waits until it has ended.", holder, model)
        waited = True
        time.sleep(_POLL_SECONDS)


def _has_ended(flow_run: str) -> bool:
    """Return whether a flow run is over: one that this server does not know is, and without an answer it is not."""
    try:
        known = uuid.UUID(flow_run)
    except ValueError:
        return True
    try:
        with get_client(sync_client=True) as prefect:
            state = prefect.read_flow_run(known).state
    except ObjectNotFound:
        return True
    except httpx.HTTPError:
        return False
    return state is not None and state.is_final()
