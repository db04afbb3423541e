"""One optimizer step, as a free function of what it touches.

Shape letters in this file:
    M modalities     W ranks
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ada2i.batch import DialogueBatch
from ada2i.config import BalanceConfig
from ada2i.errors import DivergenceError
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.training import balance, distributed, losses


@dataclass(frozen=True)
class StepReport:
    """What a step measured, over all ranks; tensors stay on the device until someone reads them.

    Attributes:
        losses: ``(2,)`` classification loss and feature loss, each the mean over the global batch.
        ratio: ``(M,)`` rho_m.
        coefficient: ``(M,)`` k_m; ones where modulation is off.
        gradient_norm: Scalar L2 norm of all gradients before clipping.
        encoder_norms: ``(M,)`` the same by encoder.
    """

    losses: Tensor
    ratio: Tensor
    coefficient: Tensor
    gradient_norm: Tensor
    encoder_norms: Tensor

    @property
    def loss(self) -> Tensor:
        """Scalar total loss."""
        return self.losses.sum()


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
) -> StepReport:
    """Take one step on this rank's share of a global batch.

    Args:
        network: The model, or the model in DDP.
        batch: This rank's share.
        optimizer: Over the model's parameters.
        key: Seed and step.
        clip_norm: L2 norm to clip to.
        modulate: Modulation and noise; None for neither.

    Raises:
        DivergenceError: A loss or gradient is not finite on some rank; raised on all ranks, before the optimizer moves.
    """
    model = unwrap(network)
    network.train()
    torch.manual_seed(balance.stream_key(key.seed, key.step, f"dropout/{distributed.rank()}"))
    prediction = network(batch)
    shares = _loss_shares(prediction, batch, over_padding=model.average_padding)
    means, scores, broken = _share_sums(shares, prediction, batch)
    optimizer.zero_grad(set_to_none=True)
    # DDP divides by the number of ranks; the shares already sum to the mean over the global batch.
    (shares.sum() * distributed.world_size()).backward()  # type: ignore[no-untyped-call]
    encoders = encoder_gradients(model)
    encoder_norms, gradient_norm = _clip(model, encoders, clip_norm)
    _stop_unless_finite(broken, gradient_norm, key)
    ratio = balance.disparity_ratio(scores)
    coefficient = torch.ones_like(ratio)
    if modulate is not None:
        coefficient = balance.modulation(ratio, modulate.alpha)
        balance.scale_(encoders, coefficient)
        if modulate.noise:
            balance.add_noise_(encoders, seed=key.seed, step=key.step)
    optimizer.step()
    return StepReport(means, ratio, coefficient, gradient_norm, encoder_norms)


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


def _loss_shares(prediction: Prediction, batch: DialogueBatch, *, over_padding: bool) -> Tensor:
    terms = (
        losses.classification_loss(prediction, batch),
        losses.feature_loss(prediction, batch, over_padding=over_padding),
    )
    return torch.stack([term.share() for term in terms]) * float(batch.counted)


def _share_sums(shares: Tensor, prediction: Prediction, batch: DialogueBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over ranks, in one call: the losses ``(2,)``, s_m ``(M,)``, and which ranks' loss is not finite ``(W,)``."""
    with torch.no_grad():
        scores = balance.true_class_scores(prediction.unimodal_logits, batch.labels) * float(batch.counted)
        broken = shares.new_zeros(distributed.world_size())
        broken[distributed.rank()] = (~torch.isfinite(shares.sum())).to(shares.dtype)
        together = distributed.sum_over_ranks(torch.cat([shares.detach(), scores, broken]))
    means, scores, broken = torch.split(together, [len(shares), len(scores), len(broken)])
    return means, scores, broken


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
