"""SPCL: a curriculum by difficulty and imbalance, at the learner's own pace (arXiv 2605.21565).

Shape letters in this file:
    N utterances     M modalities     B dialogues of a part     G dialogues of the global batch     D dialogues seen
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ada2i.balance.base import StepScales
from ada2i.balance.disparity import of_true_class
from ada2i.balance.none import NoBalancer
from ada2i.balance.votes import entropies, voters
from ada2i.batch import DialogueBatch
from ada2i.config import SpclBalance
from ada2i.model.ada2i import Prediction

_UNSEEN = -1.0


class SpclBalancer(NoBalancer):
    """Leaves out utterances above a threshold; its state is each dialogue's imbalance in the last and this epoch."""

    config: SpclBalance

    def __init__(self, config: SpclBalance) -> None:
        super().__init__(config)
        self.members: tuple[int, ...] = ()

    def set_epoch(self, epoch: int) -> None:
        """See ``Balancer``."""
        super().set_epoch(epoch)
        if self.held and epoch > int(self.held["epoch"]):
            self.held["last"] = self.held["now"]
            self.held["now"] = torch.full_like(self.held["last"], _UNSEEN)
            self.held["epoch"] = torch.full_like(self.held["epoch"], epoch)

    def row_weights(self, prediction: Prediction, batch: DialogueBatch) -> Tensor | None:
        """See ``Balancer``; a dialogue that no earlier epoch has measured counts."""
        if self.config.threshold is None or not self.held or self.epoch < 2:
            return None
        last = self._grown("last", 1 + max(_dialogues(batch)))
        imbalance = last[torch.tensor(_dialogues(batch), device=last.device)][batch.layout.dialogue]
        loss = entropies(prediction.logits.detach()[None], batch)[0]
        limit = self.config.threshold * self.config.growth ** (self.epoch - 2)
        return ((imbalance < 0) | (difficulty(imbalance, loss) <= limit)).to(loss.dtype)

    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """See ``Balancer``; adds each dialogue's imbalance, ``(G,)``, at its place in the global batch."""
        found = super().statistics(prediction, batch)
        if self.config.threshold is None:
            return found
        self.members = batch.members or _dialogues(batch)
        places = {dialogue: place for place, dialogue in enumerate(self.members)}
        own = torch.tensor([places[d] for d in _dialogues(batch)], device=batch.labels.device)
        spread = imbalances(prediction.unimodal_logits, voters(self.info.model, batch), batch)
        return {**found, "imbalance": spread.new_zeros(len(self.members)).index_copy(0, own, spread)}

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """See ``Balancer``."""
        if (spread := statistics.get("imbalance")) is not None:
            device = spread.device
            self.held.setdefault("epoch", torch.tensor([self.epoch], device=device))
            for name in ("last", "now"):
                self.held.setdefault(name, torch.full((0,), _UNSEEN, device=device))
                self.held[name] = self._grown(name, 1 + max(self.members))
            self.held["now"][torch.tensor(self.members, device=device)] = spread
        return super().scales(statistics)

    def _grown(self, name: str, size: int) -> Tensor:
        """Return a tensor of the state, ``(D,)``, with room for ``size`` dialogues."""
        held = self.held[name]
        missing = size - len(held)
        return held if missing <= 0 else torch.cat([held, held.new_full((missing,), _UNSEEN)])


def _dialogues(batch: DialogueBatch) -> tuple[int, ...]:
    return batch.dialogues or tuple(range(len(batch.layout.lengths)))


def imbalances(logits: Tensor, counting: Tensor, batch: DialogueBatch) -> Tensor:
    """Return the standard deviation over modalities of their mean probability of the true class, ``(B,)``.

    Modalities that a dialogue lacks are left out; with fewer than two it is 0.

    Args:
        logits: ``(M, N, C)``.
        counting: ``(M, N)`` bool: utterances with a label and the modality.
        batch: The utterances.
    """
    scores = torch.where(counting, of_true_class(logits.softmax(dim=-1), batch.labels), 0.0)
    one_hot = batch.layout.one_hot
    counts = counting.to(scores.dtype) @ one_hot  # (M, B)
    means = (scores @ one_hot) / counts.clamp_min(1)
    there = (counts > 0).to(scores.dtype)
    number = there.sum(dim=0).clamp_min(1)
    centre = (means * there).sum(dim=0) / number
    return (((means - centre) * there).square().sum(dim=0) / number).sqrt()


def difficulty(imbalance: Tensor, loss: Tensor) -> Tensor:
    """Return rho, the harmonic mean of imbalance and loss, each ``(N,)``."""
    return 2 * imbalance * loss / (imbalance + loss).clamp_min(1e-12)
