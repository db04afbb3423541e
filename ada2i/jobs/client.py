"""The caller's side of a job: submits it, or attaches to the attempt that is still running, and follows it.

Caller and job share nothing but a folder of storage, so either may die and be started again.
"""

import logging
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ada2i import errors, storage
from ada2i.jobs import events, logs
from ada2i.jobs.cluster import auth_headers

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_ERROR = re.compile(r"\b[A-Z]\w*(Error|Exception|Failure)\b|\bKilled\b")
_STOP_SECONDS = 75.0  # a job that is stopped writes a checkpoint first
_GONE_SECONDS = 60.0  # how long the cluster may be out of reach before a follower gives up


@dataclass(frozen=True)
class Job:
    """What runs on the cluster: ``python -m MODULE URI SUBMISSION``.

    Attributes:
        module: Its entry point.
        uri: The folder of all its attempts; the last part is the run's id.
    """

    module: str
    uri: str

    @property
    def run_id(self) -> str:
        """What all its attempts have in common."""
        return self.uri.rsplit("/", 1)[1]


def run(job: Job, *, address: str, on_event: Callable[[events.Event | str], None]) -> None:
    """Run a job and wait for its end; interrupting the wait stops it.

    Args:
        job: What to run; where an attempt at it is running, it is that one which is waited for.
        address: URL of the cluster's Jobs API.
        on_event: Called with each event, and with each other line of the job's log.

    Raises:
        UnreachableError: The cluster does not answer; while a job is followed, for a minute.
        JobError: The job failed; a new call is another attempt.
        Ada2iError: What the job itself raised.
    """
    client = connect(address)
    try:
        with _answering(address):
            submission = _attach_or_submit(client, job)
        _follow(client, submission, job.uri, on_event)
    except errors.Ada2iError:
        raise
    except BaseException:  # the caller gives up, by Ctrl-C or a signal; a cluster that is gone runs nothing
        with suppress(errors.Ada2iError):
            stop(address, job.run_id)
        raise


def connect(address: str) -> "JobSubmissionClient":
    """Return a client of a cluster's Jobs API.

    Raises:
        UnreachableError: It does not answer, or refuses the token.
    """
    from ray.job_submission import JobSubmissionClient

    with _answering(address):
        return JobSubmissionClient(address, headers=auth_headers())


@contextmanager
def _answering(address: str) -> Iterator[None]:
    from ray.exceptions import RayError

    try:
        yield
    except (OSError, RuntimeError, RayError) as problem:  # requests' errors are OSErrors
        raise errors.UnreachableError(
            f"A Ray cluster must answer at {address}, but: {str(problem).splitlines()[0]}. Start it, mend "
            "RAY_API_SERVER_ADDRESS and RAY_AUTH_TOKEN_PATH, or unset RAY_API_SERVER_ADDRESS to use a private cluster.",
            address=address,
        ) from problem


def stop(address: str, run_id: str) -> None:
    """Stop the live job of a run, if there is one, and wait until it is gone."""
    client = connect(address)
    with _answering(address):
        for job in _attempts(client, run_id):
            if not job.status.is_terminal() and job.submission_id:
                client.stop_job(job.submission_id)
                _wait_until_gone(client, job.submission_id)


def live_runs(address: str) -> set[str]:
    """Return the ids of all runs that have a live job.

    Raises:
        UnreachableError: The cluster does not answer.
    """
    client = connect(address)
    with _answering(address):
        live = [job.metadata or {} for job in client.list_jobs() if not job.status.is_terminal()]
    return {facts["run_id"] for facts in live if "run_id" in facts}


def _attempts(client: "JobSubmissionClient", run_id: str) -> "list[JobDetails]":
    return [job for job in client.list_jobs() if (job.metadata or {}).get("run_id") == run_id]


def _attach_or_submit(client: "JobSubmissionClient", job: Job) -> str:
    attempts = _attempts(client, job.run_id)
    for attempt in attempts:
        if not attempt.status.is_terminal() and attempt.submission_id:
            return attempt.submission_id
    # The interpreter of this process where the cluster is on this machine, else whatever the cluster's image has.
    python = sys.executable if urlsplit(client.get_address()).hostname in ("127.0.0.1", "localhost") else "python"
    submission = f"{job.run_id}-{len(attempts)}"
    try:
        return client.submit_job(
            entrypoint=shlex.join([python, "-m", job.module, job.uri, submission]),
            submission_id=submission,
            metadata={"run_id": job.run_id, "run_uri": job.uri},
            runtime_env={"env_vars": logs.environment()} if logs.environment() else None,
        )
    except RuntimeError as problem:
        if "already exists" in str(problem):  # somebody else submitted this attempt meanwhile
            return submission
        raise


def _follow(
    client: "JobSubmissionClient", submission: str, run_uri: str, on_event: Callable[[events.Event | str], None]
) -> None:
    seen, failure = 0, None
    while True:
        status, text, message = _ask(client, submission)
        complete = text if status.is_terminal() else text[: text.rfind("\n") + 1]
        for event in events.parse(complete[seen:]):
            if isinstance(event, dict):
                log.info(event["kind"], extra={"facts": event})
                failure = event if event["kind"] == "error" else failure
            on_event(event)
        seen = len(complete)
        if status.is_terminal():
            break
        time.sleep(_POLL_SECONDS)
    if failure is not None:
        raise getattr(errors, failure["error"])(failure["message"])
    if status != "SUCCEEDED":
        words = _last_words(f"{text}\n{message}")
        place = storage.join(run_uri, "jobs", f"{submission}.log")
        storage.put(place, text.encode())  # the cluster that has it may end with this call
        raise errors.JobError(
            f"Job {submission} must succeed, but ended {status}: {words} Its log is {place}. Another "
            "attempt at the same run goes on from what this one wrote.",
            submission=submission,
        )


def _ask(client: "JobSubmissionClient", submission: str) -> "tuple[JobStatus, str, str]":
    """Return a job's status, its log and, at its end, the cluster's word on it; a cluster may be away for a while.

    Raises:
        UnreachableError: It does not answer for a minute.
    """
    from ray.exceptions import RayError

    deadline = time.monotonic() + _GONE_SECONDS
    while True:
        try:
            status = client.get_job_status(submission)
            text = client.get_job_logs(submission)
            ended = client.get_job_info(submission).message if status.is_terminal() else None
        except (OSError, RuntimeError, RayError) as problem:
            if time.monotonic() > deadline:
                found = str(problem).partition("\n")[0]
                raise errors.UnreachableError(
                    f"Job {submission} must be in reach, but was not for {_GONE_SECONDS:.0f} s: {found}. "
                    "Check the cluster, and run again: a job that lives on is found, and waited for.",
                    submission=submission,
                ) from problem
        else:
            return status, text, ended or ""
        time.sleep(_POLL_SECONDS)


def _last_words(text: str) -> str:
    """Return the last line of a job's log that names an error, or its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.search(line)]
    return (named or lines or ["its log is empty."])[-1][:300]


def _wait_until_gone(client: "JobSubmissionClient", submission: str) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline and not client.get_job_status(submission).is_terminal():
        time.sleep(0.2)
