"""The one way to start training: a Ray job whose driver runs a TorchTrainer.

``launch`` is the caller's side: it submits the job, or attaches to the attempt that is still running, and follows it.
``drive`` is the job's side. They share nothing but the run's folder, so either may die and be started again: training
resumes from the newest complete checkpoint.
"""

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ada2i import errors, storage
from ada2i.config import ResourceConfig
from ada2i.records import RunRequest, seed_uri
from ada2i.training import events
from ada2i.training.capacity import check_resources
from ada2i.training.cluster import auth_headers

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_POLL_SECONDS = 1.0
_ERROR = re.compile(r"\b[A-Z]\w*(Error|Exception|Failure)\b|\bKilled\b")
_REPLACEMENT_SECONDS = 30.0
_GONE_SECONDS = 60.0  # how long the cluster may be out of reach before a follower gives up

# Read by Ray in the driver, from where it reaches controller and workers.
_DRIVER_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the dashboard's Train tab
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a lost worker and the end are seen
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",  # a busy machine needs more than the usual 60 s
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody asks it, and its process delays the first step
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else each line comes twice
    "RAY_DEDUP_LOGS": "0",  # else lines of several workers go missing
    "RAY_COLOR_PREFIX": "0",
}


def launch(run_uri: str, *, address: str, on_event: Callable[[events.Event | str], None]) -> None:
    """Train a prepared run as a Ray job and wait for its end; interrupting the wait stops the job.

    Args:
        run_uri: A run with its ``request.json``.
        address: URL of the cluster's Jobs API.
        on_event: Called with each event, and with each other line of the job's log.

    Raises:
        UnreachableError: The cluster does not answer.
        JobError: The job failed; a new call resumes it.
        InputError: The job says that the request cannot work, for example more workers than processors.
        DivergenceError: A loss or gradient was not finite.
    """
    if is_trained(run_uri):
        return
    client = connect(address)
    try:
        with _answering(address):
            submission = _attach_or_submit(client, run_uri)
        _follow(client, submission, run_uri, on_event)
    except errors.Ada2iError:
        raise
    except BaseException:  # the caller gives up, by Ctrl-C or a signal
        stop(address, run_uri.rsplit("/", 1)[1])
        raise


def is_trained(run_uri: str) -> bool:
    """Tell whether a run has nothing left to train."""
    request = RunRequest.load(storage.join(run_uri, "request.json"))
    results = [storage.join(seed_uri(run_uri, seed), "result.json") for seed in request.config.training.seeds]
    return all(storage.exists(result) for result in results)


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
    for job in _attempts(client, run_id):
        if not job.status.is_terminal() and job.submission_id:
            client.stop_job(job.submission_id)
            _wait_until_gone(client, job.submission_id)


def _attempts(client: "JobSubmissionClient", run_id: str) -> "list[JobDetails]":
    return [job for job in client.list_jobs() if (job.metadata or {}).get("run_id") == run_id]


def _attach_or_submit(client: "JobSubmissionClient", run_uri: str) -> str:
    run_id = run_uri.rsplit("/", 1)[1]
    attempts = _attempts(client, run_id)
    for job in attempts:
        if not job.status.is_terminal() and job.submission_id:
            return job.submission_id
    # The interpreter of this process where the cluster is on this machine, else whatever the cluster's image has.
    python = sys.executable if urlsplit(client.get_address()).hostname in ("127.0.0.1", "localhost") else "python"
    submission = f"{run_id}-{len(attempts)}"
    try:
        return client.submit_job(
            entrypoint=shlex.join([python, "-m", "ada2i.training.launch", run_uri]),
            submission_id=submission,
            metadata={"run_id": run_id, "run_uri": run_uri},
        )
    except RuntimeError as problem:
        if "already exists" in str(problem):  # somebody else submitted this attempt meanwhile
            return submission
        raise


def _follow(
    client: "JobSubmissionClient", submission: str, run_uri: str, on_event: Callable[[events.Event | str], None]
) -> None:
    seen, failure = 0, None
    last_answer = time.monotonic()
    while True:
        try:
            status = client.get_job_status(submission)
            text = client.get_job_logs(submission)
            last_answer = time.monotonic()
        except (OSError, RuntimeError) as problem:
            if time.monotonic() - last_answer > _GONE_SECONDS:
                raise errors.JobError(
                    f"Job {submission} is out of reach: {problem}. Check the cluster; run again."
                ) from problem
            time.sleep(_POLL_SECONDS)
            continue
        complete = text if status.is_terminal() else text[: text.rfind("\n") + 1]
        for event in events.parse(complete[seen:]):
            if isinstance(event, dict) and event["kind"] == "error":
                failure = event
            on_event(event)
        seen = len(complete)
        if status.is_terminal():
            break
        time.sleep(_POLL_SECONDS)
    if failure is not None:
        raise getattr(errors, failure["error"])(failure["message"])
    if status != "SUCCEEDED":
        words = _last_words(f"{text}\n{client.get_job_info(submission).message or ''}")
        place = storage.join(run_uri, "jobs", f"{submission}.log")
        storage.put(place, text.encode())  # the cluster that has it may end with this call
        raise errors.JobError(
            f"Job {submission} must succeed, but ended {status}: {words} Its log is {place}. Another "
            "attempt at the same run resumes from the newest checkpoint.",
            submission=submission,
        )


def _last_words(text: str) -> str:
    """Return the last line of a job's log that names an error, or its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.search(line)]
    return (named or lines or ["its log is empty."])[-1][:300]


def _wait_until_gone(client: "JobSubmissionClient", submission: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not client.get_job_status(submission).is_terminal():
        time.sleep(0.2)


def drive(run_uri: str, *, started: float) -> None:
    """Run the job's side: check the cluster, train on its workers, and raise what they raise."""
    for name, value in _DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    from ada2i.training.environment import environment

    request = RunRequest.load(storage.join(run_uri, "request.json"))
    ray.init()
    resources = request.config.resources
    use_gpu = _wait_for_resources(resources, ray.cluster_resources)
    storage.put(storage.join(run_uri, "environment.json"), environment())
    events.emit("started", run_id=request.run_id, workers=resources.workers, device="cuda" if use_gpu else "cpu")
    failure = _train(request, run_uri, use_gpu=use_gpu, started=started)
    storage.delete_folder(_ray_folder(run_uri))  # Ray Train's own markers
    if failure:
        raise getattr(errors, failure["kind"])(failure["message"])


def _wait_for_resources(resources: ResourceConfig, available: Callable[[], Mapping[str, float]]) -> bool:
    """Tell whether to train on GPUs; a node that is being replaced has some time to come back."""
    deadline = time.monotonic() + _REPLACEMENT_SECONDS
    while True:
        try:
            return check_resources(resources, available())
        except errors.ResourceError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _train(request: RunRequest, run_uri: str, *, use_gpu: bool, started: float) -> dict[str, str] | None:
    """Return what the workers return."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig, TorchTrainer

    from ada2i.training.worker import work

    class OwnProcessGroup(TorchConfig):
        """The workers join their process group themselves, on their nodes' own addresses."""

        backend_cls = Backend

    resources = request.config.resources
    place = _ray_folder(run_uri)
    # Type checkers see Train's old interface, which knows neither what workers return nor the controller's limit.
    trainer = TorchTrainer(
        work,  # type: ignore[arg-type]
        train_loop_config={"run_uri": run_uri, "started": str(started)},
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": resources.cpus_per_worker} | ({"GPU": 1} if use_gpu else {}),
        ),
        torch_config=OwnProcessGroup(),
        run_config=RunConfig(
            name=request.run_id,
            storage_path=str(storage.local_path(place) or place),
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=resources.max_failures, controller_failure_limit=2
            ),
        ),
    )
    return trainer.fit().return_value  # type: ignore[attr-defined, no-any-return]


def _ray_folder(run_uri: str) -> str:
    return storage.join(run_uri, "ray")


def _cause(problem: BaseException) -> errors.Ada2iError | None:
    """Find our own error in what Ray Train raised: the first one that a worker failed with."""
    failures: dict[int, Any] = getattr(problem, "worker_failures", {})
    for candidate in (problem, problem.__cause__, *failures.values()):
        inner = getattr(candidate, "cause", candidate)
        if isinstance(inner, errors.Ada2iError):
            return inner
    return None


def main() -> int:
    """Entry point of the job; return its exit code."""
    started = time.time()
    try:
        drive(sys.argv[1], started=started)
    except Exception as problem:
        cause = _cause(problem)
        if cause is None:
            raise
        events.emit("error", error=type(cause).__name__, message=cause.message)
        return cause.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
