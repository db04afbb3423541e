"""Ada2I assembled: encoders, adaptive feature weighting, adaptive modality weighting (paper, figure 2).

Each stage is a module that ``build`` chooses; ``build`` shows which ones make up the released code and the paper.

Shape letters in this file:
    N utterances     S slots of the padded grid     M modalities     H hidden width     C classes
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ada2i.batch import DialogueBatch, Layout
from ada2i.modalities import Modality
from ada2i.model.afw import Features, FeatureWeighting, Present
from ada2i.model.amw import Fusion
from ada2i.model.encoders import Encoder
from ada2i.model.own import FusionHolder


@dataclass(frozen=True)
class Prediction:
    """The result of a forward pass.

    Attributes:
        logits: ``(N, C)`` of the prediction.
        votes: ``(M, N, C)``; modalities in the model's order.
        fused: ``(N, C)`` weighted sum of the votes; the same as ``logits`` unless an MLP predicts.
        unimodal_logits: ``(M, N, C)``, no gradient: the prediction of each modality alone.
        mapping_gap: ``(S,)`` or ``(N,)`` distance of AFW's mapping network; None in eval mode and without AFW.
        gate_share: ``(M,)`` data-dependent share of AFW's gate; zeros without AFW.
        present: ``(M, N)`` bool: the modalities that each utterance has. None: nothing counts as missing.
        encoded: By modality, the encoder's output: ``(N, H)``, or ``(S, H)`` if AFW runs over the padded grid.
    """

    logits: Tensor
    votes: Tensor
    fused: Tensor
    unimodal_logits: Tensor
    mapping_gap: Tensor | None
    gate_share: Tensor
    present: Tensor | None = None
    encoded: Features = field(default_factory=dict)


# Extends what all encoders read, by modality, before each encodes its own part.
Extend = Callable[[Features, Layout, Tensor, Present], Features]
# From the encoders' outputs, the batch and presence, what AFW and votes read in their place.
Adapt = Callable[[Features, DialogueBatch, Present], tuple[Features, Present]]


class Ada2I(nn.Module):
    """The network. It needs no labels; rows of the output are rows of the batch.

    Args:
        input_norms: The modules that prepare the features, by modality; see ``inputs``.
        encoders: The modules that encode, by modality.
        encode: How each encoder is called, by modality: itself, or wrapped.
        extend: Extends the prepared features of all modalities together, for encoders that read more than them. None:
            each encoder reads its modality's features alone.
        mask_missing: Whether an utterance without a modality counts as missing; else its zeros count like any other
            feature.
        afw: Weights the features.
        fusion: Gives each modality its vote.
        unimodal_votes: Whether each modality's own logits are its vote; else they are from its part of the classifier,
            un-normalised.
        head: Predicts from the weighted sum of the votes.
        signs: For regression, whose logits are one number: the classes of its sign, see ``sign_of``. 0: classification.

    Attributes:
        temperature: By which ``chances`` divides logits; 1 in training, that of its version in a loaded one.
    """

    def __init__(
        self,
        *,
        input_norms: Mapping[Modality, nn.Module],
        encoders: Mapping[Modality, nn.Module],
        encode: Mapping[Modality, Encoder],
        extend: Extend | None,
        mask_missing: bool,
        afw: FeatureWeighting,
        fusion: Fusion | FusionHolder,
        unimodal_votes: bool,
        head: nn.Module,
        signs: int = 0,
    ) -> None:
        super().__init__()
        self.modalities = tuple(encoders)
        self.standardise = nn.ModuleDict(input_norms)  # type: ignore[arg-type]  # mappings are invariant
        self.encoders = nn.ModuleDict(encoders)  # type: ignore[arg-type]
        self.encode = dict(encode)
        self.extend = extend
        self.mask_missing = mask_missing
        self.afw = afw
        self.fusion = fusion
        self.unimodal_votes = unimodal_votes
        self.head = head
        self.signs = signs
        self.temperature = 1.0

    @property
    def average_padding(self) -> bool:
        """Whether AFW's mapping gap runs over the padded grid."""
        return self.afw.on_grid

    @property
    def classes(self) -> int:
        """Number of classes that ``chances`` returns."""
        return self.signs or self.fusion.classes

    def chances(self, logits: Tensor) -> Tensor:
        """Return calibrated probabilities of the classes, ``(N, C)``: see ``chances_of``."""
        return chances_of(logits if self.temperature == 1.0 else logits / self.temperature, self.signs)

    def presence(self, batch: DialogueBatch) -> Present:
        """Return the utterances that count as having each modality."""
        return dict(batch.present) if self.mask_missing else dict.fromkeys(batch.present, batch.real)

    def forward(self, batch: DialogueBatch, adapt: Adapt | None = None) -> Prediction:
        """Predict the emotion of each utterance of a batch; ``adapt`` may change what AFW reads."""
        present = self.presence(batch)
        inputs = {m: self.standardise[m](batch.features[m], batch.present[m]) for m in self.modalities}
        if self.extend is not None:
            inputs = self.extend(inputs, batch.layout, batch.speakers, present)
        encoded = {m: self.encode[m](x, batch.layout, batch.speakers, present[m]) for m, x in inputs.items()}
        features, present = adapt(encoded, batch, present) if adapt else (encoded, present)
        there = stacked_presence(present)
        weighted = self.afw(torch.stack(list(features.values())), batch.layout, there)
        votes, fused = self.fusion.predict(weighted.features, there, batch.layout)
        return Prediction(
            logits=self.head(fused),
            votes=votes,
            fused=fused,
            unimodal_logits=votes.detach() if self.unimodal_votes else self._linear_logits(weighted.features),
            mapping_gap=weighted.mapping_gap,
            gate_share=weighted.gate_share,
            present=there,
            encoded=encoded,
        )

    @torch.no_grad()
    def _linear_logits(self, features: Tensor) -> Tensor:
        assert isinstance(self.fusion, Fusion)  # of another one the votes are read
        return self.fusion.unimodal(features)


def chances_of(logits: Tensor, signs: int) -> Tensor:
    """Return probabilities of the classes; of regression, 1 for the class of the number's sign.

    Args:
        logits: ``(N, C)``, or ``(N, 1)`` of regression.
        signs: Of regression: number of classes. 0: classification.
    """
    if not signs:
        return logits.softmax(dim=-1)
    return F.one_hot(sign_of(logits[:, 0], signs), signs).to(logits.dtype)


_NEUTRAL = 0.1  # as CH-SIMS; published scores are 0 or at least 0.2 from it


def sign_of(values: Tensor, classes: int) -> Tensor:
    """Return the class of numbers ``(N,)`` by their sign.

    Args:
        values: ``(N,)``.
        classes: 2: negative, or not. 3: also neutral, above -0.1 up to 0.1.
    """
    if classes == 2:
        return (values >= 0).long()
    return (values > -_NEUTRAL).long() + (values > _NEUTRAL).long()


def stacked_presence(present: Present) -> Tensor | None:
    """Return which utterances have each modality, ``(M, N)`` bool; None: nothing counts as missing."""
    known = [there for there in present.values() if there is not None]
    return torch.stack(known) if known else None
