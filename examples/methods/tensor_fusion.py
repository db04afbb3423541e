"""Tensor fusion network (Zadeh et al., EMNLP 2017): the outer product of all modalities, each extended by a 1.

    ada2i train FEATURES --set model.fusion=examples.methods.tensor_fusion:TensorFusion

A missing modality is the vector (0, ..., 0, 1), so the products of the others remain.

Shape letters in this file:
    N utterances     M modalities     H hidden width     K size of a modality in the product     C classes
"""

import torch
from torch import Tensor, nn

from ada2i.batch import Layout


class TensorFusion(nn.Module):
    """Predicts from all products of one number per modality, from those of fewer modalities, and from single numbers.

    Args:
        modalities: The modalities.
        hidden_dim: H.
        classes: C.
        dropout: Of the product.
        size: K; the product has ``(K + 1) ** M`` numbers.
    """

    def __init__(
        self, modalities: tuple[str, ...], hidden_dim: int, classes: int, dropout: float = 0.2, size: int = 8
    ) -> None:
        super().__init__()
        self.reduce = nn.ModuleDict({m: nn.Linear(hidden_dim, size) for m in modalities})
        self.predict = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear((size + 1) ** len(modalities), hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, classes),
        )

    def forward(
        self,
        encoded: dict[str, Tensor],
        present: dict[str, Tensor],
        layout: Layout,  # noqa: ARG002
    ) -> Tensor:
        """Return logits ``(N, C)`` from encodings ``(N, H)``."""
        product = next(iter(encoded.values())).new_ones(len(next(iter(encoded.values()))), 1)
        for m, x in encoded.items():
            small = torch.relu(self.reduce[m](x)) * present[m][:, None]
            extended = torch.cat([small, torch.ones_like(small[:, :1])], dim=1)  # (N, K + 1)
            product = (product[:, :, None] * extended[:, None, :]).flatten(1)
        logits: Tensor = self.predict(product)
        return logits
