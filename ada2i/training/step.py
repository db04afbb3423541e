"""One optimizer step, as a free function of what it touches.

Shape letters in this file:
    M modalities     W ranks
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ada2i.batch import DialogueBatch
from ada2i.config import BalanceConfig, LossConfig
from ada2i.errors import DivergenceError
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.training import balance, distributed, losses


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
    """

    losses: Tensor
    loss: Tensor
    ratio: Tensor
    coefficient: Tensor
    gate_share: Tensor
    gradient_norm: Tensor
    encoder_norms: Tensor


@dataclass(frozen=True)
class StepKey:
    """Which step it is: with the rank, the key of all its randomness. Steps are counted from 0 over the whole run."""

    seed: int
    step: int


def train_step(
    network: nn.Module,
    batch: DialogueBatch,
    optimizer: torch.optim.Optimizer,
    *,
    key: StepKey,
    clip_norm: float,
    modulate: BalanceConfig | None,
    weights: LossConfig | None = None,
    class_weights: Tensor | None = None,
) -> StepReport:
    """Take one step on this rank's share of a global batch.

    Args:
        network: The model, or the model in DDP.
        batch: This rank's share.
        optimizer: Over the model's parameters.
        key: Seed and step.
        clip_norm: L2 norm to clip to.
        modulate: Modulation and noise; None for neither.
        weights: Of the loss terms; None for the reference's.
        class_weights: ``(C,)`` of the cross-entropies; None: all 1.

    Raises:
        DivergenceError: A loss or gradient is not finite on some rank; raised on all ranks, before the optimizer moves.
    """
    model = unwrap(network)
    network.train()
    torch.manual_seed(balance.stream_key(key.seed, key.step, f"dropout/{distributed.rank()}"))
    prediction = network(batch)
    shares = loss_shares(prediction, batch, over_padding=model.average_padding, class_weights=class_weights)
    loss = weigh(shares, weights or LossConfig())
    sums = _sum_over_ranks(shares, loss, prediction, batch)
    optimizer.zero_grad(set_to_none=True)
    # DDP divides by the number of ranks; the shares already sum to the mean over the global batch.
    (loss * distributed.world_size()).backward()  # type: ignore[no-untyped-call]
    encoders = encoder_gradients(model)
    encoder_norms, gradient_norm = _clip(model, encoders, clip_norm)
    _stop_unless_finite(sums.broken, gradient_norm, key)
    ratio = balance.disparity_ratio(sums.scores)
    coefficient = torch.ones_like(ratio) if modulate is None else balance.modulation(ratio, modulate.alpha)
    _update(model, optimizer, encoders, coefficient, key=key, modulate=modulate)
    return StepReport(sums.losses, sums.loss[0], ratio, coefficient, sums.gate_share, gradient_norm, encoder_norms)


def unwrap(network: nn.Module) -> Ada2I:
    """Return the model inside DDP, or the model itself."""
    model = getattr(network, "module", network)
    assert isinstance(model, Ada2I)
    return model


def encoder_gradients(model: Ada2I) -> list[Mapping[str, Tensor]]:
    """Return each modality's encoder gradients by parameter name, modalities in the model's order."""
    return [
        {
            f"encoders.{m}.{name}": parameter.grad
            for name, parameter in model.encoders[m].named_parameters()
            if parameter.grad is not None
        }
        for m in model.modalities
    ]


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
    """Sums over ranks: losses ``(3,)``, total ``(1,)``, s_m ``(M,)``, gate shares ``(M,)``, broken ranks ``(W,)``."""

    losses: Tensor
    loss: Tensor
    scores: Tensor
    gate_share: Tensor
    broken: Tensor


def _sum_over_ranks(shares: Tensor, loss: Tensor, prediction: Prediction, batch: DialogueBatch) -> _Sums:
    """Sum over ranks, in one call."""
    with torch.no_grad():
        scores = balance.true_class_scores(prediction.unimodal_logits, batch.labels) * float(batch.counted)
        gate = prediction.gate_share.to(shares.device) / distributed.world_size()
        broken = shares.new_zeros(distributed.world_size())
        broken[distributed.rank()] = (~torch.isfinite(loss)).to(shares.dtype)
        parts = [shares.detach(), loss.detach()[None], scores, gate, broken]
        together = distributed.sum_over_ranks(torch.cat(parts))
    return _Sums(*torch.split(together, [len(part) for part in parts]))


def _update(
    model: Ada2I,
    optimizer: torch.optim.Optimizer,
    gradients: Sequence[Mapping[str, Tensor]],
    coefficient: Tensor,
    *,
    key: StepKey,
    modulate: BalanceConfig | None,
) -> None:
    if modulate is None:
        optimizer.step()
    elif modulate.acts_on == "gradient":
        balance.scale_(gradients, coefficient)
        if modulate.noise:
            balance.add_noise_(gradients, seed=key.seed, step=key.step)
        optimizer.step()
    else:
        parameters = encoder_parameters(model)
        before = [{name: tensor.clone() for name, tensor in tensors.items()} for tensors in parameters]
        optimizer.step()
        balance.scale_update_(parameters, before, coefficient)
        if modulate.noise:
            rate = float(optimizer.param_groups[0]["lr"])
            balance.add_update_noise_(parameters, gradients, rate=rate, seed=key.seed, step=key.step)


def encoder_parameters(model: Ada2I) -> list[Mapping[str, Tensor]]:
    """Return each modality's encoder parameters that have gradients, by name, modalities in the model's order."""
    return [
        {f"encoders.{m}.{name}": p.detach() for name, p in model.encoders[m].named_parameters() if p.grad is not None}
        for m in model.modalities
    ]


def _clip(model: Ada2I, encoders: Sequence[Mapping[str, Tensor]], clip_norm: float) -> tuple[Tensor, Tensor]:
    parameters = [p for p in model.parameters() if p.grad is not None]
    total = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    by_encoder = torch.stack([nn.utils.get_total_norm(list(tensors.values())) for tensors in encoders])
    nn.utils.clip_grads_with_norm_(parameters, clip_norm, total)
    return by_encoder, total


def _stop_unless_finite(broken: Tensor, gradient_norm: Tensor, key: StepKey) -> None:
    # Both tensors are equal on all ranks, so all stop or none does.
    if torch.isfinite(gradient_norm) and not broken.any():
        return
    ranks = [str(rank) for rank in broken.nonzero().flatten().tolist()]
    what = f"The loss of rank {', '.join(ranks)}" if ranks else "The averaged gradient"
    raise DivergenceError(
        f"{what} is not finite at step {key.step} of seed {key.seed}; the optimizer did not move. "
        "Lower `training.learning_rate`, or look at the features of the dialogues named.",
        seed=key.seed,
        step=key.step,
        ranks=ranks,
    )
