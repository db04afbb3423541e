"""UMT: each encoder learns to give the output of a trained unimodal model's encoder (Du et al., ICML 2023).

Shape letters in this file:
    N utterances     M modalities     H hidden width
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ada2i.balance.none import NoBalancer
from ada2i.balance.votes import stacked_encodings
from ada2i.batch import DialogueBatch
from ada2i.config import UmtBalance
from ada2i.model.ada2i import Prediction


class UmtBalancer(NoBalancer):
    """Adds the mean squared distance of each encoder's output from its teacher's; it has no state."""

    config: UmtBalance

    def totals(self, batch: DialogueBatch, forward: Callable[[], Prediction]) -> dict[str, Tensor]:
        """See ``Balancer``."""
        return {"rows": self._present(batch).sum(dim=1)} if self.config.weight else {}

    def extra_losses(
        self, prediction: Prediction, batch: DialogueBatch, totals: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """See ``Balancer``; an utterance needs no label."""
        if not self.config.weight:
            return {}
        assert batch.taught_encodings is not None  # `training.request` refuses a run without teachers
        encoded = stacked_encodings(prediction, batch)
        distances = (encoded - batch.taught_encodings.transpose(0, 1)).square().mean(dim=-1)
        sums = torch.where(self._present(batch), distances, 0.0).sum(dim=1)
        return {"umt_loss": self.config.weight * (sums / totals["rows"].clamp_min(1).to(sums.dtype)).sum()}

    def _present(self, batch: DialogueBatch) -> Tensor:
        """Return the utterances that have each modality, ``(M, N)`` bool."""
        return torch.stack([batch.present[m] for m in self.info.model.modalities])
