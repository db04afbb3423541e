"""How flows run the steps of ``ada2i.usecases`` and show its jobs.

A step becomes a Prefect task that is retried if that can help. A job's events become log lines and a progress artifact;
if the job fails, the flow's log ends with the job's last lines.
"""

import logging
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect import get_run_logger, runtime, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from ada2i.errors import Ada2iError
from ada2i.extraction.progress import line as extraction_line
from ada2i.jobs.events import Event
from ada2i.jobs.terminal import started_line
from ada2i.prediction.progress import line as prediction_line
from ada2i.records import EpochRecord
from ada2i.search.progress import line as search_line
from ada2i.store import RunFolder, Store
from ada2i.training.progress import epoch_line
from ada2i.usecases import Hooks, JobKind, OnEvent
from pipelines.summary import ray_jobs_page
from pipelines.turns import take_turn

T = TypeVar("T")

# Longer than a short storage outage, and longer than the workers of a lost driver take to end.
_RETRY_SECONDS = [10.0, 60.0]
_TROUBLE = re.compile(r'\b(WARNING|ERROR|CRITICAL)\b|"level": "(warning|error|critical)"|^Traceback')
_LAST_LINES = 20


class _MessageOnly(logging.Filter):
    """Removes the traceback of this package's errors from Prefect's logs: their message says what to do."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record."""
        if record.exc_info and isinstance(record.exc_info[1], Ada2iError):
            record.exc_info = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_MessageOnly())


def retry_if_transient(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Return whether a retry of a failed task can succeed; Prefect passes the error as the state's data."""
    return isinstance(state.data, Ada2iError) and state.data.retryable


class FlowHooks(Hooks):
    """Runs steps as tasks, and shows jobs in the flow's log and a progress artifact."""

    def step(self, name: str, call: Callable[[], T]) -> T:
        """Run a step as a task with retries."""

        # The call holds its arguments, so Prefect sees none: it must not take two steps for the same task.
        @task(
            name=name,
            retries=2,
            retry_delay_seconds=_RETRY_SECONDS,
            retry_condition_fn=retry_if_transient,
            cache_policy=NO_CACHE,
        )
        def run() -> T:
            return call()

        return run()

    @contextmanager
    def job(self, kind: JobKind, uri: str, address: str) -> Iterator[OnEvent]:
        """Show a job until it ends."""
        if address:
            get_run_logger().info("Ray dashboard: %s", ray_jobs_page(address))
        follower = FOLLOWERS[kind](uri)
        with follower.following():
            yield follower

    def wait_for_turn(self, store: Store, model: str) -> bool:
        """Wait until no other run of a deployment trains a model; return whether there was one."""
        if runtime.deployment.id is None:  # Prefect does not mark such a run as crashed
            return False
        return self.step("turn", partial(take_turn, store, model, str(runtime.flow_run.id)))


class Follower:
    """Writes a job's events to the flow's log; other lines at debug level, unless they are warnings or errors."""

    key: str
    description: str

    def __init__(self, uri: str) -> None:  # noqa: ARG002 - subclasses read the request
        self.log = get_run_logger()
        self.progress = Progress(key=self.key, description=self.description)
        self.lines: deque[str] = deque(maxlen=_LAST_LINES)

    def __call__(self, event: Event | str) -> None:
        """Show one event or one line of the job's log."""
        if not isinstance(event, str):
            if event["kind"] == "waiting":
                self.log.info(event["message"])
            self.show(event)
            return
        self.lines.append(event)
        level = self.log.warning if _TROUBLE.search(event) else self.log.debug
        level(event)

    def show(self, event: Event) -> None:
        """Show one event."""

    @contextmanager
    def following(self) -> Iterator[None]:
        """Set the progress to 100 % when the block ends, or log the job's last lines if it fails."""
        try:
            yield
        except Ada2iError:
            self._log_last_lines()
            raise
        self.progress(100.0)

    def _log_last_lines(self) -> None:
        if self.lines:
            self.log.error("Last lines of the job's log:\n%s", "\n".join(self.lines))


class ExtractionFollower(Follower):
    """Follows an extraction."""

    key, description = "ada2i-extraction", "Vectors encoded"

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.left: dict[str, int] = {}
        self.total = 0

    def show(self, event: Event) -> None:
        """Show the plan and the progress of an extraction."""
        if event["kind"] in ("started", "planned", "progress"):
            self.log.info(extraction_line(event))
        if event["kind"] == "planned":
            self.left = {modality: work["encoded"] for modality, work in event["work"].items()}
            self.total = sum(self.left.values())
        elif event["kind"] == "progress":
            self.left[event["modality"]] = event["total"] - event["done"]
            self.progress(100.0 * (1 - sum(self.left.values()) / max(self.total, 1)))


class TrainingFollower(Follower):
    """Shows the progress of a training run."""

    key, description = "ada2i-training", "Epochs done"

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.training = RunFolder(uri).request().config.training

    def show(self, event: Event) -> None:
        """Show the first step and each epoch."""
        if event["kind"] == "started":
            self.log.info(started_line(event, "run"))
        elif event["kind"] == "epoch":
            self._epoch(event["seed"], EpochRecord.model_validate(event["record"]))
        elif event["kind"] == "first_step":
            self.log.info("First optimizer step %.1f s after the driver started", event["seconds"])

    def _epoch(self, seed: int, record: EpochRecord) -> None:
        self.log.info(epoch_line(seed, record, self.training.epochs))
        done = self.training.seeds.index(seed) + record.epoch / self.training.epochs
        self.progress(100.0 * done / len(self.training.seeds))


class SearchFollower(Follower):
    """Follows a search."""

    key, description = "ada2i-search", "Trials, then finals done"

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.done = self.total = 0

    def show(self, event: Event) -> None:
        """Show the plan, and each trial and final that has ended."""
        if event["kind"] == "searching":
            self.done, self.total = event["done"], event["trials"]
            self.log.info(search_line(event))
        elif event["kind"] == "finals":
            self.done, self.total = 0, event["left"]
            self.log.info(search_line(event))
        elif event["kind"] in ("trial", "final", "final_failed"):
            self.done += 1
            self.log.info(search_line(event))
            self.progress(100.0 * self.done / max(self.total, 1))


class PredictionFollower(Follower):
    """Follows a prediction."""

    key, description = "ada2i-prediction", "Utterances predicted"

    def show(self, event: Event) -> None:
        """Show the progress."""
        if event["kind"] in ("started", "planned", "progress"):
            self.log.info(prediction_line(event))
        if event["kind"] == "progress":
            self.progress(100.0 * event["done"] / max(event["total"], 1))


FOLLOWERS: dict[JobKind, type[Follower]] = {
    "extract": ExtractionFollower,
    "train": TrainingFollower,
    "search": SearchFollower,
    "predict": PredictionFollower,
}


class Progress:
    """A progress artifact. If the Prefect server does not answer, the job continues and the artifact is not updated."""

    def __init__(self, *, key: str, description: str) -> None:
        self.log = get_run_logger()
        self.warned = False
        self.artifact = self._try(lambda: create_progress_artifact(progress=0.0, key=key, description=description))

    def __call__(self, percent: float) -> None:
        """Show the completed share."""
        if isinstance(self.artifact, UUID):
            artifact = self.artifact
            self._try(lambda: update_progress_artifact(artifact, progress=percent))

    def _try(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except httpx.HTTPError as problem:  # no connection, timeout, or an error status
            if not self.warned:
                self.log.warning("Progress is not shown for now: %s: %s", type(problem).__name__, problem)
            self.warned = True
            return None
