"""Label smoothing and supervised contrast, as balance methods: each adds a term to the loss of the chosen weights.

    ada2i train FEATURES --set balance.method=examples.methods.losses:LabelSmoothing --set balance.options.smoothing=0.1
    ada2i train FEATURES --set balance.method=examples.methods.losses:SupervisedContrast

Both keep the cross-entropies of the modalities' votes that the default has (``unimodal``). All means run over the
utterances of all ranks.

Shape letters in this file:
    N utterances     M modalities     C classes     H hidden width
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ada2i.balance.none import NoBalancer
from ada2i.balance.votes import encodings, entropies, voters
from ada2i.batch import DialogueBatch
from ada2i.config import BalanceConfig
from ada2i.model.ada2i import Prediction


class UnimodalLosses(NoBalancer):
    """The mean cross-entropy of each modality's vote, times ``unimodal``, and a further term.

    Attributes:
        name: The metric of the further term.
    """

    name: str

    def __init__(self, config: BalanceConfig, unimodal: float = 0.5) -> None:
        super().__init__(config)
        self.unimodal = unimodal

    def totals(self, batch: DialogueBatch, forward: Callable[[], Prediction]) -> dict[str, Tensor]:  # noqa: ARG002
        """See ``Balancer``."""
        return {"voters": voters(self.info.model, batch).sum(dim=1), "known": batch.known.sum()}

    def extra_losses(
        self, prediction: Prediction, batch: DialogueBatch, totals: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """See ``Balancer``."""
        found = entropies(prediction.votes, batch, self.info.class_weights)
        sums = torch.where(voters(self.info.model, batch), found, 0.0).sum(dim=1)
        own = (sums / totals["voters"].clamp_min(1)).sum()
        added = self.term(prediction, batch) / totals["known"].clamp_min(1)
        return {"unimodal_loss": self.unimodal * own, self.name: added}

    def term(self, prediction: Prediction, batch: DialogueBatch) -> Tensor:
        """Return the additional term's sum over this rank's labelled utterances."""
        raise NotImplementedError


class LabelSmoothing(UnimodalLosses):
    """A share of each target goes to all classes alike (Szegedy et al. 2016, section 7).

    Args:
        config: Of the balance method.
        unimodal: Weight of the votes' cross-entropies.
        smoothing: The share.
    """

    name = "smoothing_loss"

    def __init__(self, config: BalanceConfig, unimodal: float = 0.5, smoothing: float = 0.1) -> None:
        super().__init__(config, unimodal)
        self.smoothing = smoothing

    def term(self, prediction: Prediction, batch: DialogueBatch) -> Tensor:
        """See ``UnimodalLosses``: what turns the cross-entropy into that of smoothed targets."""
        hard = entropies(prediction.logits[None], batch, self.info.class_weights)[0]
        weights = self.info.class_weights
        spread = -prediction.logits.log_softmax(dim=1)
        even = (spread if weights is None else spread * weights).mean(dim=1)
        return self.smoothing * torch.where(batch.known, even - hard, 0.0).sum()


class SupervisedContrast(UnimodalLosses):
    """Utterances of a dialogue with the same label attract each other, others repel (Khosla et al. 2020, L_out).

    Pairs are within a dialogue: a dialogue is never split among ranks, so the result does not depend on their number.

    Args:
        config: Of the balance method.
        unimodal: Weight of the votes' cross-entropies.
        weight: Of the contrast.
        temperature: Of the cosines.
    """

    name = "contrast_loss"

    def __init__(
        self, config: BalanceConfig, unimodal: float = 0.5, weight: float = 0.1, temperature: float = 0.1
    ) -> None:
        super().__init__(config, unimodal)
        self.weight, self.temperature = weight, temperature

    def term(self, prediction: Prediction, batch: DialogueBatch) -> Tensor:
        """See ``UnimodalLosses``."""
        encoded = [x * batch.present[m][:, None] for m, x in encodings(prediction, batch).items()]
        z = F.normalize(torch.stack(encoded).sum(dim=0), dim=1)  # (N, H)
        dialogue, labels = batch.layout.dialogue, batch.labels
        pairs = (dialogue[:, None] == dialogue) & batch.known & batch.known[:, None]
        pairs.fill_diagonal_(False)
        logits = (z @ z.T / self.temperature).masked_fill(~pairs, float("-inf"))
        chances = (logits - logits.logsumexp(dim=1, keepdim=True)).masked_fill(~pairs, 0.0)
        alike = pairs & (labels[:, None] == labels)
        found = -(chances * alike).sum(dim=1) / alike.sum(dim=1).clamp_min(1)
        return self.weight * found.nan_to_num(0.0).sum()
