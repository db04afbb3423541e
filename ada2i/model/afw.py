"""Adaptive feature weighting (paper, section 3.3): every channel of a modality, weighted by the other modalities.

Shape letters in this file:
    R rows: the N utterances, or the S slots of the padded grid     B dialogues     H hidden width     K rank
    M modalities
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.fast.dropout import dropout
from ada2i.modalities import Modality

_QUIET = 0.1  # factor of the attention maps' first weights

Features = dict[Modality, Tensor]
Present = Mapping[Modality, Tensor | None]  # by modality, (R,) bool; None: nothing is missing
Others = Mapping[Modality, tuple[Modality, ...]]  # by modality, the others in the order in which they are contracted
Mean = Callable[[Tensor, Layout], Tensor]  # for each row of (R, ...), a mean over its dialogue


class Weighted(NamedTuple):
    """The result of weighting.

    Attributes:
        features: By modality, ``(R, H)``.
        mapping_gap: ``(R,)`` distance of the attention mapping network, summed over layers; 0 for a modality where it
            is absent; None in eval mode.
        gate_share: ``(M,)`` share of the last layer's gate, attention plus beta, that depends on the data: the standard
            deviation of its channels over rows that have the modality, relative to their size. Near 0, AFW is a
            constant gate.
    """

    features: Features
    mapping_gap: Tensor | None
    gate_share: Tensor


class FeatureWeighting(nn.Module):
    """The stage of the network that weights features; this class leaves them unchanged (an ablation)."""

    on_grid = False  # whether input features and mapping gap have the padded grid's shape

    def forward(self, features: Features, layout: Layout, present: Present) -> Weighted:  # noqa: ARG002
        """Weight the features of all modalities.

        Args:
            features: By modality, ``(N, H)``, or ``(S, H)`` if ``on_grid``.
            layout: The rows of each dialogue.
            present: By modality, ``(N,)`` bool; a mean runs over utterances that have it.

        Returns:
            Features ``(N, H)``.
        """
        return Weighted(features, None, next(iter(features.values())).new_zeros(len(features)))


class AdaptiveFeatureWeighting(FeatureWeighting):
    """A stack of weighting layers."""

    def __init__(self, layers: list["AfwLayer"]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, features: Features, layout: Layout, present: Present) -> Weighted:
        """See ``FeatureWeighting``."""
        gaps, weighted = [], Weighted(features, None, torch.empty(0))
        for layer in self.layers:
            weighted = layer(weighted.features, layout, present)
            gaps.append(weighted.mapping_gap)
        return weighted._replace(mapping_gap=sum(gaps[1:], start=gaps[0]) if self.training else None)


class GridFeatureWeighting(AdaptiveFeatureWeighting):
    """Weighting over the padded time axis, in which padding counts as utterances (released code)."""

    on_grid = True

    def forward(self, features: Features, layout: Layout, present: Present) -> Weighted:
        """See ``FeatureWeighting``; the mapping gap is ``(S,)``."""
        weighted = super().forward(features, layout.full, present)
        return weighted._replace(features={m: layout.unpad(x) for m, x in weighted.features.items()})


class AfwLayer(nn.Module):
    """One weighting layer with its attention mapping network.

    Args:
        modalities: The model's modalities in order.
        hidden_dim: ``H``.
        rank: ``K``.
        beta: Weight of the unweighted feature.
        dropout: Dropout of the weighted features, in training.
        others: See ``listed`` and ``cyclic``.
        mean: See ``dialogue_mean`` and ``causal_mean``.
        key_dim: Theta is divided by its square root. None: it is not scaled.
        normalise: Applied to the inputs of q and k and to the contracted tensor.
        gap: How the mapping network's distance is computed.
    """

    def __init__(
        self,
        *,
        modalities: tuple[Modality, ...],
        hidden_dim: int,
        rank: int,
        beta: float,
        dropout: float,
        others: Others,
        mean: Mean,
        key_dim: int | None,
        normalise: Callable[[Tensor], Tensor],
        gap: "Gap",
    ) -> None:
        super().__init__()
        self.beta = beta
        self.dropout = dropout
        self.others = others
        self.mean = mean
        self.scale = 1.0 if key_dim is None else 1.0 / math.sqrt(key_dim)
        self.normalise = normalise
        self.gap = gap
        self.factors = nn.ModuleDict({m: nn.Linear(hidden_dim, 4 * rank) for m in modalities})  # q1, q2, k1, k2
        self.attention = nn.ModuleDict({m: nn.Linear(rank * rank, hidden_dim) for m in modalities})
        self.mapping = nn.ModuleDict({m: nn.Linear(hidden_dim, hidden_dim) for m in modalities})

    def forward(self, features: Features, layout: Layout, present: Present) -> Weighted:
        """Weight ``(R, H)`` features by modality; see ``FeatureWeighting``."""
        scores = {m: self._scores(m, x) for m, x in features.items()}
        means = {m: present_mean(theta, layout, present[m], self.mean) for m, theta in scores.items()}
        attention = {m: self._attend(m, scores[m], means) for m in features}
        weighted = {m: attention[m] * x + self.beta * x for m, x in features.items()}
        gap = self._mapping_gap(features, attention, weighted, present) if self.training else None
        dropped = {m: dropout(x, self.dropout, self.training) for m, x in weighted.items()}
        shares = [_gate_share(a + self.beta, present[m]) for m, a in attention.items()]
        return Weighted(dropped, gap, torch.stack(shares))

    def start_quietly(self) -> None:
        """Initialise attention near 0: a gate near ``beta``.

        Attention that is random at the start would multiply every channel by noise, and change the votes' directions.
        """
        for attention in self.attention.values():
            with torch.no_grad():
                attention.weight.mul_(_QUIET)  # type: ignore[operator]
            nn.init.zeros_(attention.bias)  # type: ignore[arg-type]

    def _scores(self, modality: Modality, x: Tensor) -> Tensor:
        """Theta: the elementwise product of two Khatri-Rao products, ``(R, K, K)``."""
        q1, q2, k1, k2 = self.factors[modality](self.normalise(x)).chunk(4, dim=-1)
        theta = (q1[:, :, None] * q2[:, None, :]) * (k1[:, :, None] * k2[:, None, :])
        return theta if self.scale == 1.0 else theta * self.scale  # type: ignore[no-any-return]

    def _attend(self, modality: Modality, theta: Tensor, means: Mapping[Modality, Tensor]) -> Tensor:
        """Att_m, ``(R, H)``: Theta contracted with every other modality's mean, in turn; matrices do not commute."""
        contracted = theta
        for other in self.others[modality]:
            contracted = contracted @ means[other]
        return self.attention[modality](self.normalise(contracted.flatten(1)))  # type: ignore[no-any-return]

    def _mapping_gap(self, features: Features, attention: Features, weighted: Features, present: Present) -> Tensor:
        targets = self.gap.target(attention, weighted)
        gaps = {m: (self.mapping[m](x) - targets[m]).abs().mean(-1) for m, x in features.items()}
        return self.gap.over_modalities([gap if present[m] is None else gap * present[m] for m, gap in gaps.items()])


class Gap(NamedTuple):
    """How the distance of the mapping network is computed.

    Attributes:
        target: Chooses the target, from attention and weighted features.
        over_modalities: Combines the distances of all modalities, ``(R,)`` each.
    """

    target: Callable[[Features, Features], Features]
    over_modalities: Callable[[list[Tensor]], Tensor]


def attention_target(attention: Features, weighted: Features) -> Features:  # noqa: ARG001
    """Learn the attention (paper)."""
    return attention


def weighted_target(attention: Features, weighted: Features) -> Features:  # noqa: ARG001
    """Learn the weighted feature: the released code does so, because a list is shared by mistake."""
    return weighted


def gap_sum(gaps: list[Tensor]) -> Tensor:
    """Return the sum over modalities (paper)."""
    return sum(gaps[1:], start=gaps[0])


def gap_mean(gaps: list[Tensor]) -> Tensor:
    """Return the mean over modalities (released code)."""
    return gap_sum(gaps) / len(gaps)


def listed(modalities: tuple[Modality, ...]) -> Others:
    """Return the other modalities in the model's order (released code)."""
    return {m: tuple(other for other in modalities if other != m) for m in modalities}


def cyclic(modalities: tuple[Modality, ...]) -> Others:
    """Return the other modalities in cyclic order, starting with the next one (paper)."""
    return {m: (*modalities[i + 1 :], *modalities[:i]) for i, m in enumerate(modalities)}


def unchanged(x: Tensor) -> Tensor:
    """Return ``x``."""
    return x


def layer_norm(x: Tensor) -> Tensor:
    """Normalise ``(R, ...)`` over its last axis, without parameters."""
    return F.layer_norm(x, x.shape[-1:])


def dialogue_mean(rows: Tensor, layout: Layout) -> Tensor:
    """Return for each row the mean over its dialogue, ``(R, ...)``."""
    # Two products with the row-to-dialogue matrix, which are deterministic on a GPU.
    one_hot = layout.one_hot.to(rows.dtype)
    return one_hot @ ((one_hot.T @ rows) / layout.lengths_tensor[:, None])  # (B, ...) in between


def causal_mean(rows: Tensor, layout: Layout) -> Tensor:
    """Return for each row the mean over its dialogue up to itself, ``(R, ...)``."""
    grid = layout.pad(rows).view(len(layout.lengths), layout.padded_length, -1)
    steps = torch.arange(1, layout.padded_length + 1, device=rows.device, dtype=rows.dtype)
    return layout.unpad((grid.cumsum(dim=1) / steps[:, None]).flatten(0, 1))


def present_mean(theta: Tensor, layout: Layout, present: Tensor | None, mean: Mean) -> Tensor:
    """Return A_m for each row, ``(R, K, K)``; the identity if no utterance in the mean has the modality."""
    if present is None:
        return mean(theta.flatten(1), layout).view_as(theta)
    there = present.to(theta.dtype)[:, None]
    sums = mean(torch.cat([theta.flatten(1) * there, there], dim=1), layout)
    share = sums[:, -1:]
    found = (sums[:, :-1] / share.clamp_min(1e-12)).view_as(theta)
    identity = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device)
    return torch.where(share[:, :, None] > 0, found, identity)


def _gate_share(gate: Tensor, present: Tensor | None) -> Tensor:
    with torch.no_grad():
        if present is None:
            moving = gate - gate.mean(dim=0)
            return (moving.square().mean() / gate.square().mean().clamp_min(1e-30)).sqrt()
        rows = present.to(gate.dtype)[:, None]
        moving = (gate - (gate * rows).sum(dim=0) / rows.sum().clamp_min(1)) * rows
        return (moving.square().sum() / (gate * rows).square().sum().clamp_min(1e-30)).sqrt()
