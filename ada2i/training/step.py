"""One optimizer step.

Shape letters in this file:
    M modalities     W ranks
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ada2i.balance.base import Balancer
from ada2i.balance.noise import stream_key
from ada2i.batch import DialogueBatch
from ada2i.config import LossConfig
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.training import distributed, losses
from ada2i.training.clipping import gradient_norms
from ada2i.training.status import StepKey, StepStatus
from ada2i.training.update import update

LOSSES = ("classification_loss", "modal_loss", "feature_loss")


class StepReport(NamedTuple):
    """The results of a step, over all ranks.

    Attributes:
        metrics: By name (``training.metrics``), scalars or ``(M,)``, on the device.
        status: Whether the step was finite and whether a rank must leave.
    """

    metrics: dict[str, Tensor]
    status: StepStatus


def train_step(
    network: nn.Module,
    parts: Sequence[DialogueBatch],
    optimizer: torch.optim.Adam,
    *,
    key: StepKey,
    clip_norm: float,
    balancer: Balancer,
    weights: LossConfig | None = None,
    class_weights: Tensor | None = None,
    leaving: bool = False,
) -> StepReport:
    """Take one step on this rank's share of a global batch.

    On a GPU nothing here waits for the device. If a loss or gradient is not finite on some rank, the optimizer step is
    skipped on all ranks, in this step and in later ones; ``StepReport.status`` reports this when it is read.

    Args:
        network: The model, or the model in DDP.
        parts: This rank's share, whole or in parts whose gradients are summed.
        optimizer: The optimizer from ``make_optimizer``.
        key: Seed and step.
        clip_norm: L2 norm to which gradients are clipped.
        balancer: The method that balances modalities.
        weights: Weights of the loss terms; None: those of `reference`.
        class_weights: ``(C,)`` weights of the cross-entropies; None: all 1.
        leaving: Whether this rank was requested to leave; all ranks receive it.
    """
    model, world = unwrap(network), distributed.world_size()
    network.train()
    torch.manual_seed(stream_key(key.seed, key.step, f"dropout/{distributed.rank()}"))
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for part in parts:
        with _gradient_sync(network, on=part is parts[-1]):
            prediction = network(part)
            shares = loss_shares(prediction, part, over_padding=model.average_padding, class_weights=class_weights)
            extra = balancer.extra_losses(prediction, part)
            loss = sum((term * float(part.counted) for term in extra.values()), weigh(shares, weights or LossConfig()))
            # DDP divides by the number of ranks; the shares already sum to the mean over the global batch.
            (loss * world).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            statistics = balancer.statistics(prediction, part)
        measured = _measured(prediction, part, shares, loss, {**statistics, **extra})
        sums = {name: value + sums.get(name, 0) for name, value in measured.items()}
    sums["flags"][-1] += float(leaving)
    sums = _sum_over_ranks(sums)
    norms = gradient_norms(optimizer)
    scales = balancer.scales({name: sums[name] for name in statistics})
    broken = sums["flags"][:-1].any()
    update(
        model, optimizer, norms=norms, broken=broken, clip_norm=clip_norm, scales=scales, stream=(key.seed, key.step)
    )
    metrics = dict(zip(LOSSES, sums["losses"].unbind(), strict=True)) | {name: sums[name] for name in extra}
    metrics |= {"loss": sums["loss"], "gate_share": sums["gate_share"] / sums["parts"], **scales.metrics}
    metrics |= {"gradient_norm": norms.total, "encoder_gradient_norm": norms.by_encoder}
    return StepReport(metrics, StepStatus.of(sums["flags"], norms.total, key))


def unwrap(network: nn.Module) -> Ada2I:
    """Return the model inside DDP, or the model itself."""
    model = getattr(network, "module", network)
    assert isinstance(model, Ada2I)
    return model


def loss_shares(
    prediction: Prediction, batch: DialogueBatch, *, over_padding: bool, class_weights: Tensor | None = None
) -> Tensor:
    """Return this rank's shares of ``LOSSES``, unweighted, ``(3,)``; zeros if the batch is not counted."""
    terms = (
        losses.classification_loss(prediction, batch, class_weights),
        losses.modal_loss(prediction, batch, class_weights),
        losses.feature_loss(prediction, batch, over_padding=over_padding),
    )
    return torch.stack([term.share() for term in terms]) * float(batch.counted)


def weigh(shares: Tensor, weights: LossConfig) -> Tensor:
    """Return the scalar total of the loss terms ``(3,)``."""
    classification, modal, feature = shares.unbind()
    # A term of weight zero is left out, so that it creates no zero gradients.
    total = weights.classification * classification + weights.feature * feature
    return total + weights.modal * modal if weights.modal else total


@torch.no_grad()
def _measured(
    prediction: Prediction, batch: DialogueBatch, shares: Tensor, loss: Tensor, balance: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the values that are summed over the parts of a step and over ranks, by name.

    ``flags`` are ``(W + 1,)``: 1 for each rank whose loss is not finite, and the number of ranks that must leave.
    """
    flags = shares.new_zeros(distributed.world_size() + 1)
    flags[distributed.rank()] = (~torch.isfinite(loss)).to(flags.dtype)
    return {
        "losses": shares.detach(),
        "loss": loss.detach(),
        **{name: value.detach() * float(batch.counted) for name, value in balance.items()},
        "gate_share": prediction.gate_share.to(shares.device),
        "parts": flags.new_ones(()),
        "flags": flags,
    }


def _gradient_sync(network: nn.Module, *, on: bool) -> AbstractContextManager[None]:
    """Make DDP average gradients over ranks after the last part only."""
    if on or not isinstance(network, DistributedDataParallel):
        return nullcontext()
    return network.no_sync()


def _sum_over_ranks(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum over ranks, in one call."""
    together = distributed.sum_over_ranks(torch.cat([value.reshape(-1) for value in sums.values()]))
    flat = torch.split(together, [value.numel() for value in sums.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(sums.items(), flat, strict=True)}
