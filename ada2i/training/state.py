"""Starts or resumes a seed's training: model, optimizer and balancer, the newest checkpoint, the replicas."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ada2i import checkpoint, fast
from ada2i.balance import make_balancer
from ada2i.batch import DialogueBatch
from ada2i.checkpoint import Rng, TrainCursor, TrainState
from ada2i.config import LossConfig
from ada2i.errors import ConfigError
from ada2i.evaluation.probe import held_out_skill
from ada2i.model.amw import SkillFusion
from ada2i.model.build import build_model
from ada2i.model.inputs import Standardise
from ada2i.training import distributed
from ada2i.training.sharding import own_share
from ada2i.training.step import loss_shares, unwrap, weigh
from ada2i.training.task import Task
from ada2i.training.update import make_optimizer


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
        model.fusion.weigh({m: held_out_skill(task.train, m, classes=classes) for m in model.modalities})
    optimizer = make_optimizer(model, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    scheduler = None
    if settings.schedule == "plateau":
        scheduler = ReduceLROnPlateau(
            optimizer, mode="min", factor=settings.plateau_factor, patience=settings.plateau_epochs
        )
    return TrainState(model, optimizer, scheduler, make_balancer(task.config))


def resume(task: Task, state: TrainState) -> TrainCursor:
    """Restore the newest checkpoint, the same on all ranks, and return its cursor; without one, a new cursor.

    Raises:
        ConfigError: The folder holds checkpoints of another config.
    """
    found = checkpoint.latest_step(task.checkpoints) if distributed.rank() == 0 else None
    # Rank 0 decides: another rank may see a checkpoint that is still being written.
    step = distributed.from_rank_zero(-1 if found is None else found, task.device)
    cursor = _fresh(task) if step < 0 else _restored(task, state, step)
    if distributed.rank() == 0:
        # A killed attempt may have written best weights without the checkpoint that names them. On other machines the
        # same step may have other weights.
        checkpoint.sweep(task.best, cursor.best_step, later=True)
    return cursor


def _restored(task: Task, state: TrainState, step: int) -> TrainCursor:
    uri = checkpoint.checkpoint_uri(task.checkpoints, step)
    cursor = checkpoint.restore(uri, state)
    same = {"resources": task.config.resources}  # a run may resume on other machines
    if cursor.config.model_copy(update=same) != task.config or cursor.features != task.features:
        raise ConfigError(
            f"{uri} must come from the config and features of this run, but was made with others. Start a new run.",
            uri=uri,
        )
    return cursor


def replicate(model: nn.Module, warm_up: DialogueBatch, weights: LossConfig) -> nn.Module:
    """Return the model, in DDP if there are several ranks.

    DDP rebuilds its buckets after the first backward pass, which changes the order of sums. That first pass is made
    here, before the first real step, so that a resumed run adds in the same order as an uninterrupted one.
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


def warm_up_batch(task: Task) -> DialogueBatch:
    """Return this rank's share of the first dialogues of train."""
    batch = range(min(task.config.training.batch_dialogues, len(task.train.lengths)))
    return own_share(task.train, batch).to(task.device)


def _fresh(task: Task) -> TrainCursor:
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
