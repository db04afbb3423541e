"""Epochs, selection on dev, early stop and resume for one seed; knows ranks, but nothing of Ray."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import nn

from ada2i import checkpoint, storage
from ada2i.batch import DialogueBatch
from ada2i.checkpoint import EpochPart, Rng, TrainCursor, TrainState
from ada2i.config import TrainConfig, TrainingConfig
from ada2i.errors import DivergenceError, PreemptedError
from ada2i.loader.order import share
from ada2i.loader.split_data import SplitData
from ada2i.modalities import Modality
from ada2i.records import EpochRecord, Scores, SeedResult
from ada2i.training import distributed
from ada2i.training.meter import EpochMeter
from ada2i.training.saving import Saver
from ada2i.training.sharding import own_batches
from ada2i.training.state import build, replicate, resume, warm_up_batch
from ada2i.training.status import StepKey
from ada2i.training.step import StepReport, train_step, unwrap
from ada2i.training.task import Reporter, Task
from ada2i.training.validate import evaluate


@dataclass(frozen=True)
class _Training:
    """What an epoch touches."""

    task: Task
    network: nn.Module
    state: TrainState
    saver: Saver
    leave: Callable[[], bool]
    begun: TrainCursor  # where this attempt began
    reporter: Reporter


def fit(task: Task, reporter: Reporter, *, leave: Callable[[], bool] = lambda: False) -> SeedResult:
    """Train one seed to its end, from the newest checkpoint where there is one, and return the selected result.

    Args:
        task: What to train.
        reporter: Told how it goes.
        leave: Asked after every step whether this rank is to leave; one that is takes all others along.

    Raises:
        DivergenceError: A loss or gradient is not finite; names step, rank and dialogues.
        PreemptedError: A rank was asked to leave; the newest checkpoint is of the last step.
        ConfigError: The folder holds checkpoints of another config.
    """
    state = build(task)
    progress = resume(task, state)
    if distributed.rank() == 0:
        # An attempt that was killed may have written best weights without the checkpoint that names them; on other
        # machines the same step may have others.
        checkpoint.sweep(task.best, progress.best_step, later=True)
    network = replicate(state.model, warm_up_batch(task), task.config.loss)
    with Saver(task.uri, state, minutes=task.config.resources.checkpoint_minutes) as saver:
        training = _Training(task, network, state, saver, leave, progress, reporter)
        while not _finished(progress, task.config):
            progress, record, leaving = _run_epoch(training, progress)
            reporter.epoch(task.seed, record)
            if leaving and not _finished(progress, task.config):
                _leave(training, progress)
        saver.finish(progress)
    return _result(task, state.model, progress)


def _finished(progress: TrainCursor, config: TrainConfig) -> bool:
    settings = config.training
    return progress.epoch >= settings.epochs or progress.stale_epochs >= settings.early_stopping_epochs


def _run_epoch(training: _Training, progress: TrainCursor) -> tuple[TrainCursor, EpochRecord, bool]:
    """Return how far training is, the epoch's record, and whether a rank was asked to leave at the last step."""
    task, state = training.task, training.state
    progress, tally, leaving = _train_epoch(training, progress)
    learning_rate = float(state.optimizer.param_groups[0]["lr"])
    dev_loss, dev = evaluate(task, unwrap(training.network))
    if task.config.training.schedule == "plateau":
        state.scheduler.step(dev_loss)
    record = _record(task, progress, tally.means(), dev, dev_loss=dev_loss, learning_rate=learning_rate)
    progress = _advance(progress, record, dev)
    if progress.best_epoch == progress.epoch:
        training.saver.keep_best(progress)
    if not leaving and training.saver.due(epoch_done=True):
        training.saver.start(progress)
    return progress, record, leaving


def _train_epoch(training: _Training, progress: TrainCursor) -> tuple[TrainCursor, EpochMeter, bool]:
    """Take the steps of an epoch that are not done yet; who is asked to leave at the last one does so after dev."""
    task, before = training.task, progress.part.seconds - time.perf_counter()
    tally = EpochMeter(progress.part, modalities=len(task.config.model.modalities), device=task.device)
    first = progress.step - tally.steps
    batches = task.train.epoch(
        seed=task.seed, epoch=progress.epoch + 1, batch_dialogues=task.config.training.batch_dialogues
    )
    late: deque[tuple[Sequence[int], StepReport]] = deque()
    leaving = False
    for dialogues, parts in own_batches(task, batches.batches(tally.steps)):
        report = _step(training, parts, progress.epoch + 1, step=first + tally.steps, steps=len(batches))
        tally.add(report)
        late.append((dialogues, report))
        if first + tally.steps == training.begun.step + 1:
            training.reporter.first_step()
        more = tally.steps < len(batches)
        leaving = _looked_at(task, late, keep=more and task.device.type == "cuda")
        if more and leaving:
            _looked_at(task, late, keep=False)  # all ranks see here whether what they would keep is finite
            _leave(training, _within(progress, tally, time.perf_counter() + before))
        # Rank 0 alone saves, so it must not raise: what is not finite waits for all ranks' next look.
        if more and training.saver.due() and all(report.flags.finite for _, report in late):
            training.saver.start(_within(progress, tally, time.perf_counter() + before))
    return _within(progress, tally, time.perf_counter() + before), tally, leaving


def _looked_at(task: Task, late: deque[tuple[Sequence[int], StepReport]], *, keep: bool) -> bool:
    """Tell whether a rank was asked to leave, and stop where a step was not finite.

    With a GPU the newest step is kept for the next time, so that the host never waits for what it has just asked for.
    """
    leaving = False
    while len(late) > keep:
        dialogues, report = late.popleft()
        try:
            report.flags.check()
        except DivergenceError as error:
            raise _with_dialogues(error, task.train, dialogues) from error
        leaving = leaving or report.flags.leaving
    return leaving


def _step(training: _Training, parts: Sequence[DialogueBatch], epoch: int, *, step: int, steps: int) -> StepReport:
    """Take one step of an epoch with so many steps."""
    task, optimizer = training.task, training.state.optimizer
    settings, balance = task.config.training, task.config.balance
    modulate = None if task.config.ablations.no_modulation or epoch < balance.start_epoch else balance
    if settings.schedule == "cosine":
        set_rate(optimizer, settings, step=step, steps=settings.epochs * steps)
    return train_step(
        training.network,
        [part.to(task.device) for part in parts],
        optimizer,
        key=StepKey(task.seed, step),
        clip_norm=settings.clip_norm,
        modulate=modulate,
        weights=task.config.loss,
        class_weights=task.class_weights,
        leaving=training.leave(),
    )


def _within(progress: TrainCursor, tally: EpochMeter, seconds: float) -> TrainCursor:
    """Return how far training is within an epoch that began, or went on, at ``progress``."""
    step = progress.step - progress.part.steps + tally.steps
    rng = Rng(seed=progress.rng.seed, step=step)
    return progress.model_copy(update={"rng": rng, "step": step, "part": tally.part(seconds)})


def _leave(training: _Training, progress: TrainCursor) -> NoReturn:
    training.saver.save(progress)
    raise PreemptedError(
        f"Seed {training.task.seed} was asked to leave, and did after step {progress.step}. Run again to go on.",
        seed=training.task.seed,
        step=progress.step,
    )


def set_rate(optimizer: torch.optim.Optimizer, settings: TrainingConfig, *, step: int, steps: int) -> None:
    """Set the learning rate of a step: warm-up over the first tenth, then half a cosine to zero."""
    rate = settings.learning_rate * min(1.0, (step + 1) / (0.1 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = rate


def _with_dialogues(error: DivergenceError, split: SplitData, batch: Sequence[int]) -> DivergenceError:
    """Name the dialogues of the ranks that failed, or of the whole batch where no single rank did."""
    shares = share(batch, split.lengths, distributed.world_size())
    ranks = [int(rank) for rank in error.context["ranks"]] or range(len(shares))
    names = [str(split.dialogue_ids[d]) for rank in ranks for d in shares[rank]]
    return DivergenceError(f"{error.message} Dialogues: {', '.join(names)}.", **error.context, dialogues=names)


def _record(
    task: Task,
    progress: TrainCursor,
    means: Mapping[str, Sequence[float]],
    dev: Scores,
    *,
    dev_loss: float,
    learning_rate: float,
) -> EpochRecord:
    def by_modality(name: str) -> dict[Modality, float]:
        return dict(zip(task.config.model.modalities, means[name], strict=True))

    classification, modal, feature = means["losses"]
    seconds = progress.part.seconds
    return EpochRecord(
        epoch=progress.epoch + 1,
        step=progress.step,
        loss=means["loss"][0],
        classification_loss=classification,
        modal_loss=modal,
        feature_loss=feature,
        gradient_norm=means["gradient_norm"][0],
        encoder_gradient_norm=by_modality("encoder_norms"),
        ratio=by_modality("ratio"),
        coefficient=by_modality("coefficient"),
        gate_share=by_modality("gate_share"),
        learning_rate=learning_rate,
        dev_loss=dev_loss,
        dev_weighted_f1=dev.weighted_f1,
        dev_macro_f1=dev.macro_f1,
        utterances_per_second=float(task.train.lengths.sum()) / seconds,
        seconds=seconds,
    )


def _advance(progress: TrainCursor, record: EpochRecord, dev: Scores) -> TrainCursor:
    better = progress.best_dev is None or dev.weighted_f1 > progress.best_dev.weighted_f1
    best = {"best_epoch": record.epoch, "best_step": record.step, "best_dev": dev} if better else {}
    return progress.model_copy(
        update={
            "epoch": record.epoch,
            "stale_epochs": 0 if better else progress.stale_epochs + 1,
            "history": (*progress.history, record),
            "part": EpochPart(),
        }
        | best
    )


def _result(task: Task, model: nn.Module, progress: TrainCursor) -> SeedResult:
    assert progress.best_dev is not None  # there is at least one epoch
    result = SeedResult(
        seed=task.seed,
        checkpoint_uri=checkpoint.checkpoint_uri(task.best, progress.best_step),
        best_epoch=progress.best_epoch,
        stopped_early=progress.epoch < task.config.training.epochs,
        parameters=sum(p.numel() for p in model.parameters()),
        device=task.device.type,
        workers=distributed.world_size(),
        dev=progress.best_dev,
        history=progress.history,
    )
    if distributed.rank() == 0:
        storage.put_if_absent(storage.join(task.uri, "result.json"), result.stored())
    return result
