"""Ada2I assembled: encoders, adaptive feature weighting, adaptive modality weighting (paper, figure 2).

Shape letters in this file:
    N utterances     S slots of the padded grid     M modalities     H hidden width     C classes
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ada2i.batch import DialogueBatch, Layout
from ada2i.modalities import Modality
from ada2i.model.afw import AdaptiveFeatureWeighting
from ada2i.model.amw import Fusion
from ada2i.model.encoders import LstmEncoder, TransformerEncoder


@dataclass(frozen=True)
class Prediction:
    """What a forward pass returns.

    Attributes:
        logits: ``(N, C)`` fused logits.
        unimodal_logits: ``(M, N, C)``, no gradient; modalities in the model's order.
        mapping_gap: ``(S,)`` or ``(N,)`` distance of AFW's mapping network; None in eval mode and without AFW.
    """

    logits: Tensor
    unimodal_logits: Tensor
    mapping_gap: Tensor | None


class Ada2I(nn.Module):
    """The network. It needs no labels; rows of the output are rows of the batch."""

    def __init__(
        self,
        *,
        encoders: dict[Modality, TransformerEncoder | LstmEncoder],
        afw: AdaptiveFeatureWeighting | None,
        fusion: Fusion,
        average_padding: bool,
    ) -> None:
        super().__init__()
        self.modalities = tuple(encoders)
        self.encoders = nn.ModuleDict(dict(encoders.items()))
        self.afw = afw
        self.fusion = fusion
        self.average_padding = average_padding

    def forward(self, batch: DialogueBatch) -> Prediction:
        """Predict the emotion of each utterance of a batch."""
        features = {m: self._encode(m, batch) for m in self.modalities}
        gap = None
        if self.afw is not None:
            layout = batch.layout.full if self.average_padding else batch.layout
            features, gap = self.afw(features, layout)
        if self.average_padding:
            features = {m: batch.layout.unpad(x) for m, x in features.items()}
        with torch.no_grad():
            unimodal = self.fusion.unimodal(features)
        return Prediction(self.fusion(features), unimodal, gap)

    def _encode(self, modality: Modality, batch: DialogueBatch) -> Tensor:
        """Return ``(S, H)`` where AFW averages over padding, else ``(N, H)``."""
        encoder = self.encoders[modality]
        encoded: Tensor = encoder(batch.features[modality], batch.layout)
        return _between(encoded, batch.layout, padded=bool(encoder.attend_to_padding), wanted=self.average_padding)


def _between(rows: Tensor, layout: Layout, *, padded: bool, wanted: bool) -> Tensor:
    if padded == wanted:
        return rows
    return layout.pad(rows) if wanted else layout.unpad(rows)
