"""Nights of retraining with one failure each; every night must end by itself, promoted, refused or skipped.

``make soak`` runs 30, and ``python -m tests.faults.nights --nights N --json FILE`` any number, on a stack of their own.
Four nights in five have new features and must train; the others must be skipped. The failure is drawn, and so is its
time after the request.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State

from ada2i.importers.demo import write_demo_corpus
from ada2i.jobs import cluster, processes
from infra import stack as stacks
from infra.services import DEPLOYMENT
from infra.stack import Stack
from tests.runs import SLOW, client_settings, start_again

MODEL = "month"
ENDED = ("Promoted", "Refused", "Skipped")
MINUTES = 30.0  # for a night: a lost worker is noticed after 5, an event that the server missed after 15
_LATEST_SECONDS = {"trains": 60.0, "skipped": 10.0}  # of a failure, after the request: before such a night ends

Failure = Callable[[Stack], None]


def _kill(stack: Stack, service: str) -> None:
    for member in processes._family(stack.running[service]):
        try:
            os.kill(member.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    while stack.alive(service):
        time.sleep(0.05)


def _down(service: str, seconds: float) -> Failure:
    """Return a failure that kills a service, and starts it again after some seconds."""

    def fail(stack: Stack) -> None:
        _kill(stack, service)
        time.sleep(seconds)
        start_again(stack, deploy=False)

    return fail


FAILURES: dict[str, Failure] = {
    "worker killed": _down("worker", 5.0),
    "worker killed in PENDING": _down("worker", 5.0),
    "server restarted": _down("prefect", 10.0),
    "S3 away": _down("s3", 60.0),
    "head restarted": _down("ray", 5.0),
}


def nights(
    stack: Stack, root: str, prefect: SyncPrefectClient, *, count: int, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Run nights; yield of each its failure, the state in which it ended, its message, and the seconds that it took."""
    draw = random.Random(seed)
    deployment = prefect.read_deployment_by_name(f"{DEPLOYMENT}/{DEPLOYMENT}")
    overrides = {name: value for name, value in SLOW.items() if name != "training.seeds"}
    corpus = 0
    for night in range(1, count + 1):
        kind = "trains" if not corpus or draw.random() < 0.8 else "skipped"
        corpus += kind == "trains"
        given = {"features": write_demo_corpus(root, seed=corpus), "overrides": overrides, "seeds": [1], "root": root}
        begun = time.monotonic()
        run = prefect.create_flow_run_from_deployment(
            deployment.id, parameters={**given, "model": MODEL, "promote": True}
        )
        failure, delay = draw.choice(sorted(FAILURES)), draw.uniform(0.0, _LATEST_SECONDS[kind])
        if failure.endswith("PENDING"):
            delay = _until_pending(prefect, run)
        else:
            time.sleep(delay)
        FAILURES[failure](stack)
        state = _last_state(prefect, run)
        facts = {"night": night, "corpus": corpus, "failure": failure, "delay_s": round(delay, 1)}
        yield facts | {"state": state.name, "message": state.message, "seconds": round(time.monotonic() - begun)}


def _until_pending(prefect: SyncPrefectClient, run: FlowRun) -> float:
    begun = time.monotonic()
    while (state := prefect.read_flow_run(run.id).state) is None or state.is_scheduled():
        time.sleep(0.05)
    return time.monotonic() - begun


def _last_state(prefect: SyncPrefectClient, run: FlowRun) -> State[Any]:
    """Return the state in which a night ends, or in which it is when its time is over; crashed ones may be retried."""
    deadline = time.monotonic() + 60 * MINUTES
    while True:
        state = prefect.read_flow_run(run.id).state
        assert state is not None
        if (state.is_final() and not state.is_crashed()) or time.monotonic() > deadline:
            return state
        time.sleep(1.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run nights on a stack of their own; return 0 if all ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write one line for each night")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the stack is stopped in any case
    folder = cluster.short_folder()
    try:
        stack = stacks.start(folder, preferred_ports=False)
        os.environ.update(stack.environment())
        root = f"{os.environ['ADA2I_ROOT']}/nights"
        lost = 0
        with client_settings(stack), get_client(sync_client=True) as prefect:
            for night in nights(stack, root, prefect, count=options.nights, seed=options.seed):
                line = json.dumps(night)
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
                if options.json:
                    with options.json.open("a") as file:
                        file.write(line + "\n")
                lost += night["state"] not in ENDED
        return int(lost > 0)
    finally:
        stacks.stop(folder)


if __name__ == "__main__":
    sys.exit(main())
