"""Ada2I assembled: encoders, adaptive feature weighting, adaptive modality weighting (paper, figure 2).

Shape letters in this file:
    N utterances     S slots of the padded grid     M modalities     H hidden width     C classes     B dialogues
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import DialogueBatch, Layout
from ada2i.modalities import Modality
from ada2i.model.afw import AdaptiveFeatureWeighting, Weighted
from ada2i.model.amw import Fusion
from ada2i.model.context import ContextEncoder
from ada2i.model.encoders import LstmEncoder, TransformerEncoder
from ada2i.model.standardise import Standardise, standardise_by_speaker


@dataclass(frozen=True)
class Prediction:
    """What a forward pass returns.

    Attributes:
        logits: ``(N, C)`` of the prediction.
        votes: ``(M, N, C)``; modalities in the model's order.
        fused: ``(N, C)`` weighted sum of the votes; the same as ``logits`` unless an MLP predicts.
        unimodal_logits: ``(M, N, C)``, no gradient: what each modality says alone.
        mapping_gap: ``(S,)`` or ``(N,)`` distance of AFW's mapping network; None in eval mode and without AFW.
        gate_share: ``(M,)`` data-dependent share of AFW's gate; zeros without AFW.
    """

    logits: Tensor
    votes: Tensor
    fused: Tensor
    unimodal_logits: Tensor
    mapping_gap: Tensor | None
    gate_share: Tensor


class Ada2I(nn.Module):
    """The network. It needs no labels; rows of the output are rows of the batch."""

    def __init__(
        self,
        *,
        encoders: Mapping[Modality, TransformerEncoder | ContextEncoder | LstmEncoder],
        afw: AdaptiveFeatureWeighting | None,
        fusion: Fusion,
        average_padding: bool,
        head: nn.Module | None = None,
        standardise: Mapping[Modality, Standardise] | None = None,
        by_speaker: bool = False,
        mask_missing: bool = False,
        modality_dropout: float = 0.0,
        ratio_from_votes: bool = False,
        encode_in_bfloat16: bool = False,
    ) -> None:
        super().__init__()
        self.modalities = tuple(encoders)
        self.standardise = nn.ModuleDict(standardise or {})  # type: ignore[arg-type]  # mappings are invariant
        self.encoders = nn.ModuleDict(encoders)  # type: ignore[arg-type]
        self.afw = afw
        self.fusion = fusion
        self.head = head
        self.by_speaker = by_speaker
        self.average_padding = average_padding
        self.mask_missing = mask_missing
        self.modality_dropout = modality_dropout
        self.ratio_from_votes = ratio_from_votes
        self.encode_in_bfloat16 = encode_in_bfloat16

    def forward(self, batch: DialogueBatch) -> Prediction:
        """Predict the emotion of each utterance of a batch."""
        present = self._present(batch) if self.mask_missing else None
        features = {m: self._encode(m, batch, present) for m in self.modalities}
        layout = batch.layout.full if self.average_padding else batch.layout
        weighted = Weighted(features, None, batch.labels.new_zeros(len(features), dtype=torch.float32))
        if self.afw is not None:
            weighted = self.afw(features, layout, present)
        features = weighted.features
        if self.average_padding:
            features = {m: batch.layout.unpad(x) for m, x in features.items()}
        votes = self.fusion(features, present)
        fused = self.fusion.fuse(votes)
        with torch.no_grad():
            alone = votes.detach() if self.ratio_from_votes else self.fusion.unimodal(features)
        logits = fused if self.head is None else self.head(fused)
        return Prediction(logits, votes, fused, alone, weighted.mapping_gap, weighted.gate_share)

    def _encode(self, modality: Modality, batch: DialogueBatch, present: Mapping[Modality, Tensor] | None) -> Tensor:
        """Return ``(S, H)`` where AFW averages over padding, else ``(N, H)``."""
        features = batch.features[modality]
        there = batch.present[modality] if present is None else present[modality]
        if self.standardise:
            features = self.standardise[modality](features, there)
            if self.by_speaker:
                features = standardise_by_speaker(features, there, batch.layout, batch.speakers)
        elif present is not None:
            features = features * there[:, None]
        encoder = self.encoders[modality]
        attended = None if present is None else there
        if self.encode_in_bfloat16:
            encoded = _in_bfloat16(encoder, features, batch, attended)
        else:
            encoded = encoder(features, batch.layout, batch.speakers, attended)
        return _between(encoded, batch.layout, padded=bool(encoder.attend_to_padding), wanted=self.average_padding)

    def _present(self, batch: DialogueBatch) -> dict[Modality, Tensor]:
        """Return what is there, by modality ``(N,)`` bool; in training some dialogues lose modalities, never all."""
        present = {m: batch.present[m] for m in self.modalities}
        if not (self.training and self.modality_dropout):
            return present
        shape = (len(batch.layout.lengths), len(self.modalities))
        keep = torch.rand(shape, device=batch.labels.device) >= self.modality_dropout  # (B, M)
        spared = torch.randint(shape[1], shape[:1], device=keep.device)
        keep = keep | nn.functional.one_hot(spared, shape[1]).bool()
        rows = keep[batch.layout.dialogue]  # (N, M)
        return {m: present[m] & rows[:, i] for i, m in enumerate(self.modalities)}


def _in_bfloat16(encoder: nn.Module, features: Tensor, batch: DialogueBatch, present: Tensor | None) -> Tensor:
    """Encode in bfloat16, into float32.

    The encoders hold nearly all the work; weighting and votes, whose small differences count, stay in float32.
    """
    even = features.device.type == "cpu" and not encoder.attend_to_padding
    layout = batch.layout.rounded if even else batch.layout
    extra = sum(layout.lengths) - len(features)
    speakers = F.pad(batch.speakers, (0, extra))
    present = None if present is None else F.pad(present, (0, extra))
    with torch.autocast(features.device.type, torch.bfloat16):
        encoded: Tensor = encoder(F.pad(features, (0, 0, 0, extra)), layout, speakers, present)
    return encoded[: len(encoded) - extra].float()


def _between(rows: Tensor, layout: Layout, *, padded: bool, wanted: bool) -> Tensor:
    if padded == wanted:
        return rows
    return layout.pad(rows) if wanted else layout.unpad(rows)
