"""What a trial's processes run: Ray Tune's own is rank 0 and tells how it goes; it starts the other ranks as tasks.

They are in the trial's placement group and end with the process that started them, however it ends.
"""

from dataclasses import dataclass
from typing import Any, Final

import ray
import ray.util
import torch
from ray import tune
from ray.exceptions import RayError

from ada2i import checkpoint, storage
from ada2i.errors import Ada2iError
from ada2i.records import EpochRecord, RunRequest, SeedResult, seed_uri
from ada2i.search.trials import Job, TrialReport
from ada2i.training import distributed
from ada2i.training.task import QuietReporter, Reporter
from ada2i.training.worker import train_seeds

_PEER_SECONDS: Final = 5.0  # that peers have to end once one of them is gone


@dataclass
class TuneReporter:
    """Tells Ray Tune the epochs of one seed; Tune may end the training in return."""

    seed: int
    best: float = 0.0
    last: int = 0

    def first_step(self) -> None:
        """Say nothing."""

    def epoch(self, seed: int, record: EpochRecord) -> None:
        """Report an epoch of the first seed: ASHA judges that one, and the others of a trial that it lets live."""
        if seed != self.seed:
            return
        self.best, self.last = max(self.best, record.dev_weighted_f1), record.epoch
        self._tell(
            TrialReport(
                epoch=record.epoch,
                score=self.best,
                dev_weighted_f1=record.dev_weighted_f1,
                seconds=record.seconds,
            )
        )

    def failed(self, kind: str, message: str) -> None:
        """Report why there will be no more."""
        self._tell(TrialReport(epoch=self.last + 1, score=0.0, error=kind, message=message))

    def _tell(self, told: TrialReport) -> None:
        tune.report(told.model_dump())


def train(settings: dict[str, Any]) -> None:
    """Train the seeds of a job, from their newest checkpoints; an error of ours is reported, not raised.

    Args:
        settings: ``job``, and ``device``, ``cpu`` or ``cuda``.
    """
    job = Job.model_validate(settings["job"])
    reporter = TuneReporter(job.seeds[0])
    try:
        request = RunRequest.load(storage.join(job.uri, "request.json"))
        for record in _history(seed_uri(job.uri, job.seeds[0])):  # what an attempt before this one did
            reporter.epoch(job.seeds[0], record)
        failure = _train_ranks(request, job, device=settings["device"], reporter=reporter)
    except Ada2iError as problem:
        failure = {"kind": type(problem).__name__, "message": problem.message}
    if failure:
        reporter.failed(failure["kind"], failure["message"])


def _history(uri: str) -> tuple[EpochRecord, ...]:
    """Return the epochs that a seed has done."""
    result, checkpoints = storage.join(uri, "result.json"), storage.join(uri, "checkpoints")
    if storage.exists(result):
        return SeedResult.load(result).history
    step = checkpoint.latest_step(checkpoints)
    return () if step is None else checkpoint.load_progress(checkpoint.checkpoint_uri(checkpoints, step)).history


def _train_ranks(request: RunRequest, job: Job, *, device: str, reporter: Reporter) -> dict[str, str] | None:
    """Train as rank 0, with the others in tasks; see ``train_seeds``."""
    resources = request.config.resources
    peer = ray.remote(max_retries=0, num_cpus=resources.cpus_per_worker, num_gpus=int(device == "cuda"))(_train_rank)
    peers: list[Any] = []

    def share(address: distributed.Address | None) -> distributed.Address | None:
        peers.extend(peer.remote(job, rank, address, device) for rank in range(1, resources.workers))
        return address

    try:
        return _train_rank(job, 0, None, device, share=share, reporter=reporter)
    except RuntimeError:  # gloo's or NCCL's: a peer is gone
        _raise_peers_own(peers)
        raise
    finally:
        for each in peers:
            ray.cancel(each, force=True)


def _raise_peers_own(peers: list[Any]) -> None:
    """Raise the error of ours that a peer ended with, if one did."""
    ended = ray.wait(peers, num_returns=len(peers), timeout=_PEER_SECONDS)[0] if peers else ()
    for each in ended:
        try:
            ray.get(each)
        except RayError as problem:
            cause = getattr(problem, "cause", None)  # a task's alone have one
            if isinstance(cause, Ada2iError):
                raise cause from problem


def _train_rank(
    job: Job,
    rank: int,
    address: distributed.Address | None,
    device: str,
    *,
    share: Any = None,
    reporter: Reporter | None = None,
) -> dict[str, str] | None:
    """Train as one rank; rank 0 shares its address with the others, which are given it."""
    request = RunRequest.load(storage.join(job.uri, "request.json"))
    resources = request.config.resources
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
    with distributed.process_group(
        backend="nccl" if device == "cuda" else "gloo",
        rank=rank,
        world=resources.workers,
        host=str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
        share=share or (lambda _: address),
    ):
        where = torch.device(device)
        return train_seeds(
            request, job.uri, job.seeds, device=where, part=_part(where), reporter=reporter or QuietReporter()
        )


def _part(device: torch.device) -> tuple[int, int]:
    """Return this rank's place among the ranks on its node, and their number."""
    node = int(ray.get_runtime_context().get_node_id()[:15], 16)  # 60 bits tell nodes apart
    nodes = torch.zeros(distributed.world_size(), dtype=torch.int64, device=device)
    nodes[distributed.rank()] = node
    same = (distributed.sum_over_ranks(nodes) == node).nonzero().flatten().tolist()
    return same.index(distributed.rank()), len(same)
