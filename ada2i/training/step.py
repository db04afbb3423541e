"""One optimizer step.

Shape letters in this file:
    M modalities     W ranks
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ada2i.balance.base import Balancer, StepInfo
from ada2i.balance.noise import Draws, StepDraws, stream_key
from ada2i.batch import DialogueBatch
from ada2i.config import LossConfig
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.training import distributed, losses
from ada2i.training.clipping import Norms, gradient_norms, not_finite
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
    network.train()
    seed_dropout(key)
    balancer.start_step(StepInfo(unwrap(network), key.seed, key.step, class_weights))
    metrics, values = compute_step(
        network,
        parts,
        optimizer,
        key=key,
        clip_norm=clip_norm,
        balancer=balancer,
        weights=weights or LossConfig(),
        class_weights=class_weights,
        leaving=float(leaving),
        draws=StepDraws(key.seed, key.step),
    )
    return StepReport(metrics, StepStatus.of(values, key))


def seed_dropout(key: StepKey) -> None:
    """Seed torch's global random numbers, from which a step draws dropout, for a step and this rank."""
    torch.manual_seed(stream_key(key.seed, key.step, f"dropout/{distributed.rank()}"))


def compute_step(
    network: nn.Module,
    parts: Sequence[DialogueBatch],
    optimizer: torch.optim.Adam,
    *,
    key: StepKey,
    clip_norm: float,
    balancer: Balancer,
    weights: LossConfig,
    class_weights: Tensor | None,
    leaving: float | Tensor,
    draws: Draws,
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute a step, without a transfer between host and device; return its metrics and its status's values.

    With one part it reads nothing that differs between steps but tensors, so that it can be captured once and replayed.

    Args:
        network: See ``train_step``.
        parts: See ``train_step``.
        optimizer: See ``train_step``.
        key: Seed and step; read only if there are several parts.
        clip_norm: See ``train_step``.
        balancer: The method that balances modalities, after its ``start_step``.
        weights: See ``train_step``.
        class_weights: See ``train_step``.
        leaving: 1 if this rank must leave, else 0; a scalar.
        draws: Draws the noise.
    """
    network.zero_grad(set_to_none=True)
    model, passes = unwrap(network), _Passes(network, parts, balancer, key)
    totals = _sum_over_ranks(passes.totals())
    sums: dict[str, Tensor] = {}
    second: list[Tensor] = []  # the encoders' gradients of ``Balancer.encoder_loss``, if the method has one
    for part in parts:
        with _gradient_sync(network, on=part is parts[-1]):
            prediction = passes.forward(part)
            rows = balancer.row_weights(prediction, part)
            shares = loss_shares(prediction, part, model.average_padding, class_weights, rows)
            extra = {**balancer.extra_losses(prediction, part, totals), **taught(prediction, part, weights)}
            loss = sum((part.own(term) for term in extra.values()), weigh(shares, weights))
            if (other := balancer.encoder_loss(prediction, part, totals)) is not None:
                second = _added(second, _encoder_gradients(part.own(other), optimizer))
            _backward(loss)
        with torch.no_grad():
            statistics = balancer.statistics(prediction, part)
        _add(sums, _measured(prediction, part, shares, loss, {**statistics, **extra}))
    sums["flags"][-1] += leaving
    sums = _sum_over_ranks(sums)
    _blend(balancer, optimizer, second)
    norms = gradient_norms(optimizer)
    scales = balancer.scales({name: sums[name] for name in statistics})
    values = torch.cat([sums["flags"], not_finite(norms.total)[None]])
    broken = (values.sum() - values[-2]) > 0  # all flags but that of leaving
    update(model, optimizer, norms=norms, broken=broken, clip_norm=clip_norm, scales=scales, draws=draws)
    return _metrics(sums, norms) | {name: sums[name] for name in extra} | dict(scales.metrics), values


def _backward(loss: Tensor) -> None:
    # DDP divides by the number of ranks; the shares already sum to the mean over the global batch.
    ranks = distributed.world_size()
    (loss if ranks == 1 else loss * ranks).backward()  # type: ignore[no-untyped-call]


def _metrics(sums: Mapping[str, Tensor], norms: Norms) -> dict[str, Tensor]:
    """Return the metrics that do not depend on the method."""
    metrics = dict(zip(LOSSES, sums["losses"].unbind(), strict=True))
    metrics |= {"loss": sums["loss"], "gate_share": sums["gate_share"] / sums["parts"]}
    return metrics | {"gradient_norm": norms.total, "encoder_gradient_norm": norms.by_encoder}


class _Passes:
    """The forward passes of a step, one for each part; ``totals`` may make that of a single part early."""

    def __init__(self, network: nn.Module, parts: Sequence[DialogueBatch], balancer: Balancer, key: StepKey) -> None:
        self.network, self.parts, self.balancer = network, parts, balancer
        self.key = key
        self.made: list[Prediction] = []

    def totals(self) -> dict[str, Tensor]:
        """Return this rank's sums of ``Balancer.totals``, in double precision."""
        sums: dict[str, Tensor] = {}
        for part in self.parts:
            for name, value in self.balancer.totals(part, partial(self._early, part)).items():
                _add(sums, {name: part.own(value.detach().double())})
        if len(self.parts) > 1:
            seed_dropout(self.key)  # the passes that count draw the same random numbers
        return sums

    def forward(self, part: DialogueBatch) -> Prediction:
        """Return the prediction of a part."""
        if self.made:
            return self.made.pop()
        prediction: Prediction = self.network(part, self.balancer.adapt)
        return prediction

    def _early(self, part: DialogueBatch) -> Prediction:
        if len(self.parts) == 1:
            self.made = [self.forward(part)]
            return self.made[0]
        with torch.no_grad():
            prediction: Prediction = unwrap(self.network)(part, self.balancer.adapt)
        return prediction


def _encoder_gradients(loss: Tensor, optimizer: torch.optim.Adam) -> list[Tensor]:
    """Return the gradients of a loss on all parameters of the encoders; the graph is kept."""
    parameters = [p for group in optimizer.param_groups[:-1] for p in group["params"]]
    return list(torch.autograd.grad(loss, parameters, retain_graph=True))


def _add(sums: dict[str, Tensor], values: Mapping[str, Tensor]) -> None:
    sums.update({name: sums[name] + value if name in sums else value for name, value in values.items()})


def _added(sums: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    return list(torch._foreach_add(sums, gradients)) if sums else gradients


def _blend(balancer: Balancer, optimizer: torch.optim.Adam, second: list[Tensor]) -> None:
    """Sum the second gradients over ranks, in one call, and let the balancer change each encoder's gradients."""
    if not second:
        return
    together = distributed.sum_over_ranks(torch.cat([gradient.reshape(-1) for gradient in second]))
    left = iter(torch.split(together, [gradient.numel() for gradient in second]))
    for group in optimizer.param_groups[:-1]:
        gradients = [p.grad for p in group["params"]]
        balancer.blend(gradients, [next(left).view_as(gradient) for gradient in gradients])


def unwrap(network: nn.Module) -> Ada2I:
    """Return the model inside DDP, or the model itself."""
    model = getattr(network, "module", network)
    assert isinstance(model, Ada2I)
    return model


def loss_shares(
    prediction: Prediction,
    batch: DialogueBatch,
    over_padding: bool,
    class_weights: Tensor | None = None,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Return this rank's shares of ``LOSSES``, unweighted, ``(3,)``; zeros if the batch is not counted."""
    classification = losses.classification_loss(prediction, batch, class_weights, row_weights).share()
    modal = classification  # L_modal: the same for the sum of the votes, on which an MLP may predict
    if prediction.fused is not prediction.logits:
        modal = losses.cross_entropy(prediction.fused, batch, class_weights, row_weights).share()
    feature = losses.feature_loss(prediction, batch, over_padding=over_padding).share()
    return batch.own(torch.stack([classification, modal, feature]))


def taught(prediction: Prediction, batch: DialogueBatch, weights: LossConfig) -> dict[str, Tensor]:
    """Return this rank's share of the weighted loss of teachers, by metric name; empty without teachers."""
    if batch.taught is None or not weights.distillation:
        return {}
    term = losses.distillation_loss(prediction, batch, weights.distillation_temperature)
    return {"distillation_loss": weights.distillation * term.share()}


def weigh(shares: Tensor, weights: LossConfig) -> Tensor:
    """Return the scalar total of the loss terms ``(3,)``."""
    # A term of weight zero is left out, so that it creates no zero gradients.
    terms = zip(shares.unbind(), (weights.classification, weights.modal, weights.feature), strict=True)
    weighted = [share if weight == 1 else weight * share for share, weight in terms if weight]
    return sum(weighted[1:], start=weighted[0]) if weighted else shares.sum() * 0


@torch.no_grad()
def _measured(
    prediction: Prediction, batch: DialogueBatch, shares: Tensor, loss: Tensor, balance: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the values that are summed over the parts of a step and over ranks, by name.

    ``flags`` are ``(W + 1,)``: 1 for each rank whose loss is not finite, and the number of ranks that must leave.
    """
    flags = shares.new_zeros(distributed.world_size() + 1)
    flags[distributed.rank()] = not_finite(loss)
    return {
        "losses": shares.detach(),
        "loss": loss.detach(),
        **{name: batch.own(value.detach()) for name, value in balance.items()},
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
    """Sum over ranks, in one call; there is none if nothing is to be summed."""
    if not sums or distributed.world_size() == 1:
        return dict(sums)
    together = distributed.sum_over_ranks(torch.cat([value.reshape(-1) for value in sums.values()]))
    flat = torch.split(together, [value.numel() for value in sums.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(sums.items(), flat, strict=True)}
