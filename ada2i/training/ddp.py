"""The model in DDP, with buckets in their final order from the first step on."""

import logging

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ada2i.batch import DialogueBatch
from ada2i.checkpoint import TrainState
from ada2i.config import LossConfig
from ada2i.training import distributed
from ada2i.training.sharding import own_share
from ada2i.training.step import loss_shares, unwrap, weigh
from ada2i.training.task import Task

log = logging.getLogger(__name__)


def replicate(model: nn.Module, warm_up: DialogueBatch, weights: LossConfig) -> nn.Module:
    """Return the model, in DDP if there are several ranks.

    DDP rebuilds its buckets after the first backward pass, which changes the order of sums. That first pass is done
    here, before the first step that counts, so that a resumed run adds in the same order as an uninterrupted one.
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
    return own_share(task.near_train, batch).to(task.device)


def equalise_replicas(state: TrainState, *, epoch: int) -> list[int]:
    """Compare model, optimizer and balancer over ranks; return the ranks that differed, which now have rank 0's.

    All ranks add the same gradients, but processors with other vector instructions round the optimizer's step
    differently, and the differences would grow from step to step.
    """
    # In the order of parameters and names: after a resume, the order of loaded dicts differs between ranks.
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    slots = [held[name] for p in parameters if (held := state.optimizer.state.get(p)) for name in sorted(held)]
    balance = [tensor for _, tensor in sorted(state.balancer.state().items())]
    tensors = [*state.model.parameters(), *state.model.buffers(), *slots, *balance]
    floats = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
    differing = distributed.differing_ranks(floats)
    if differing:
        log.warning(
            "After epoch %d the training state of ranks %s differs from that of rank 0, probably since their "
            "processors round differently. They continue with the state of rank 0.",
            epoch,
            ", ".join(map(str, differing)),
        )
        for tensor in floats:
            dist.broadcast(tensor, src=0)
    return differing
