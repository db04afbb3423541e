"""Adaptive feature weighting (paper, section 3.3): every channel of a modality, weighted by the other modalities.

Shape letters in this file:
    R rows: the N utterances, or the S slots of the padded grid     B dialogues     H hidden width     K rank
    M modalities

All modalities go through one operator at a time: a GPU waits for the operators that the host launches.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.fast.dropout import dropout
from ada2i.modalities import Modality

_QUIET = 0.1  # factor of the attention maps' initial weights

Features = dict[Modality, Tensor]
Present = Mapping[Modality, Tensor | None]  # by modality, (R,) bool; None: nothing is missing
Average = Callable[[Tensor], Tensor]  # for each row of (M, R, K, K), a mean over rows of its dialogue that are present
Averaging = Callable[[Layout, Tensor | None, torch.dtype], Average]  # from presence, (M, R) bool; None: all are


class Weighted(NamedTuple):
    """The result of weighting.

    Attributes:
        features: ``(M, R, H)``.
        mapping_gap: ``(R,)`` distance of the attention mapping network, summed over layers; an absent modality
            adds 0; None in eval mode.
        gate_share: ``(M,)`` share of the last layer's gate, attention plus beta, that depends on the data: the standard
            deviation of its channels over rows that have the modality, relative to their size. Near 0, AFW is a
            constant gate.
    """

    features: Tensor
    mapping_gap: Tensor | None
    gate_share: Tensor


class FeatureWeighting(nn.Module):
    """The stage of the network that weights features; this class leaves them unchanged (an ablation)."""

    on_grid = False  # whether input features and mapping gap have the padded grid's shape

    def forward(self, features: Tensor, layout: Layout, present: Tensor | None) -> Weighted:  # noqa: ARG002
        """Weight the features of all modalities.

        Args:
            features: ``(M, N, H)``, or ``(M, S, H)`` if ``on_grid``.
            layout: The rows of each dialogue.
            present: ``(M, N)`` bool; a mean runs over utterances that have the modality. None: all are present.

        Returns:
            The weighted features ``(M, N, H)``, the mapping gap and the gate's share; see ``Weighted``.
        """
        return Weighted(features, None, features.new_zeros(len(features)))


class AdaptiveFeatureWeighting(FeatureWeighting):
    """A stack of weighting layers.

    Args:
        layers: The layers.
        averaging: See ``DialogueAverage`` and ``CausalAverage``.
    """

    def __init__(self, layers: list["AfwLayer"], averaging: Averaging) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.averaging = averaging

    def forward(self, features: Tensor, layout: Layout, present: Tensor | None) -> Weighted:
        """See ``FeatureWeighting``."""
        average = self.averaging(layout, present, features.dtype)
        gaps, gate = [], features
        for layer in self.layers:
            features, gate, gap = layer(features, average, present)
            gaps.append(gap)
        total = sum(gaps[1:], start=gaps[0]) if self.training else None
        return Weighted(features, total, _gate_share(gate, present))


class GridFeatureWeighting(AdaptiveFeatureWeighting):
    """Weighting over the padded time axis, in which padding counts as utterances (released code)."""

    on_grid = True

    def forward(self, features: Tensor, layout: Layout, present: Tensor | None) -> Weighted:
        """See ``FeatureWeighting``; the mapping gap is ``(S,)``."""
        weighted = super().forward(features, layout.full, present)
        return weighted._replace(features=layout.unpad(weighted.features, dim=1))


class AfwLayer(nn.Module):
    """One weighting layer with its attention mapping network.

    Args:
        modalities: The model's modalities in order.
        hidden_dim: ``H``.
        rank: ``K``.
        beta: Weight of the unweighted feature.
        dropout: Dropout of the weighted features, in training.
        cyclic: Whether Theta is contracted with the other modalities in cyclic order, from the next one on (paper),
            instead of in the model's order (released code).
        key_dim: Theta is divided by its square root. None: it is not scaled.
        normalise: Whether the inputs of q and k and the contracted tensor get a layer norm without parameters.
        learns_attention: Whether the mapping network learns the attention (paper) instead of the weighted feature: the
            released code does so, because a list is shared by mistake.
        mean_gap: Whether the mapping network's distance is the mean over modalities (released code) instead of the sum
            (paper).
    """

    def __init__(
        self,
        *,
        modalities: tuple[Modality, ...],
        hidden_dim: int,
        rank: int,
        beta: float,
        dropout: float,
        cyclic: bool,
        key_dim: int | None,
        normalise: bool,
        learns_attention: bool,
        mean_gap: bool,
    ) -> None:
        super().__init__()
        self.rank = rank
        self.beta = beta
        self.dropout = dropout
        self.scale = 1.0 if key_dim is None else 1.0 / math.sqrt(key_dim)
        self.normalise = normalise
        self.learns_attention = learns_attention
        self.mean_gap = mean_gap
        self.order = contraction_order(len(modalities), cyclic=cyclic)
        self.factors = nn.ModuleDict({m: nn.Linear(hidden_dim, 4 * rank) for m in modalities})  # q1, q2, k1, k2
        self.attention = nn.ModuleDict({m: nn.Linear(rank * rank, hidden_dim) for m in modalities})
        self.mapping = nn.ModuleDict({m: nn.Linear(hidden_dim, hidden_dim) for m in modalities})

    def forward(
        self, features: Tensor, average: Average, present: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Weight features.

        Args:
            features: ``(M, R, H)``.
            average: The means with which Theta is contracted.
            present: ``(M, R)`` bool; an absent modality adds 0 to the gap. None: all are present.

        Returns:
            ``(M, R, H)`` weighted features, after dropout; ``(M, R, H)`` their factors, the gate; and ``(R,)`` distance
            of the mapping network, None in eval mode.
        """
        theta = self._scores(features)
        attention = self._attend(theta, average(theta))
        gate = attention + self.beta
        weighted = gate * features
        gap = self._mapping_gap(features, attention, weighted, present) if self.training else None
        return dropout(weighted, self.dropout, self.training), gate, gap

    def start_quietly(self) -> None:
        """Initialise attention near 0: a gate near ``beta``.

        Attention that is random at the start would multiply every channel by noise, and change the votes' directions.
        """
        for attention in self.attention.values():
            with torch.no_grad():
                attention.weight.mul_(_QUIET)  # type: ignore[operator]
            nn.init.zeros_(attention.bias)  # type: ignore[arg-type]

    def _scores(self, features: Tensor) -> Tensor:
        """Theta: the elementwise product of two Khatri-Rao products, ``(M, R, K, K)``."""
        factors = linear_each(self.factors, self._normalised(features))
        left, right = torch.unflatten(factors, 2, (2, 2, -1)).unbind(3)  # q1 and k1, q2 and k2: (M, R, 2, K) each
        of_q, of_k = (left[..., :, None] * right[..., None, :]).unbind(2)
        theta = of_q * of_k
        return theta if self.scale == 1.0 else theta * self.scale

    def _attend(self, theta: Tensor, means: Tensor) -> Tensor:
        """Att, ``(M, R, H)``: Theta contracted with every other modality's mean, in turn; matrices do not commute."""
        contracted = theta.flatten(0, 1)
        turns = len(self.order) // len(theta)
        for mean in torch.unflatten(
            means.index_select(0, _index(self.order, means.device)), 0, (turns, len(theta))
        ).unbind(0):
            contracted = torch.bmm(contracted, mean.flatten(0, 1))
        return linear_each(self.attention, self._normalised(contracted.view_as(theta).flatten(2)))

    def _mapping_gap(self, features: Tensor, attention: Tensor, weighted: Tensor, present: Tensor | None) -> Tensor:
        target = attention if self.learns_attention else weighted
        gaps = (linear_each(self.mapping, features) - target).abs().mean(-1)  # (M, R)
        gaps = gaps if present is None else gaps * present
        return gaps.mean(0) if self.mean_gap else gaps.sum(0)

    def _normalised(self, x: Tensor) -> Tensor:
        """Return ``(..., D)`` with a layer norm over its last axis, if the layer has one."""
        return F.layer_norm(x, x.shape[-1:]) if self.normalise else x


def contraction_order(modalities: int, *, cyclic: bool) -> tuple[int, ...]:
    """Return the place of the first modality with which each one is contracted, then of the second: (M - 1) * M places.

    Args:
        modalities: ``M``.
        cyclic: See ``AfwLayer``.
    """
    places = range(modalities)
    if cyclic:
        return tuple((place + turn) % modalities for turn in places[1:] for place in places)
    others = [[other for other in places if other != place] for place in places]
    return tuple(own[turn] for turn in places[:-1] for own in others)


@functools.cache
def _index(places: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):  # a gradient may save it
        return torch.tensor(places, dtype=torch.int64, device=device)


class _LinearEach(torch.autograd.Function):
    """One product for the maps of all modalities, whose gradients have the parameters' own layout."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, *parameters: Tensor) -> Tensor:
        weight = torch.stack(parameters[: len(features)])  # (M, H, D)
        bias = torch.stack(parameters[len(features) :])
        ctx.save_for_backward(features, weight)
        return torch.baddbmm(bias[:, None], features, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        of_features = torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None
        of_weights = torch.bmm(gradient.transpose(1, 2), features)
        return of_features, *of_weights.unbind(), *gradient.sum(1).unbind()


def linear_each(maps: nn.ModuleDict, features: Tensor) -> Tensor:
    """Apply each modality's linear map to its ``(M, R, D)`` features."""
    weights = [layer.weight for layer in maps.values()]
    biases = [layer.bias for layer in maps.values()]
    mapped: Tensor = _LinearEach.apply(features, *weights, *biases)  # type: ignore[no-untyped-call]
    return mapped


class DialogueAverage:
    """An ``Average`` over the present rows of each row's dialogue: two products, which are deterministic on a GPU.

    Attributes:
        weights: ``(M or 1, B, R)`` weight of each row in its dialogue's mean.
        rows: ``(R, B)`` one-hot: the dialogue of each row.
        absent: ``(M, B, 1)``, 1 if no row of a dialogue is present; then its mean is the identity. None: nothing is
            missing.
    """

    def __init__(self, layout: Layout, present: Tensor | None, dtype: torch.dtype) -> None:
        self.rows = layout.one_hot.to(dtype)
        self.absent: Tensor | None = None
        if present is None:
            self.weights = (self.rows / layout.lengths_tensor).T[None]
        else:
            weights = self.rows.T * present[:, None]
            counts = weights.sum(2, keepdim=True)
            self.weights, self.absent = weights / counts.clamp_min(1), (counts == 0).to(dtype)

    def __call__(self, theta: Tensor) -> Tensor:
        """See ``Average``."""
        flat, weights = theta.flatten(2), self.weights.expand(len(theta), -1, -1)
        if self.absent is None:
            means = torch.bmm(weights, flat)  # (M, B, K * K)
        else:
            identity = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device).flatten()
            means = torch.baddbmm(self.absent * identity, weights, flat)
        return torch.bmm(self.rows.expand(len(theta), -1, -1), means).view_as(theta)


class CausalAverage:
    """An ``Average`` over the present rows of each row's dialogue up to itself.

    Attributes:
        layout: The rows of each dialogue.
        present: ``(M, R, 1)``, 1 for rows that count. None: all do.
    """

    def __init__(self, layout: Layout, present: Tensor | None, dtype: torch.dtype) -> None:
        self.layout = layout
        self.present = None if present is None else present[..., None].to(dtype)

    def __call__(self, theta: Tensor) -> Tensor:
        """See ``Average``; the identity as long as nothing is present."""
        rows = counted(theta, self.present)
        grid = torch.unflatten(self.layout.pad(rows, dim=1), 1, (-1, self.layout.padded_length))
        # A product instead of a cumulative sum, which is not deterministic on a GPU.
        earlier = torch.ones(grid.shape[2], grid.shape[2], dtype=grid.dtype, device=grid.device).tril()
        return means_of(self.layout.unpad((earlier @ grid).flatten(1, 2), dim=1), theta)


def counted(theta: Tensor, present: Tensor | None) -> Tensor:
    """Return what a running mean sums: ``(M, R, K, K)`` rows that are present and their count, ``(M, R, K * K + 1)``.

    Args:
        theta: ``(M, R, K, K)``.
        present: ``(M, R, 1)``, 1 for rows that count. None: all do.
    """
    flat = theta.flatten(2)
    there = torch.ones_like(flat[..., :1]) if present is None else present
    return torch.cat([flat * there, there], dim=2)


def means_of(sums: Tensor, theta: Tensor) -> Tensor:
    """Return the means of sums of ``counted`` rows, in the shape of theta; the identity where nothing was counted."""
    counts = sums[..., -1:]
    means = (sums[..., :-1] / counts.clamp_min(1)).view_as(theta)
    identity = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device)
    return torch.where(counts[..., None] > 0, means, identity)


@torch.no_grad()
def _gate_share(gate: Tensor, present: Tensor | None) -> Tensor:
    """Return ``Weighted.gate_share`` of ``(M, R, H)`` gates."""
    if present is None:
        spread, size = gate.var(1, correction=0).mean(1), gate.square().mean((1, 2))
    else:
        weights = present.to(gate.dtype)[:, None]  # (M, 1, R)
        mean = torch.bmm(weights, gate) / weights.sum(2, keepdim=True).clamp_min(1)
        spread, size = (torch.bmm(weights, x.square()).sum((1, 2)) for x in (gate - mean, gate))
    return (spread / size.clamp_min(1e-30)).sqrt()
