"""DGL: disentangled gradients of encoders and fusion (ICCV 2025, arXiv 2507.10213).

Shape letters in this file:
    N utterances     M modalities     C classes
"""

from torch import Tensor

from ada2i.balance.unimodal import UnimodalBalancer
from ada2i.balance.votes import encodings, own_votes
from ada2i.batch import DialogueBatch
from ada2i.config import DglBalance
from ada2i.model.ada2i import Prediction
from ada2i.model.afw import Features, Present


class DglBalancer(UnimodalBalancer):
    """Encoders learn from votes of their own outputs by the classifier, which gets no gradient from these votes."""

    config: DglBalance

    def adapt(self, encoded: Features, batch: DialogueBatch, present: Present) -> tuple[Features, Present]:
        """See ``Balancer``."""
        return {m: _with_gradient(x, self.config.joint) for m, x in encoded.items()}, present

    def votes(self, prediction: Prediction, batch: DialogueBatch) -> Tensor:
        """See ``UnimodalBalancer``."""
        return own_votes(self.info.model, encodings(prediction, batch), batch, train_head=False)


def _with_gradient(x: Tensor, factor: float) -> Tensor:
    """Return ``x``, whose gradient is multiplied by a factor in 0..1."""
    if factor == 1.0:
        return x
    held = x.detach()
    return held + factor * (x - held) if factor else held
