"""Adaptive feature weighting (paper, section 3.3): every channel of a modality, weighted by what the others show.

Shape letters in this file:
    R rows: the N utterances, or the S slots of the padded grid     B dialogues     H hidden width     K rank
    M modalities
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.fast.dropout import dropout
from ada2i.modalities import Modality

_QUIET = 0.1  # factor of the attention maps' first weights

Features = dict[Modality, Tensor]
Present = Mapping[Modality, Tensor] | None  # by modality, (R,) bool; None: nothing is missing


class Weighted(NamedTuple):
    """What weighting returns.

    Attributes:
        features: By modality, ``(R, H)``.
        mapping_gap: ``(R,)`` distance of the attention mapping network, summed over layers; None in eval mode.
        gate_share: ``(M,)`` share of the last layer's gate, attention plus beta, that depends on the data: the
            deviation of its channels over rows, relative to their size. Near 0, AFW is a fixed gate.
    """

    features: Features
    mapping_gap: Tensor | None
    gate_share: Tensor


class AdaptiveFeatureWeighting(nn.Module):
    """A stack of weighting layers."""

    def __init__(self, layers: list["AfwLayer"]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, features: Features, layout: Layout, present: Present = None) -> Weighted:
        """Weight the features of all modalities.

        Args:
            features: By modality, ``(R, H)``.
            layout: Which rows belong to which dialogue.
            present: By modality, ``(R,)`` bool; a mean runs over what is there.
        """
        weighted = Weighted(features, None, torch.zeros(len(features)))
        for layer in self.layers:
            last: Weighted = layer(weighted.features, layout, present)
            gap = last.mapping_gap
            if gap is not None and weighted.mapping_gap is not None:
                gap = gap + weighted.mapping_gap
            weighted = last._replace(mapping_gap=gap)
        return weighted


class AfwLayer(nn.Module):
    """One weighting layer with its attention mapping network."""

    def __init__(
        self,
        *,
        modalities: tuple[Modality, ...],
        hidden_dim: int,
        rank: int,
        beta: float,
        dropout: float,
        key_dim: int | None = None,
        normalise: bool = False,
        quiet_start: bool = False,
        cyclic: bool = False,
        map_attention: bool = False,
        mean_over_modalities: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.beta = beta
        self.dropout = dropout
        self.scale = 1.0 if key_dim is None else 1.0 / math.sqrt(key_dim)
        self.normalise = normalise
        self.cyclic = cyclic
        self.map_attention = map_attention
        self.mean_over_modalities = mean_over_modalities
        self.causal = causal
        self.factors = nn.ModuleDict({m: nn.Linear(hidden_dim, 4 * rank) for m in modalities})  # q1, q2, k1, k2
        self.attention = nn.ModuleDict({m: nn.Linear(rank * rank, hidden_dim) for m in modalities})
        self.mapping = nn.ModuleDict({m: nn.Linear(hidden_dim, hidden_dim) for m in modalities})
        if quiet_start:
            self._quieten()

    def forward(self, features: Features, layout: Layout, present: Present) -> Weighted:
        """See ``AdaptiveFeatureWeighting.forward``."""
        scores = {m: self._scores(m, x) for m, x in features.items()}
        means = {m: self._mean(m, theta, layout, present) for m, theta in scores.items()}
        attention = {m: self._attend(m, scores[m], means) for m in features}
        weighted = {m: attention[m] * x + self.beta * x for m, x in features.items()}
        gap = self._mapping_gap(features, attention if self.map_attention else weighted) if self.training else None
        dropped = {m: dropout(x, self.dropout, self.training) for m, x in weighted.items()}
        return Weighted(dropped, gap, torch.stack([_gate_share(a + self.beta) for a in attention.values()]))

    def _quieten(self) -> None:
        # Attention that is random at the start multiplies every channel by noise, and the votes' directions with it.
        for attention in self.attention.values():
            with torch.no_grad():
                attention.weight.mul_(_QUIET)  # type: ignore[operator]
            nn.init.zeros_(attention.bias)  # type: ignore[arg-type]

    def _scores(self, modality: Modality, x: Tensor) -> Tensor:
        """Theta: the elementwise product of two Khatri-Rao products, ``(R, K, K)``."""
        if self.normalise:
            x = F.layer_norm(x, x.shape[-1:])
        q1, q2, k1, k2 = self.factors[modality](x).chunk(4, dim=-1)
        theta = (q1[:, :, None] * q2[:, None, :]) * (k1[:, :, None] * k2[:, None, :])
        return theta if self.scale == 1.0 else theta * self.scale  # type: ignore[no-any-return]

    def _mean(self, modality: Modality, theta: Tensor, layout: Layout, present: Present) -> Tensor:
        """A_m for each row, ``(R, K, K)``; the identity where the dialogue has nothing of the modality."""
        if present is None:
            return dialogue_mean(theta.flatten(1), layout, causal=self.causal).view_as(theta)
        there = present[modality].to(theta.dtype)[:, None]
        sums = dialogue_mean(torch.cat([theta.flatten(1) * there, there], dim=1), layout, causal=self.causal)
        share = sums[:, -1:]
        mean = (sums[:, :-1] / share.clamp_min(1e-12)).view_as(theta)
        identity = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device)
        return torch.where(share[:, :, None] > 0, mean, identity)

    def _attend(self, modality: Modality, theta: Tensor, means: Mapping[Modality, Tensor]) -> Tensor:
        """Att_m, ``(R, H)``: Theta contracted with every other modality's mean, in turn; matrices do not commute."""
        contracted = theta
        for other in self._others(modality, tuple(means)):
            contracted = contracted @ means[other]
        flat = contracted.flatten(1)
        if self.normalise:
            flat = F.layer_norm(flat, flat.shape[-1:])
        return self.attention[modality](flat)  # type: ignore[no-any-return]

    def _others(self, modality: Modality, modalities: tuple[Modality, ...]) -> Iterator[Modality]:
        start = modalities.index(modality) if self.cyclic else 0
        around = (*modalities[start:], *modalities[:start])
        return (other for other in around if other != modality)

    def _mapping_gap(self, features: Features, targets: Features) -> Tensor:
        # The released code takes the weighted feature for the target, by a list shared by mistake.
        gaps = [(self.mapping[m](x) - targets[m]).abs().mean(dim=-1) for m, x in features.items()]
        total: Tensor = sum(gaps[1:], start=gaps[0])
        return total / len(gaps) if self.mean_over_modalities else total


def dialogue_mean(rows: Tensor, layout: Layout, *, causal: bool = False) -> Tensor:
    """Return for each row the mean over its dialogue, ``(R, ...)``; causal: over what came so far, itself included."""
    if causal:
        grid = layout.pad(rows).view(len(layout.lengths), layout.padded_length, -1)
        steps = torch.arange(1, layout.padded_length + 1, device=rows.device, dtype=rows.dtype)
        return layout.unpad((grid.cumsum(dim=1) / steps[:, None]).flatten(0, 1))
    # Two products with the row-to-dialogue matrix, which are deterministic on a GPU.
    one_hot = layout.one_hot.to(rows.dtype)
    return one_hot @ ((one_hot.T @ rows) / layout.lengths_tensor[:, None])  # (B, ...) in between


def _gate_share(gate: Tensor) -> Tensor:
    with torch.no_grad():
        moving = gate - gate.mean(dim=0)
        return (moving.square().mean() / gate.square().mean().clamp_min(1e-30)).sqrt()
