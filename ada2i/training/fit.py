"""Epochs, selection on dev, early stop and resume for one seed; knows ranks, but nothing of Ray."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ada2i import checkpoint, storage
from ada2i.batch import DialogueBatch
from ada2i.checkpoint import Progress, Rng, Trainee
from ada2i.config import LossConfig, TrainConfig, TrainingConfig
from ada2i.data.loader import SplitData
from ada2i.data.order import cut, epoch_batches, share
from ada2i.data.skill import held_out_skill
from ada2i.errors import ConfigError, DivergenceError
from ada2i.evaluation.inference import predict
from ada2i.evaluation.metrics import scores
from ada2i.model.ada2i import Ada2I
from ada2i.model.build import build_model
from ada2i.records import EpochRecord, FeatureInfo, Scores, SeedResult
from ada2i.training import distributed
from ada2i.training.losses import balanced_weights
from ada2i.training.step import StepKey, StepReport, loss_shares, train_step, unwrap, weigh


class Reporter(Protocol):
    """Whoever wants to know how training goes."""

    def first_step(self) -> None:
        """The first optimizer step of this call is done, resumed or not."""

    def epoch(self, seed: int, record: EpochRecord) -> None:
        """An epoch is done and its checkpoint complete."""


@dataclass(frozen=True)
class Task:
    """One seed's training: what to fit, on what, and where it is kept."""

    config: TrainConfig
    features: FeatureInfo
    seed: int
    train: SplitData
    dev: SplitData
    uri: str  # the seed's folder
    device: torch.device

    @property
    def checkpoints(self) -> str:
        """URI of the folder with this seed's checkpoints."""
        return storage.join(self.uri, "checkpoints")

    @cached_property
    def class_weights(self) -> Tensor | None:
        """``(C,)`` weights of the cross-entropies, by the classes' shares of train; None: all 1."""
        if not self.config.loss.class_balance:
            return None
        counts = self.train.class_counts(len(self.features.labels))
        return balanced_weights(torch.from_numpy(counts), self.config.loss.class_balance).to(self.device)


def fit(task: Task, reporter: Reporter) -> SeedResult:
    """Train one seed to its end, from the newest checkpoint where there is one, and return the selected result.

    Raises:
        DivergenceError: A loss or gradient is not finite; names step, rank and dialogues.
        ConfigError: The folder holds checkpoints of another config.
    """
    trainee = _build(task)
    progress = _resume(task, trainee)
    network = replicate(trainee.model, _warm_up_batch(task), task.config.loss)
    begun = progress.epoch
    while not _finished(progress, task.config):
        first_step = reporter.first_step if progress.epoch == begun else None
        progress, record = _run_epoch(task, network, trainee, progress, first_step)
        reporter.epoch(task.seed, record)
    return _result(task, trainee.model, progress)


def replicate(model: nn.Module, warm_up: DialogueBatch, weights: LossConfig) -> nn.Module:
    """Return the model in DDP where there are several ranks.

    DDP arranges its buckets anew after the first backward pass, and with the arrangement the order of sums changes. So
    that a resumed run adds in the same order as an uninterrupted one, that first pass is done here, before the first
    step that counts.
    """
    if distributed.world_size() == 1:
        return model
    devices = [warm_up.labels.device] if warm_up.labels.is_cuda else None
    network = DistributedDataParallel(
        model, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
    )
    shares = loss_shares(network(warm_up), warm_up, over_padding=unwrap(network).average_padding)
    weigh(shares, weights).backward()  # type: ignore[no-untyped-call]
    network.zero_grad(set_to_none=True)
    return network


def _build(task: Task) -> Trainee:
    torch.manual_seed(task.seed)
    settings = task.config.training
    model = build_model(task.config, widths=task.features.widths, classes=len(task.features.labels)).to(task.device)
    for modality, standardise in model.standardise.items():
        standardise.set(*(torch.from_numpy(x).to(task.device) for x in task.train.statistics(modality)))  # type: ignore[operator, arg-type]
    if model.fusion.weights is not None:
        classes = len(task.features.labels)
        model.fusion.weigh({m: held_out_skill(task.train, m, classes=classes) for m in model.modalities})
    optimizer = torch.optim.Adam(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )
    scheduler = ReduceLROnPlateau(
        optimizer, mode="min", factor=settings.plateau_factor, patience=settings.plateau_epochs
    )
    return Trainee(model, optimizer, scheduler)


def _resume(task: Task, trainee: Trainee) -> Progress:
    found = checkpoint.latest_step(task.checkpoints) if distributed.rank() == 0 else None
    # Rank 0 decides: another rank may already see a checkpoint that is being written.
    step = distributed.from_rank_zero(-1 if found is None else found, task.device)
    if step < 0:
        return _fresh(task)
    uri = checkpoint.checkpoint_uri(task.checkpoints, step)
    progress = checkpoint.restore(uri, trainee)
    same = {"resources": task.config.resources}  # a run may continue on other machines
    if progress.config.model_copy(update=same) != task.config or progress.features != task.features:
        raise ConfigError(
            f"{uri} must come from the config and features of this run, but was made with others. Start a new run.",
            uri=uri,
        )
    return progress


def _fresh(task: Task) -> Progress:
    return Progress(
        config=task.config,
        features=task.features,
        rng=Rng(seed=task.seed, step=0),
        epoch=0,
        step=0,
        best_epoch=0,
        best_step=0,
        best_dev=None,
        stale_epochs=0,
        history=(),
    )


def _warm_up_batch(task: Task) -> DialogueBatch:
    batch = cut(range(len(task.train.lengths)), task.config.training.batch_dialogues)[0]
    return _own_share(task.train, batch).to(task.device)


def _own_share(split: SplitData, batch: Sequence[int]) -> DialogueBatch:
    own = share(batch, split.lengths, distributed.world_size())[distributed.rank()]
    return split.batch(own, batch)


def _finished(progress: Progress, config: TrainConfig) -> bool:
    settings = config.training
    return progress.epoch >= settings.epochs or progress.stale_epochs >= settings.early_stopping_epochs


def _run_epoch(
    task: Task, network: nn.Module, trainee: Trainee, progress: Progress, first_step: Callable[[], None] | None
) -> tuple[Progress, EpochRecord]:
    started = time.perf_counter()
    reports = _train_epoch(task, network, trainee, progress, first_step)
    learning_rate = float(trainee.optimizer.param_groups[0]["lr"])
    seconds = time.perf_counter() - started
    dev_loss, dev = _evaluate(task, unwrap(network))
    if task.config.training.schedule == "plateau":
        trainee.scheduler.step(dev_loss)
    record = _record(
        task, reports, dev, dev_loss=dev_loss, seconds=seconds, learning_rate=learning_rate, progress=progress
    )
    progress = _advance(progress, record, dev)
    if distributed.rank() == 0:
        checkpoint.save(task.checkpoints, trainee, progress)
    return progress, record


def _train_epoch(
    task: Task, network: nn.Module, trainee: Trainee, progress: Progress, first_step: Callable[[], None] | None
) -> list[StepReport]:
    settings, balance = task.config.training, task.config.balance
    epoch = progress.epoch + 1
    modulate = None if task.config.ablations.no_modulation or epoch < balance.start_epoch else balance
    batches = epoch_batches(
        len(task.train.lengths), batch_dialogues=settings.batch_dialogues, seed=task.seed, epoch=epoch
    )
    reports = []
    for index, dialogues in enumerate(batches):
        if settings.schedule == "cosine":
            set_rate(trainee.optimizer, settings, step=progress.step + index, steps=settings.epochs * len(batches))
        batch = _own_share(task.train, dialogues).to(task.device)
        key = StepKey(task.seed, progress.step + index)
        try:
            report = train_step(
                network,
                batch,
                trainee.optimizer,
                key=key,
                clip_norm=settings.clip_norm,
                modulate=modulate,
                weights=task.config.loss,
                class_weights=task.class_weights,
            )
        except DivergenceError as error:
            raise _with_dialogues(error, task.train, dialogues) from error
        reports.append(report)
        if index == 0 and first_step is not None:
            first_step()
    return reports


def set_rate(optimizer: torch.optim.Optimizer, settings: TrainingConfig, *, step: int, steps: int) -> None:
    """Set the learning rate of a step: warm-up over the first tenth, then half a cosine to zero."""
    rate = settings.learning_rate * min(1.0, (step + 1) / (0.1 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = rate


def _with_dialogues(error: DivergenceError, split: SplitData, batch: Sequence[int]) -> DivergenceError:
    """Name the dialogues of the ranks that failed, or of the whole batch where no single rank did."""
    shares = share(batch, split.lengths, distributed.world_size())
    ranks = [int(rank) for rank in error.context["ranks"]] or range(len(shares))
    names = [split.dialogue_ids[d] for rank in ranks for d in shares[rank]]
    return DivergenceError(f"{error.message} Dialogues: {', '.join(names)}.", **error.context, dialogues=names)


def _evaluate(task: Task, model: Ada2I) -> tuple[float, Scores]:
    """Return the dev loss, the mean NLL summed over batches (released code), and the dev scores; equal on all ranks."""
    classes = len(task.features.labels)
    confusion = torch.zeros(classes * classes, dtype=torch.float64, device=task.device)
    loss = torch.zeros(1, dtype=torch.float64, device=task.device)
    for dialogues in cut(range(len(task.dev.lengths)), task.config.training.batch_dialogues):
        batch = _own_share(task.dev, dialogues).to(task.device)
        if not batch.counted:
            continue
        logits = predict(model, batch)
        loss += nn.functional.cross_entropy(logits, batch.labels, reduction="sum") / batch.global_utterances
        cells = batch.labels * classes + logits.argmax(dim=-1)
        confusion += torch.bincount(cells, minlength=classes * classes)
    together = distributed.sum_over_ranks(torch.cat([loss, confusion])).cpu()
    if not torch.isfinite(together[0]):
        raise DivergenceError(
            f"The dev loss of seed {task.seed} must be finite, but is {float(together[0])}: the weights have left all "
            "bounds. Lower `training.learning_rate`.",
            seed=task.seed,
        )
    counts = together[1:].round().to(torch.int64).view(classes, classes).numpy()
    return float(together[0]), scores(counts, task.features.labels, "dev")


def _record(
    task: Task,
    reports: Sequence[StepReport],
    dev: Scores,
    *,
    dev_loss: float,
    seconds: float,
    learning_rate: float,
    progress: Progress,
) -> EpochRecord:
    names = task.config.model.modalities

    def mean(tensors: Sequence[Tensor]) -> list[float]:
        return torch.stack([t.detach().double() for t in tensors]).mean(dim=0).reshape(-1).tolist()

    classification, modal, feature = mean([r.losses for r in reports])
    return EpochRecord(
        epoch=progress.epoch + 1,
        step=progress.step + len(reports),
        loss=mean([r.loss for r in reports])[0],
        classification_loss=classification,
        modal_loss=modal,
        feature_loss=feature,
        gradient_norm=mean([r.gradient_norm for r in reports])[0],
        encoder_gradient_norm=dict(zip(names, mean([r.encoder_norms for r in reports]), strict=True)),
        ratio=dict(zip(names, mean([r.ratio for r in reports]), strict=True)),
        coefficient=dict(zip(names, mean([r.coefficient for r in reports]), strict=True)),
        gate_share=dict(zip(names, mean([r.gate_share for r in reports]), strict=True)),
        learning_rate=learning_rate,
        dev_loss=dev_loss,
        dev_weighted_f1=dev.weighted_f1,
        dev_macro_f1=dev.macro_f1,
        utterances_per_second=float(task.train.lengths.sum()) / seconds,
        seconds=seconds,
    )


def _advance(progress: Progress, record: EpochRecord, dev: Scores) -> Progress:
    better = progress.best_dev is None or dev.weighted_f1 > progress.best_dev.weighted_f1
    best = {"best_epoch": record.epoch, "best_step": record.step, "best_dev": dev} if better else {}
    return progress.model_copy(
        update={
            "rng": Rng(seed=progress.rng.seed, step=record.step),
            "epoch": record.epoch,
            "step": record.step,
            "stale_epochs": 0 if better else progress.stale_epochs + 1,
            "history": (*progress.history, record),
        }
        | best
    )


def _result(task: Task, model: nn.Module, progress: Progress) -> SeedResult:
    assert progress.best_dev is not None  # there is at least one epoch
    result = SeedResult(
        seed=task.seed,
        checkpoint_uri=checkpoint.checkpoint_uri(task.checkpoints, progress.best_step),
        best_epoch=progress.best_epoch,
        stopped_early=progress.epoch < task.config.training.epochs,
        parameters=sum(p.numel() for p in model.parameters()),
        device=task.device.type,
        workers=distributed.world_size(),
        dev=progress.best_dev,
        history=progress.history,
    )
    if distributed.rank() == 0:
        storage.put_if_absent(storage.join(task.uri, "result.json"), result.to_json())
    return result
