"""Adaptive feature weighting (paper, section 3.3): every channel of a modality, weighted by what the others show.

Shape letters in this file:
    R rows: the N utterances, or the S slots of the padded grid     B dialogues     H hidden width     K rank
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.modalities import Modality

Features = dict[Modality, Tensor]


class AdaptiveFeatureWeighting(nn.Module):
    """A stack of weighting layers."""

    def __init__(
        self, *, modalities: tuple[Modality, ...], hidden_dim: int, rank: int, beta: float, layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            AfwLayer(modalities=modalities, hidden_dim=hidden_dim, rank=rank, beta=beta, dropout=dropout)
            for _ in range(layers)
        )

    def forward(self, features: Features, layout: Layout) -> tuple[Features, Tensor | None]:
        """Weight the features of all modalities.

        Args:
            features: By modality, ``(R, H)``.
            layout: Which rows belong to which dialogue.

        Returns:
            weighted: By modality, ``(R, H)``.
            mapping_gap: ``(R,)`` distance of the attention mapping network, summed over layers; None in eval mode.
        """
        total: Tensor | None = None
        for layer in self.layers:
            features, gap = layer(features, layout)
            if gap is not None:
                total = gap if total is None else total + gap
        return features, total


class AfwLayer(nn.Module):
    """One weighting layer with its attention mapping network."""

    def __init__(
        self, *, modalities: tuple[Modality, ...], hidden_dim: int, rank: int, beta: float, dropout: float
    ) -> None:
        super().__init__()
        self.rank = rank
        self.beta = beta
        self.dropout = dropout
        self.factors = nn.ModuleDict({m: nn.Linear(hidden_dim, 4 * rank) for m in modalities})  # q1, q2, k1, k2
        self.attention = nn.ModuleDict({m: nn.Linear(rank * rank, hidden_dim) for m in modalities})
        self.mapping = nn.ModuleDict({m: nn.Linear(hidden_dim, hidden_dim) for m in modalities})

    def forward(self, features: Features, layout: Layout) -> tuple[Features, Tensor | None]:
        """See ``AdaptiveFeatureWeighting.forward``."""
        scores = {m: self._scores(m, x) for m, x in features.items()}
        means = {m: dialogue_mean(theta.flatten(1), layout).view_as(theta) for m, theta in scores.items()}
        weighted = {m: self._weigh(m, x, scores[m], means) for m, x in features.items()}
        gap = self._mapping_gap(features, weighted) if self.training else None
        return {m: F.dropout(x, self.dropout, self.training) for m, x in weighted.items()}, gap

    def _scores(self, modality: Modality, x: Tensor) -> Tensor:
        """Theta: the elementwise product of two Khatri-Rao products, ``(R, K, K)``."""
        q1, q2, k1, k2 = self.factors[modality](x).chunk(4, dim=-1)
        return (q1[:, :, None] * q2[:, None, :]) * (k1[:, :, None] * k2[:, None, :])  # type: ignore[no-any-return]

    def _weigh(self, modality: Modality, x: Tensor, theta: Tensor, means: Mapping[Modality, Tensor]) -> Tensor:
        contracted = theta
        for other, mean in means.items():  # in the order of the modalities: matrices do not commute
            if other != modality:
                contracted = contracted @ mean
        attention = self.attention[modality](contracted.flatten(1))  # (R, H)
        return attention * x + self.beta * x  # type: ignore[no-any-return]

    def _mapping_gap(self, features: Features, weighted: Features) -> Tensor:
        # The released code compares with the weighted feature, not with the attention: a list shared by mistake.
        gaps = [(self.mapping[m](x) - weighted[m]).abs().mean(dim=-1) for m, x in features.items()]
        total: Tensor = sum(gaps[1:], start=gaps[0])
        return total / len(gaps)


def dialogue_mean(rows: Tensor, layout: Layout) -> Tensor:
    """Return for each row the mean over its dialogue, ``(R, ...)``: two products with the row-to-dialogue matrix."""
    one_hot = layout.one_hot.to(rows.dtype)
    means = (one_hot.T @ rows) / layout.lengths_tensor[:, None]  # (B, ...)
    return one_hot @ means
