"""MMPareto: joint and unimodal gradients of an encoder, combined without conflict (Wei and Hu, ICML 2024).

Shape letters in this file:
    N utterances     M modalities     C classes
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ada2i.balance.unimodal import UnimodalBalancer
from ada2i.balance.votes import encodings, own_votes
from ada2i.batch import DialogueBatch
from ada2i.config import MmParetoBalance
from ada2i.model.ada2i import Prediction


class MmParetoBalancer(UnimodalBalancer):
    """Encoders get both gradients separately; the classifier learns from the sum of the losses. It has no state."""

    config: MmParetoBalance

    def votes(self, prediction: Prediction, batch: DialogueBatch) -> Tensor:
        """See ``UnimodalBalancer``; no gradient reaches the encoders."""
        encoded = {m: x.detach() for m, x in encodings(prediction, batch).items()}
        return own_votes(self.info.model, encoded, batch, train_head=True)

    def encoder_loss(self, prediction: Prediction, batch: DialogueBatch, totals: Mapping[str, Tensor]) -> Tensor | None:
        """See ``Balancer``; a modality's vote depends on its own encoder alone, so one pass serves all encoders."""
        if not self.config.weight:
            return None
        votes = own_votes(self.info.model, encodings(prediction, batch), batch, train_head=False)
        return self.own_loss(votes, batch, totals)

    def blend(self, gradients: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        """See ``Balancer``."""
        joint, own = dot(gradients, gradients), dot(others, others)
        share, factor = pareto(joint, own, dot(gradients, others))
        scale = self.config.alpha * factor
        torch._foreach_mul_(list(gradients), 2 * share * scale)
        torch._foreach_add_(list(gradients), torch._foreach_mul(list(others), 2 * (1 - share) * scale))


def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Return the inner product of two lists of tensors, a scalar."""
    return torch.stack([(x * y).sum() for x, y in zip(left, right, strict=True)]).sum()


def pareto(joint: Tensor, own: Tensor, product: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight of the joint gradient, that of the own one being the rest, and the factor of both, scalars.

    Gradients that do not oppose each other have equal weights; else the sum has minimal norm. The factor, at least 1,
    restores the norm of the plain sum.

    Args:
        joint: Squared norm of the joint gradient.
        own: Squared norm of the own gradient.
        product: Their inner product.
    """
    least = ((own - product) / (joint + own - 2 * product).clamp_min(1e-30)).clamp(0, 1)
    share = torch.where(product >= 0, torch.full_like(least, 0.5), least)
    rest = 1 - share
    combined = 4 * (share.square() * joint + rest.square() * own + 2 * share * rest * product)
    plain = joint + own + 2 * product
    return share, (plain.clamp_min(0) / combined.clamp_min(1e-30)).sqrt().clamp_min(1)
