"""PMR: prototypes pull slow modalities, and hold back fast ones at first (Fan et al., CVPR 2023).

Shape letters in this file:
    N utterances     M modalities     C classes     H hidden width
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ada2i.balance.base import StepScales
from ada2i.balance.disparity import mean_scores, of_true_class
from ada2i.balance.none import NoBalancer
from ada2i.balance.votes import entropies, stacked_encodings, voters
from ada2i.batch import DialogueBatch
from ada2i.config import PmrBalance
from ada2i.model.ada2i import Prediction


class PmrBalancer(NoBalancer):
    """Adds cross-entropies of distances to prototypes, from the second epoch on.

    Its state are the prototypes, means of the encoders' outputs by class, and the sums of the current epoch.
    """

    config: PmrBalance

    def set_epoch(self, epoch: int) -> None:
        """See ``Balancer``."""
        super().set_epoch(epoch)
        if self.held and epoch > int(self.held["epoch"]):
            self.held = self._next_epoch(epoch)

    def totals(self, batch: DialogueBatch, forward: Callable[[], Prediction]) -> dict[str, Tensor]:
        """See ``Balancer``."""
        if not self._has_prototypes:
            return {}
        prediction, counting = forward(), self._counting(batch)
        with torch.no_grad():
            chances = self._log_chances(prediction, batch).exp()
        scores = torch.where(counting, of_true_class(chances, batch.labels), 0.0)
        return {"scores": scores.sum(dim=1), "rows": counting.sum(dim=1)}

    def extra_losses(
        self, prediction: Prediction, batch: DialogueBatch, totals: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """See ``Balancer``."""
        if not self._has_prototypes:
            return {}
        counting, logs = self._counting(batch), self._log_chances(prediction, batch)
        counts = totals["rows"].clamp_min(1)
        slow, fast = pulls(totals["scores"], totals["rows"])
        near = torch.where(counting, entropies(logs, batch, self.info.class_weights), 0.0).sum(dim=1)
        losses = {"prototype_loss": self.config.alpha * (slow * near / counts).sum().to(logs.dtype)}
        if self.config.entropy and self.epoch <= self.config.entropy_epochs:
            spread = -(logs.exp() * logs.clamp_min(-1e4)).sum(dim=-1)  # 0 where a class has no prototype
            spread = torch.where(counting, spread, 0.0).sum(dim=1)
            losses["prototype_entropy"] = -self.config.entropy * (fast * spread / counts).sum().to(logs.dtype)
        return losses

    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """See ``Balancer``; adds sums of the encoders' outputs by class."""
        found = super().statistics(prediction, batch)
        if not self._active:
            return found
        counting = voters(self.info.model, batch).to(torch.float32)
        classes = prediction.logits.shape[-1]
        one_hot = torch.nn.functional.one_hot(batch.labels.clamp_min(0), classes).to(torch.float32)
        members = counting[:, :, None] * one_hot  # (M, N, C)
        encoded = stacked_encodings(prediction, batch)
        return {**found, "sums": members.transpose(1, 2) @ encoded, "members": members.sum(dim=1)}

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """See ``Balancer``."""
        if self._active:
            sums, members = statistics["sums"], statistics["members"]
            if not self.held:
                self.held = {
                    "epoch": torch.tensor([self.epoch], device=sums.device),
                    "prototypes": torch.zeros_like(sums),
                    "known": torch.zeros_like(members),
                    "sums": torch.zeros_like(sums),
                    "members": torch.zeros_like(members),
                }
            self.held |= {"sums": self.held["sums"] + sums, "members": self.held["members"] + members}
        return super().scales(statistics)

    @property
    def _active(self) -> bool:
        return bool(self.config.alpha or self.config.entropy)

    @property
    def _has_prototypes(self) -> bool:
        """Whether there are prototypes; they are set at the ends of epochs, so this reads nothing from a GPU."""
        return self._active and bool(self.held) and self.epoch > 1

    def _next_epoch(self, epoch: int) -> dict[str, Tensor]:
        old, sums, members = (self.held[name] for name in ("prototypes", "sums", "members"))
        means = sums / members.clamp_min(1)[:, :, None]
        share = self.config.momentum * self.held["known"][:, :, None]  # a class's first prototype is its mean
        found = (members > 0)[:, :, None]
        return {
            "epoch": torch.full_like(self.held["epoch"], epoch),
            "prototypes": torch.where(found, share * old + (1 - share) * means, old),
            "known": torch.maximum(self.held["known"], (members > 0).to(members.dtype)),
            "sums": torch.zeros_like(sums),
            "members": torch.zeros_like(members),
        }

    def _counting(self, batch: DialogueBatch) -> Tensor:
        """Return the utterances with a label, the modality and a prototype of their class, ``(M, N)`` bool."""
        return voters(self.info.model, batch) & (self.held["known"] > 0)[:, batch.labels.clamp_min(0)]

    def _log_chances(self, prediction: Prediction, batch: DialogueBatch) -> Tensor:
        """Return log q_m, ``(M, N, C)``: the softmax of the negative distances to the prototypes."""
        encoded = stacked_encodings(prediction, batch)
        gaps = encoded[:, :, None] - self.held["prototypes"][:, None]
        distances = gaps.square().sum(dim=-1).clamp_min(1e-12).sqrt()
        known = self.held["known"][:, None] > 0
        # A modality without any prototype has no counting utterance; its row must be finite all the same.
        return torch.where(known, -distances, -1e4).log_softmax(dim=-1)


def pulls(scores: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights in 0..1 of slow and of fast modalities, ``(M,)`` each; 0 if no utterance counts.

    Args:
        scores: ``(M,)`` summed probability of the true class.
        counts: ``(M,)`` utterances.
    """
    there = counts > 0
    means = mean_scores(scores, counts).clamp_min(1e-12)
    fastest = torch.where(there, means, 0.0).max()
    slowest = torch.where(there, means, torch.inf).min()
    slow, fast = (fastest / means - 1).clamp(0, 1), (means / slowest - 1).clamp(0, 1)
    return torch.where(there, slow, 0.0), torch.where(there, fast, 0.0)
