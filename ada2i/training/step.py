"""One optimizer step, as a free function of what it touches.

Shape letters in this file:
    M modalities     W ranks
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ada2i.balance import disparity as balance
from ada2i.batch import DialogueBatch
from ada2i.config import BalanceConfig, LossConfig
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.training import distributed, losses
from ada2i.training.status import StepKey, StepStatus
from ada2i.training.update import gradient_norms, update


@dataclass(frozen=True)
class StepReport:
    """What a step measured, over all ranks; tensors stay on the device until someone reads them.

    Attributes:
        losses: ``(3,)`` classification, modal and feature loss, unweighted, each the mean over the global batch.
        loss: Scalar total, weighted.
        ratio: ``(M,)`` rho_m.
        coefficient: ``(M,)`` k_m; ones where modulation is off.
        gate_share: ``(M,)`` data-dependent share of AFW's gate, mean over ranks.
        gradient_norm: Scalar L2 norm of all gradients before clipping.
        encoder_norms: ``(M,)`` the same by encoder.
        flags: What the host has to know of the step.
    """

    losses: Tensor
    loss: Tensor
    ratio: Tensor
    coefficient: Tensor
    gate_share: Tensor
    gradient_norm: Tensor
    encoder_norms: Tensor
    flags: StepStatus


def train_step(
    network: nn.Module,
    parts: Sequence[DialogueBatch],
    optimizer: torch.optim.Adam,
    *,
    key: StepKey,
    clip_norm: float,
    modulate: BalanceConfig | None,
    weights: LossConfig | None = None,
    class_weights: Tensor | None = None,
    leaving: bool = False,
) -> StepReport:
    """Take one step on this rank's share of a global batch.

    On a GPU nothing here waits for the device. Where a loss or gradient is not finite on some rank, the optimizer
    stands still on all of them, from this step on: ``StepReport.flags`` says so once it is read.

    Args:
        network: The model, or the model in DDP.
        parts: This rank's share, as a whole or in parts whose gradients are summed up.
        optimizer: As ``make_optimizer`` makes it.
        key: Seed and step.
        clip_norm: L2 norm to clip to.
        modulate: Modulation and noise; None for neither.
        weights: Of the loss terms; None for the reference's.
        class_weights: ``(C,)`` of the cross-entropies; None: all 1.
        leaving: Whether this rank was asked to leave; all ranks learn it.
    """
    model = unwrap(network)
    network.train()
    torch.manual_seed(balance.stream_key(key.seed, key.step, f"dropout/{distributed.rank()}"))
    optimizer.zero_grad(set_to_none=True)
    measured = [
        _pass(network, part, weights or LossConfig(), class_weights, synchronise=part is parts[-1]) for part in parts
    ]
    sums = _sum_over_ranks(_Sums(*map(sum, zip(*measured, strict=True))), leaving=leaving)  # type: ignore[arg-type]
    norms = gradient_norms(optimizer)
    ratio = balance.disparity_ratio(sums.scores)
    coefficient = torch.ones_like(ratio) if modulate is None else balance.modulation(ratio, modulate.alpha)
    update(
        model,
        optimizer,
        norms=norms,
        broken=sums.flags[:-1].any(),
        clip_norm=clip_norm,
        coefficient=coefficient,
        modulate=modulate,
        stream=(key.seed, key.step),
    )
    return StepReport(
        losses=sums.losses,
        loss=sums.loss[0],
        ratio=ratio,
        coefficient=coefficient,
        gate_share=sums.gate_share / sums.parts,
        gradient_norm=norms.total,
        encoder_norms=norms.by_encoder,
        flags=StepStatus.of(sums.flags, norms.total, key),
    )


def unwrap(network: nn.Module) -> Ada2I:
    """Return the model inside DDP, or the model itself."""
    model = getattr(network, "module", network)
    assert isinstance(model, Ada2I)
    return model


def loss_shares(
    prediction: Prediction, batch: DialogueBatch, *, over_padding: bool, class_weights: Tensor | None = None
) -> Tensor:
    """Return this rank's shares of the classification, modal and feature loss, ``(3,)``; zeros if it is not counted."""
    terms = (
        losses.classification_loss(prediction, batch, class_weights),
        losses.modal_loss(prediction, batch, class_weights),
        losses.feature_loss(prediction, batch, over_padding=over_padding),
    )
    return torch.stack([term.share() for term in terms]) * float(batch.counted)


def weigh(shares: Tensor, weights: LossConfig) -> Tensor:
    """Return the scalar total of the loss terms ``(3,)``."""
    classification, modal, feature = shares.unbind()
    # A term of weight zero stays out, so that it makes no gradients of zero.
    total = weights.classification * classification + weights.feature * feature
    return total + weights.modal * modal if weights.modal else total


class _Sums(NamedTuple):
    """Sums over parts, then over ranks.

    Losses ``(3,)``, total ``(1,)``, s_m ``(M,)``, gate shares ``(M,)``, number of parts ``(1,)``, and flags
    ``(W + 1,)``: which ranks have a loss that is not finite, and how many were asked to leave.
    """

    losses: Tensor
    loss: Tensor
    scores: Tensor
    gate_share: Tensor
    parts: Tensor
    flags: Tensor


def _pass(
    network: nn.Module, batch: DialogueBatch, weights: LossConfig, class_weights: Tensor | None, *, synchronise: bool
) -> _Sums:
    """Go forward and backward over a part; DDP averages gradients over ranks after the last one."""
    waiting = isinstance(network, DistributedDataParallel) and not synchronise
    with network.no_sync() if waiting else nullcontext():  # type: ignore[operator]
        prediction = network(batch)
        shares = loss_shares(
            prediction, batch, over_padding=unwrap(network).average_padding, class_weights=class_weights
        )
        loss = weigh(shares, weights)
        # DDP divides by the number of ranks; the shares already sum to the mean over the global batch.
        (loss * distributed.world_size()).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        scores = balance.true_class_scores(prediction.unimodal_logits, batch.labels) * float(batch.counted)
        flags = shares.new_zeros(distributed.world_size() + 1)
        flags[distributed.rank()] = (~torch.isfinite(loss)).to(flags.dtype)
        gate = prediction.gate_share.to(shares.device)
        return _Sums(shares.detach(), loss.detach()[None], scores, gate, flags.new_ones(1), flags)


def _sum_over_ranks(sums: _Sums, *, leaving: bool) -> _Sums:
    """Sum over ranks, in one call."""
    sums.flags[-1] += float(leaving)
    together = distributed.sum_over_ranks(torch.cat(sums))
    return _Sums(*torch.split(together, [len(part) for part in sums]))
