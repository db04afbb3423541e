"""Trains one seed: epochs, selection of an epoch, early stop and resume. Uses ranks, but not Ray."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ada2i import checkpoint, storage
from ada2i.checkpoint import TrainCursor, TrainState
from ada2i.config import TrainingConfig
from ada2i.errors import DivergenceError, PreemptedError
from ada2i.records import EpochRecord, Scores, SeedResult
from ada2i.store import SeedFolder
from ada2i.training import distributed
from ada2i.training.ddp import equalise_replicas
from ada2i.training.graphs import graphs_for
from ada2i.training.lease import Lease
from ada2i.training.meter import EpochMeter
from ada2i.training.metrics import METRICS
from ada2i.training.reporter import Reporter
from ada2i.training.saving import Saver
from ada2i.training.schedule import set_rate
from ada2i.training.sharding import own_batches
from ada2i.training.state import start
from ada2i.training.status import StepKey, StepStatus
from ada2i.training.step import train_step, unwrap
from ada2i.training.task import Task
from ada2i.training.validate import evaluate

Pending = deque[tuple[Sequence[int], StepStatus]]  # steps whose status the host has not read, with their dialogues


def fit(task: Task, reporter: Reporter, *, leave: Callable[[], bool] = lambda: False) -> SeedResult:
    """Train one seed to its end, from its newest checkpoint if there is one, and return the selected result.

    Args:
        task: The seed's task.
        reporter: Receives the first step and every epoch.
        leave: Called after every step; returns true if this rank must leave. Then all ranks leave together.

    Raises:
        DivergenceError: A loss or gradient is not finite; the message names step, rank and dialogues.
        PreemptedError: A rank had to leave; the newest checkpoint is of the last step.
        ConflictError: A newer attempt has taken over this seed.
        ConfigError: The folder holds checkpoints of another config.
    """
    lease = Lease.take(task.uri) if distributed.rank() == 0 else None
    state, cursor, network = start(task)
    config, settings, first_step = task.config, task.config.training, cursor.step
    graphs = graphs_for(task, state, network)
    with Saver(task.uri, state, minutes=config.resources.checkpoint_minutes, lease=lease) as saver:
        while not finished(cursor, settings):
            meter = EpochMeter(cursor.part)
            order = task.train.epoch(seed=task.seed, epoch=cursor.epoch + 1, batch_dialogues=settings.batch_dialogues)
            state.balancer.set_epoch(cursor.epoch + 1)
            pending: Pending = deque()
            for dialogues, parts in own_batches(task, order.batches(meter.steps)):
                step = cursor.step - cursor.part.steps + meter.steps
                set_rate(state.optimizer, settings, step=step, steps=settings.epochs * len(order))
                key, leaving = StepKey(task.seed, step), leave() or saver.lost
                report = graphs.step(parts, key, leaving=leaving) if graphs else None
                report = report or train_step(
                    network, parts, state.optimizer, key=key, balancer=state.balancer, leaving=leaving, **task.losses
                )
                meter.add(report.metrics)
                pending.append((dialogues, report.status))
                if step == first_step:
                    reporter.first_step()
                last = meter.steps == len(order)
                # On a GPU the newest status is read one step later, so that the host does not wait for the device.
                if leaving := read_status(task, pending, keep=int(task.device.type == "cuda" and not last)):
                    break
                # Only rank 0 saves, so it must not raise here: a non-finite step is reported at the next read.
                if not last and saver.due() and all(status.finite for _, status in pending):
                    saver.start(cursor.within(meter.part()))
            cursor = cursor.within(meter.part())
            if meter.steps == len(order):
                cursor = validate(task, state, meter, cursor)
                if cursor.best_epoch == cursor.epoch:
                    saver.keep_best(cursor)
                if saver.due(epoch_done=True) and not leaving:
                    saver.start(cursor)
                reporter.epoch(task.seed, cursor.history[-1])
            if leaving and not finished(cursor, settings):
                raise save_and_leave(task, saver, cursor)
        save_and_finish(task, saver, cursor)
    return result_of(task, state.model, cursor)


def finished(cursor: TrainCursor, settings: TrainingConfig) -> bool:
    """Return whether all epochs are done, or dev has not improved for ``early_stopping_epochs``."""
    return cursor.epoch >= settings.epochs or cursor.stale_epochs >= settings.early_stopping_epochs


def read_status(task: Task, pending: Pending, *, keep: int) -> bool:
    """Read the status of all pending steps but the newest ``keep``; return whether a rank must leave.

    If one must, all statuses are read, so that every rank knows whether the weights that rank 0 then saves are finite.

    Raises:
        DivergenceError: A step was not finite; the message names its dialogues.
    """
    leaving = False
    while len(pending) > keep:
        dialogues, status = pending.popleft()
        try:
            status.check()
        except DivergenceError as error:
            raise _with_dialogues(error, task, dialogues) from error
        leaving = leaving or status.leaving
        keep = 0 if leaving else keep
    return leaving


def _with_dialogues(error: DivergenceError, task: Task, batch: Sequence[int]) -> DivergenceError:
    """Return an error that names the dialogues of the failed ranks, or of the whole batch if no single rank failed."""
    shares = task.train.shares(batch, distributed.world_size())
    ranks = [int(rank) for rank in error.context["ranks"]] or range(len(shares))
    names = [str(task.train.dialogue_ids[d]) for rank in ranks for d in shares[rank]]
    return DivergenceError(f"{error.message} Dialogues: {', '.join(names)}.", **error.context, dialogues=names)


def validate(task: Task, state: TrainState, meter: EpochMeter, cursor: TrainCursor) -> TrainCursor:
    """Score an epoch on dev, give the plateau scheduler the dev loss, and return the cursor at the epoch's end."""
    equalise_replicas(state, epoch=cursor.epoch + 1)
    learning_rate = float(state.optimizer.param_groups[0]["lr"])
    dev_loss, dev = evaluate(task, unwrap(state.model))
    if state.scheduler is not None:
        state.scheduler.step(dev_loss)
    seconds = cursor.part.seconds
    measured: dict[str, Any] = {
        "epoch": cursor.epoch + 1,
        "step": cursor.step,
        "seconds": seconds,
        "utterances_per_second": float(task.train.lengths.sum()) / seconds,
        "learning_rate": learning_rate,
        "dev_loss": dev_loss,
        "dev_weighted_f1": dev.weighted_f1,
        "dev_macro_f1": dev.macro_f1,
    }
    if dev.mae is not None:
        measured["dev_mae"] = dev.mae
    by_modality = {metric.name for metric in METRICS if metric.by_modality}
    for name, means in meter.means().items():
        measured[name] = (
            dict(zip(task.config.model.modalities, means, strict=True))
            if name in by_modality or len(means) > 1
            else means[0]
        )
    return cursor.after_epoch(EpochRecord(**measured), dev, best=is_selected(task.config.training, cursor, dev))


def is_selected(settings: TrainingConfig, cursor: TrainCursor, dev: Scores) -> bool:
    """Return whether an epoch's weights are selected rather than those of all epochs before."""
    if settings.selection == "last" or cursor.best_dev is None:
        return True
    if dev.mae is not None and cursor.best_dev.mae is not None:
        return dev.mae < cursor.best_dev.mae
    return dev.weighted_f1 > cursor.best_dev.weighted_f1


def check_lease(task: Task, saver: Saver) -> None:
    """Raise ``ConflictError`` on all ranks if a newer attempt has taken over this seed."""
    number = saver.lease.number if saver.lease and saver.lost else 0
    if number := distributed.from_rank_zero(number):
        raise Lease(task.uri, number).lost()


def save_and_finish(task: Task, saver: Saver, cursor: TrainCursor) -> None:
    """Write the last checkpoint and delete what is no longer needed; raises as ``check_lease`` does."""
    saver.finish(cursor)
    check_lease(task, saver)


def save_and_leave(task: Task, saver: Saver, cursor: TrainCursor) -> PreemptedError:
    """Write a checkpoint and return the error with which all ranks leave; raises as ``check_lease`` does."""
    saver.save(cursor)
    check_lease(task, saver)
    return PreemptedError(
        f"Seed {task.seed} was requested to leave, and left after step {cursor.step}. Run again to continue.",
        seed=task.seed,
        step=cursor.step,
    )


def result_of(task: Task, model: nn.Module, cursor: TrainCursor) -> SeedResult:
    """Return a finished seed's result; rank 0 writes it, once."""
    assert cursor.best_dev is not None  # there is at least one epoch
    result = SeedResult(
        seed=task.seed,
        checkpoint_uri=checkpoint.checkpoint_uri(task.folder.best, cursor.best_step),
        best_epoch=cursor.best_epoch,
        stopped_early=cursor.epoch < task.config.training.epochs,
        parameters=sum(p.numel() for p in model.parameters()),
        device=task.device.type,
        workers=distributed.world_size(),
        dev=cursor.best_dev,
        history=cursor.history,
    )
    if distributed.rank() == 0:
        storage.put_if_absent(SeedFolder(task.uri).result_uri, result.stored())
    return result
