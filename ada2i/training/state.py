"""Starts or resumes a seed's training: model, optimizer and balancer, the newest checkpoint, the replicas."""

import logging

import torch
from torch import nn

from ada2i import checkpoint, fast
from ada2i.balance import make_balancer
from ada2i.checkpoint import Rng, TrainCursor, TrainState
from ada2i.errors import ConfigError, DataError, IntegrityError, NotFoundError
from ada2i.evaluation.probe import held_out_skill
from ada2i.model.amw import SkillFusion
from ada2i.model.build import build_model
from ada2i.model.inputs import Standardise
from ada2i.store import SeedFolder
from ada2i.training import distributed
from ada2i.training.ddp import replicate, warm_up_batch
from ada2i.training.schedule import plateau_scheduler
from ada2i.training.task import Task
from ada2i.training.update import make_optimizer

log = logging.getLogger(__name__)


def start(task: Task) -> tuple[TrainState, TrainCursor, nn.Module]:
    """Return the training state, its position, and the network to train: the model, in DDP if there are several ranks.

    Raises:
        ConfigError: The folder holds checkpoints of another config.
    """
    fast.enable(task.config.resources.fast_cpu)
    state = build(task)
    cursor = resume(task, state)
    return state, cursor, replicate(state.model, warm_up_batch(task), task.config.loss)


def build(task: Task) -> TrainState:
    """Return model, optimizer, scheduler and balancer at the start of training."""
    torch.manual_seed(task.seed)
    settings = task.config.training
    model = build_model(task.config, widths=task.features.widths, classes=len(task.features.labels)).to(task.device)
    for modality in model.modalities:
        norm = model.standardise[modality]
        if isinstance(norm, Standardise):
            norm.set(*(torch.from_numpy(x).to(task.device) for x in task.train.statistics(modality)))
    if isinstance(model.fusion, SkillFusion):
        classes = len(task.features.labels)
        model.fusion.weigh({m: held_out_skill(task.train, m, classes=classes) for m in model.modalities}, classes)
    optimizer = make_optimizer(model, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    return TrainState(model, optimizer, plateau_scheduler(optimizer, settings), make_balancer(task.config))


def resume(task: Task, state: TrainState) -> TrainCursor:
    """Restore the newest usable checkpoint, the same on all ranks, and return its cursor; without one, a new cursor.

    Raises:
        ConfigError: The folder holds checkpoints of another config.
    """
    found = _newest_usable(task.folder) if distributed.rank() == 0 else None
    # Rank 0 decides: another rank may already see a checkpoint that is being written.
    step = distributed.from_rank_zero(-1 if found is None else found)
    cursor = _at_start(task) if step < 0 else _restored(task, state, step)
    if distributed.rank() == 0:
        # Later checkpoints are damaged. Later best weights are of a killed attempt, which did not write the checkpoint
        # that names them. On other machines the same steps may have other weights.
        checkpoint.delete_after(task.folder.checkpoints, cursor.step)
        checkpoint.delete_after(task.folder.best, cursor.best_step)
    return cursor


def _newest_usable(folder: SeedFolder) -> int | None:
    """Return the step of the newest checkpoint whose files, and whose best weights, have the recorded bytes.

    If none is usable, return the newest, whose restoring then fails on all ranks; None: there is no checkpoint.
    """
    steps = checkpoint.complete_steps(folder.checkpoints)
    for step in steps:
        try:
            best = checkpoint.check(checkpoint.checkpoint_uri(folder.checkpoints, step)).best_step
            if best:
                checkpoint.check(checkpoint.checkpoint_uri(folder.best, best))
        except (DataError, NotFoundError) as problem:
            log.warning("The checkpoint of step %d cannot be used: %s", step, problem)
        else:
            return step
    return steps[0] if steps else None


def _restored(task: Task, state: TrainState, step: int) -> TrainCursor:
    uri = checkpoint.checkpoint_uri(task.folder.checkpoints, step)
    stored = checkpoint.load_progress(uri)
    same = {"resources": task.config.resources}  # a run may resume on other machines
    if stored.config.model_copy(update=same) != task.config or stored.features != task.features:
        raise ConfigError(
            f"{uri} must come from the config and features of this run, but was made with others. Start a new run.",
            uri=uri,
        )
    best = checkpoint.checkpoint_uri(task.folder.best, stored.best_step)
    if stored.best_step and not checkpoint.is_complete(best):
        raise IntegrityError(
            f"{best} must hold the best weights that {uri} names, but lacks files. Start a new run.", uri=best
        )
    return checkpoint.restore(uri, state)


def _at_start(task: Task) -> TrainCursor:
    return TrainCursor(
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
