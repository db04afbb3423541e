"""What each Ray worker runs: all seeds of a run, one after the other, in one process group."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import ray.train
import ray.train.torch
import ray.util
import torch
from ray.train.collective import broadcast_from_rank_zero
from ray.util.metrics import Gauge

from ada2i import storage
from ada2i.data.loader import open_split
from ada2i.data.manifest import open_features
from ada2i.errors import DivergenceError
from ada2i.jobs import events
from ada2i.records import EpochRecord, RunRequest, seed_uri
from ada2i.training import distributed
from ada2i.training.fit import Reporter, Task, fit

BY_RUN = ("run", "seed")
PLAIN = {
    "loss": "Training loss, mean over the epoch (nats and L1)",
    "classification_loss": "Negative log-likelihood, mean over the epoch (nats)",
    "modal_loss": "Negative log-likelihood of the votes' sum, mean over the epoch (nats)",
    "feature_loss": "L1 distance of AFW's mapping network, mean over the epoch",
    "gradient_norm": "L2 norm of all gradients before clipping, mean over the epoch",
    "learning_rate": "Learning rate",
    "dev_loss": "Sum over dev batches of the mean negative log-likelihood (nats)",
    "dev_weighted_f1": "Weighted F1 on dev",
    "dev_macro_f1": "Macro F1 on dev",
    "utterances_per_second": "Training utterances per second, all workers",
    "epoch": "Epochs done",
}
BY_MODALITY = {
    "ratio": "Disparity ratio rho_m, mean over the epoch",
    "coefficient": "Modulation coefficient k_m, mean over the epoch",
    "gate_share": "Data-dependent share of AFW's gate, mean over the epoch",
    "encoder_gradient_norm": "L2 norm of an encoder's gradients before clipping, mean over the epoch",
}


def work(settings: dict[str, str]) -> dict[str, str] | None:
    """Train every seed that has no result yet.

    Args:
        settings: ``run_uri``, and ``started``, the driver's start in seconds since the epoch.

    Returns:
        None, or the error that no new attempt can mend, for the driver to raise.
    """
    request = RunRequest.load(storage.join(settings["run_uri"], "request.json"))
    context = ray.train.get_context()
    torch.set_num_threads(max(1, int(request.config.resources.cpus_per_worker)))
    device = ray.train.torch.get_device()
    with distributed.process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        host=str(ray.util.get_node_ip_address()),  # type: ignore[no-untyped-call]
        share=broadcast_from_rank_zero,
    ):
        part = (context.get_local_rank(), context.get_local_world_size())
        reporter = RayReporter(run_id=request.run_id, started=float(settings["started"]))
        seeds = request.config.training.seeds
        return train_seeds(request, settings["run_uri"], seeds, device=device, part=part, reporter=reporter)


def train_seeds(
    request: RunRequest,
    run_uri: str,
    seeds: Sequence[int],
    *,
    device: torch.device,
    part: tuple[int, int],
    reporter: Reporter,
) -> dict[str, str] | None:
    """Train those of some seeds that have no result yet; see ``work``.

    Args:
        request: What to train.
        run_uri: The run's folder.
        seeds: Seeds of the run.
        device: Where this rank computes.
        part: This rank's place among the ranks of its machine, and their number.
        reporter: Told how it goes.
    """
    config, features = request.config, open_features(request.features.uri)
    train, dev = (
        open_split(features, split, config.model.modalities, part=part, wait=distributed.barrier)
        for split in ("train", "dev")
    )
    for seed in seeds:
        uri = seed_uri(run_uri, seed)
        # Rank 0 decides, so that no rank waits for one that skips.
        if distributed.from_rank_zero(int(storage.exists(storage.join(uri, "result.json"))), device):
            continue
        try:
            fit(Task(config, request.features, seed, train, dev, uri, device), reporter)
        except DivergenceError as error:  # the same on all ranks, and again on every attempt
            return {"kind": type(error).__name__, "message": error.message}
    return None


@dataclass
class RayReporter:
    """Tells the followers of the job's log, and Ray's metrics, how training goes; rank 0 speaks for all."""

    run_id: str
    started: float
    stepped: bool = False
    gauges: dict[str, Gauge] = field(default_factory=dict)

    def first_step(self) -> None:
        """Report the time from the driver's start to this attempt's first optimizer step, once."""
        if distributed.rank() == 0 and not self.stepped:
            self.stepped = True
            events.emit("first_step", seconds=round(time.time() - self.started, 2))

    def epoch(self, seed: int, record: EpochRecord) -> None:
        """Report an epoch."""
        if distributed.rank() != 0:
            return
        events.emit("epoch", seed=seed, record=record.model_dump())
        tags = {"run": self.run_id, "seed": str(seed)}
        for name, help_text in PLAIN.items():
            self._gauge(name, help_text, BY_RUN).set(float(getattr(record, name)), tags=tags)
        for name, help_text in BY_MODALITY.items():
            for modality, value in getattr(record, name).items():
                self._gauge(name, help_text, (*BY_RUN, "modality")).set(value, tags=tags | {"modality": modality})

    def _gauge(self, name: str, help_text: str, tags: tuple[str, ...]) -> Gauge:
        if name not in self.gauges:
            self.gauges[name] = Gauge(f"ada2i_{name}", description=help_text, tag_keys=tags)
        return self.gauges[name]
