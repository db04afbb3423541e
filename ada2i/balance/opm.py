"""OPM and modality dropout: modalities of single utterances are left out (Wei et al., TPAMI 2024).

Shape letters in this file:
    N utterances     M modalities     S slots of the padded grid
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ada2i.balance.base import StepScales
from ada2i.balance.disparity import counted, lead, true_class_scores
from ada2i.balance.noise import stream_key
from ada2i.balance.none import NoBalancer
from ada2i.batch import DialogueBatch
from ada2i.config import OpmBalance
from ada2i.loader.order import mix
from ada2i.model.ada2i import Prediction
from ada2i.model.afw import Features, Present


class OpmBalancer(NoBalancer):
    """Leaves out features behind the encoders, by random numbers that depend on seed, step and utterance alone.

    Its state are scores and counts of the last step, from which the next step's probabilities are computed.
    """

    config: OpmBalance

    def __init__(self, config: OpmBalance) -> None:
        super().__init__(config)
        self.kept: Tensor | None = None  # (M, N) bool, of the last forward pass

    def adapt(self, encoded: Features, batch: DialogueBatch, present: Present) -> tuple[Features, Present]:
        """See ``Balancer``."""
        self.kept = None
        if not self.config.rate and not self.config.base:
            return encoded, present
        there = torch.stack([batch.present[m] for m in encoded])
        self.kept = kept = keep(there, self._rates(len(there)), self._numbers(batch, len(there)).to(there.device))
        features = {m: x * _rows(own, x, batch)[:, None] for (m, x), own in zip(encoded.items(), kept, strict=True)}
        masked = {m: None if present[m] is None else own for m, own in zip(encoded, kept, strict=True)}
        return features, masked

    def statistics(self, prediction: Prediction, batch: DialogueBatch) -> dict[str, Tensor]:
        """See ``Balancer``; what was left out does not count, whether or not the model masks what is missing."""
        if self.kept is None:
            return super().statistics(prediction, batch)
        scores = true_class_scores(prediction.unimodal_logits, batch.labels, self.kept)
        return {"scores": scores, "counts": counted(batch.labels, self.kept, len(scores))}

    def scales(self, statistics: Mapping[str, Tensor]) -> StepScales:
        """See ``Balancer``."""
        if self.config.base:
            self.held = {"scores": statistics["scores"].clone(), "counts": statistics["counts"].clone()}
        return super().scales(statistics)

    def _rates(self, modalities: int) -> Tensor:
        """Return the probability of leaving a modality out, ``(M,)``."""
        plain = torch.full((modalities,), self.config.rate)
        drawn = _uniform(np.array([self._key("batch")], dtype=np.uint64))[0]
        if not self.held or drawn >= self.config.batches:
            return plain
        ahead = lead(self.held["scores"], self.held["counts"])
        more = self.config.base * (1 + self.config.alpha * torch.tanh(ahead - 1))
        return plain.to(ahead.device) + torch.where(ahead > 1, more, 0.0)

    def _numbers(self, batch: DialogueBatch, modalities: int) -> Tensor:
        """Return uniform random numbers, ``(M, N)``."""
        lengths = batch.layout.lengths
        dialogues = batch.dialogues or tuple(range(len(lengths)))
        keys = mix(np.array(dialogues, dtype=np.uint64) ^ np.uint64(self._key("utterances")))
        places = np.concatenate([np.arange(length, dtype=np.uint64) for length in lengths])
        rows = mix(np.repeat(keys, lengths) ^ places)
        return torch.from_numpy(_uniform(rows ^ np.arange(1, modalities + 1, dtype=np.uint64)[:, None])).float()

    def _key(self, name: str) -> int:
        return stream_key(self.info.seed, self.info.step, f"modality-dropout/{name}")


def keep(present: Tensor, rates: Tensor, numbers: Tensor) -> Tensor:
    """Return which modalities stay, ``(M, N)`` bool: of those that an utterance has, at least one.

    Args:
        present: ``(M, N)`` bool.
        rates: ``(M,)`` probability of leaving a modality out.
        numbers: ``(M, N)`` uniform in 0..1. If all present modalities would go, that with the largest margin stays.
    """
    margin = torch.where(present, numbers - rates.to(numbers.device)[:, None], -torch.inf)
    best = torch.zeros_like(present).scatter(0, margin.argmax(dim=0)[None], value=True)
    return present & ((margin >= 0) | best)


def _rows(kept: Tensor, x: Tensor, batch: DialogueBatch) -> Tensor:
    """Return what stays as factors of the rows of ``x``, which may be the slots of the padded grid."""
    rows = kept.to(x.dtype)
    return rows if len(x) == len(kept) else batch.layout.pad(rows)


def _uniform(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    return (mix(keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53
