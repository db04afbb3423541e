"""The caller's side of a job: submit it, or attach to its running attempt, and follow it.

Caller and job share only a folder in storage, so either may die and be restarted.
"""

import asyncio
import logging
import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ada2i import errors, storage
from ada2i.jobs import events, logs, processes
from ada2i.jobs.http import auth_headers
from ada2i.jobs.nodes import interpreter
from ada2i.jobs.versions import versions as own_versions
from ada2i.records import Failure

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

log = logging.getLogger(__name__)

OnEvent = Callable[[events.Event | str], None]

_POLL_SECONDS = 1.0
_ERROR = re.compile(
    r"\b[A-Z]\w*(Error|Exception|Failure)\b|\bKilled\b|\bnot found\b|\bNo (such file|module)\b|\bPermission denied\b"
)
_RAYS_OWN = ("Running entrypoint for job", "Job entrypoint command failed")  # beginnings of lines that give no reason
_STOP_SECONDS = 75.0  # a stopped job writes a checkpoint first
_SHOWN_SECONDS = 15.0  # between two lines about a job that has not started
_MONITOR_SECONDS = 2.0  # Ray's monitor of a job looks each second
_GONE_SECONDS = 60.0  # how long the cluster may be unreachable before a follower gives up


@dataclass(frozen=True)
class Job:
    """A job: a driver and the folder of a run.

    Attributes:
        driver: Its name, one of ``driver.JOBS``.
        uri: The folder of all attempts; its last segment is the run's id.
        request: SHA-256 of the request in the folder; the driver refuses another one.
    """

    driver: str
    uri: str
    request: str

    @property
    def run_id(self) -> str:
        """The id that all attempts share."""
        return storage.name_of(self.uri)


def run(job: Job, *, address: str, on_event: OnEvent) -> None:
    """Run a job and wait for its end; see ``stopping``, ``submit`` and ``follow``."""
    with stopping(job, address):
        follow(submit(job, address), job, address=address, on_event=on_event)


@contextmanager
def stopping(job: Job, address: str) -> Iterator[None]:
    """Stop a job if the block is interrupted: by Ctrl-C, a signal or an error of the caller's own."""
    try:
        yield
    except errors.Ada2iError:
        raise
    except BaseException:
        with suppress(errors.Ada2iError):  # a cluster that has ended runs nothing
            stop(address, job.run_id)
        raise


def connect(address: str) -> "JobSubmissionClient":
    """Return a client of a cluster's Jobs API.

    Raises:
        UnreachableError: The cluster does not answer, or refuses the token.
    """
    from ray.job_submission import JobSubmissionClient

    with _answering(address):
        return JobSubmissionClient(address, headers=auth_headers())


@contextmanager
def _answering(address: str) -> Iterator[None]:
    from ray.exceptions import RayError

    try:
        yield
    # The errors of `requests` are OSErrors; a LookupError or ValueError comes from another server's answer.
    except (OSError, RuntimeError, RayError, LookupError, ValueError) as problem:
        shown, found = storage.public(address), storage.clean(problem)
        said = (found or repr(problem)).splitlines()[0]
        message = (
            f"The private Ray head must answer at {shown}, but: {said}. Run the command again, when the machine is "
            f"less busy: {processes.load()}."
        )
        if os.environ.get("RAY_API_SERVER_ADDRESS"):
            message = (
                f"A Ray cluster must answer at {shown}, but: {said}. Start it, correct RAY_API_SERVER_ADDRESS and "
                "RAY_AUTH_TOKEN_PATH, or unset RAY_API_SERVER_ADDRESS to use a private cluster."
            )
        raise errors.UnreachableError(message, address=shown) from (problem if found == str(problem) else None)


def submit(job: Job, address: str) -> str:
    """Submit an attempt at a job and return its submission id; if an attempt is running, return its id.

    Raises:
        UnreachableError: The cluster does not answer, or refuses the token.
    """
    client = connect(address)
    with _answering(address):
        attempts = _attempts(client, job.run_id)
        for attempt in attempts:
            if not attempt.status.is_terminal() and attempt.submission_id:
                return attempt.submission_id
        submission = f"{job.run_id}-{len(attempts)}"
        try:
            return client.submit_job(
                entrypoint=_entrypoint(address, "ada2i.jobs.driver", *_arguments(job, submission)),
                submission_id=submission,
                metadata={"run_id": job.run_id, "run_uri": job.uri},
                runtime_env={"env_vars": logs.environment()} if logs.environment() else None,
            )
        except RuntimeError as problem:
            if "already exists" in str(problem):  # another caller has just submitted this attempt
                return submission
            raise


def _entrypoint(address: str, *module: str) -> str:
    """Return the shell command that runs a module; the cluster decides with which Python."""
    return f"{interpreter(address)} -m {shlex.join(module)}"


def versions(address: str) -> dict[str, tuple[str, str]]:
    """Return the versions of Python, ada2i, Ray and torch in a job that imports ada2i, and those in this process.

    Raises:
        UnreachableError: The cluster does not answer, or refuses the token.
        JobError: The job failed, or did not end in time.
    """
    client = connect(address)
    with _answering(address):
        submission = client.submit_job(entrypoint=_entrypoint(address, "ada2i.jobs.versions"))
        _wait_until_ended(client, submission)
        text, status = client.get_job_logs(submission), client.get_job_status(submission)
        message = client.get_job_info(submission).message or ""
        if status.is_terminal():
            _delete(client, submission)
        else:
            client.stop_job(submission)
    found = [event for event in events.parse(text) if isinstance(event, dict)]
    if status != "SUCCEEDED" or not found:
        raise errors.JobError(
            f"A job that imports ada2i must succeed, but ended {status}: {_last_error(text + message)}",
            submission=submission,
        )
    return {name: (str(found[-1].get(name)), version) for name, version in own_versions().items()}


def _delete(client: "JobSubmissionClient", submission: str) -> None:
    """Delete a job that has ended, once Ray's monitor has seen its end: of a deleted job it would list a failure."""
    for _ in range(2):
        time.sleep(_MONITOR_SECONDS)
        if _found(client, submission):
            client.delete_job(submission)


def _arguments(job: Job, submission: str) -> list[str]:
    return [job.driver, job.uri, submission, job.request]


def follow(submission: str, job: Job, *, address: str, on_event: OnEvent) -> None:
    """Follow an attempt at a job to its end.

    Args:
        submission: Its submission id.
        job: The job.
        address: URL of the cluster's Jobs API.
        on_event: Called with each event, and with each other line of the job's log.

    Raises:
        UnreachableError: The cluster did not answer for a minute.
        JobError: The job failed; a new call is another attempt.
        Ada2iError: The job reported this error.
    """
    client = connect(address)
    follower = Follower(on_event)
    status, text, message = _wait_for_end(client, submission, follower)
    follower.restart()
    follower.take(text, last=True)
    if follower.failure is not None:
        raise follower.failure.error()
    if status != "SUCCEEDED":
        place = storage.join(job.uri, "jobs", f"{submission}.log")
        storage.put(place, text.encode())  # the cluster that holds the log may end with this call
        found = _last_error(f"{text}\n{message}")
        raise errors.JobError(
            f"Job {submission} must succeed, but ended {status}: {found} Its log is {place}. Another "
            "attempt at the same run resumes from what this one wrote.",
            submission=submission,
        )


class Follower:
    """Passes on the lines of a job's log, each once, although each new stream starts again with the log's first line.

    Attributes:
        failure: The error that the job reported, or None.
        heard: Whether the job has reported an event.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self.failure: Failure | None = None
        self.heard = False
        self._on_event = on_event
        self._handled = 0  # characters of the log that were passed on
        self._received = 0  # characters of this stream
        self._buffer = ""  # the start of a line

    def restart(self) -> None:
        """Expect a new stream."""
        self._received, self._buffer = 0, ""

    def take(self, text: str, *, last: bool = False) -> None:
        """Pass on the lines that a piece of the stream completes; if it is the last piece, all of it."""
        self._buffer += text[max(0, self._handled - self._received) :]
        self._received += len(text)
        end = len(self._buffer) if last else self._buffer.rfind("\n") + 1
        lines, self._buffer = self._buffer[:end], self._buffer[end:]
        self._handled += end
        for event in events.parse(lines):
            if isinstance(event, dict):
                self.heard = True
                log.info(event["kind"], extra={"facts": event})
                if event["kind"] == "error":
                    self.failure = Failure(kind=event["error"], message=event["message"])
            self._on_event(event)


class Tail:
    """The stream of a job's log, read in a thread: Ray's iterator is asynchronous, its followers are not.

    Attributes:
        ended: Whether no more text will come: the job has ended, or the connection was lost.
    """

    def __init__(self, client: "JobSubmissionClient", submission: str) -> None:
        logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)  # it logs each end of a stream
        import aiohttp

        self.ended = False
        self._lost = (OSError, RuntimeError, aiohttp.ClientError)
        self._client, self._submission = client, submission
        self._chunks: SimpleQueue[str | None] = SimpleQueue()
        threading.Thread(target=asyncio.run, args=(self._pump(),), daemon=True, name="job-log").start()

    def read(self, seconds: float) -> str:
        """Return the new text; if there is none, wait for some seconds."""
        found = ""
        with suppress(Empty):
            chunk = self._chunks.get(timeout=seconds)
            while chunk is not None:
                found += chunk
                chunk = self._chunks.get_nowait()
            self.ended = True
        return found

    async def _pump(self) -> None:
        try:
            async for chunk in self._client.tail_job_logs(self._submission):
                self._chunks.put(chunk)
        except self._lost as problem:  # the follower reconnects
            log.info("The stream of a job's log was lost: %s", problem)
        finally:
            self._chunks.put(None)


def _wait_for_end(client: "JobSubmissionClient", submission: str, follower: Follower) -> "tuple[JobStatus, str, str]":
    """Return a job's last status, its whole log and the cluster's message; pass on lines until then.

    Raises:
        UnreachableError: The cluster did not answer for a minute.
    """
    from ray.exceptions import RayError

    tail, answered = Tail(client, submission), time.monotonic()
    begun = shown = answered
    while True:
        try:
            status = client.get_job_status(submission)
            if status.is_terminal():
                # The whole log at once, because the stream ends seconds later.
                return status, client.get_job_logs(submission), client.get_job_info(submission).message or ""
        except (OSError, RuntimeError, RayError) as problem:
            if time.monotonic() - answered > _GONE_SECONDS:
                found = str(problem).partition("\n")[0]
                raise errors.UnreachableError(
                    f"Job {submission} must be reachable, but was not for {_GONE_SECONDS:.0f} s: {found}. "
                    "Check the cluster, and run again: a job that is still running is found and followed.",
                    submission=submission,
                ) from problem
        else:
            answered = time.monotonic()
            if not follower.heard and answered - shown > _SHOWN_SECONDS:
                shown = answered
                logs.notes().print(f"Job {submission} has not started for {shown - begun:.0f} s; {processes.load()}.")
            if tail.ended:
                time.sleep(_POLL_SECONDS)
                tail = Tail(client, submission)
                follower.restart()
        follower.take(tail.read(_POLL_SECONDS))


def stop(address: str, run_id: str) -> None:
    """Stop the live job of a run, if it has one, and wait until it has ended."""
    client = connect(address)
    with _answering(address):
        for job in _attempts(client, run_id):
            if not job.status.is_terminal() and job.submission_id:
                client.stop_job(job.submission_id)
                _wait_until_ended(client, job.submission_id)


def live_runs(address: str) -> set[str]:
    """Return the ids of all runs that have a live job.

    Raises:
        UnreachableError: The cluster does not answer.
    """
    client = connect(address)
    with _answering(address):
        live = [job.metadata or {} for job in client.list_jobs() if not job.status.is_terminal()]
    return {metadata["run_id"] for metadata in live if "run_id" in metadata}


def _attempts(client: "JobSubmissionClient", run_id: str) -> "list[JobDetails]":
    """Return the attempts at a run, oldest first: their ids are numbered, so no other job is listed."""
    found: list[JobDetails] = []
    while attempt := _found(client, f"{run_id}-{len(found)}"):
        found.append(attempt)
    return found


def _found(client: "JobSubmissionClient", submission: str) -> "JobDetails | None":
    """Return a job, or None if the cluster does not know it."""
    try:
        return client.get_job_info(submission)
    except RuntimeError as problem:
        if "status code 404" not in str(problem):
            raise
        return None


def _last_error(text: str) -> str:
    """Return the last line of a job's log that names an error, or else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(_RAYS_OWN)]
    named = [line for line in said if _ERROR.search(line)]
    return (named or said or lines or ["its log is empty."])[-1][:300]


def _wait_until_ended(client: "JobSubmissionClient", submission: str) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline and not client.get_job_status(submission).is_terminal():
        time.sleep(0.2)
