"""A plain training step, written after the paper's equations and the released settings: what speed is compared with.

It does what research code usually does: a padded batch, torch's own transformer layers, a map for each of AFW's
factors, a disparity ratio with a loop over utterances, and modulation and noise parameter by parameter. The arithmetic
is that of the `reference` preset.

Shape letters in this file:
    B dialogues     T longest dialogue     D width of a modality's features     H hidden width     K rank     C classes
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ada2i.batch import DialogueBatch
from ada2i.config import Ada2IBalance, TrainConfig
from ada2i.modalities import Modality
from ada2i.model.encoders import head_count


class PlainAda2I(nn.Module):
    """Encoders, two layers of feature weighting, one classifier over directions."""

    def __init__(self, config: TrainConfig, widths: Mapping[Modality, int], classes: int) -> None:
        super().__init__()
        model, hidden = config.model, config.model.hidden_dim
        self.names = tuple(widths)
        self.encoders = nn.ModuleDict()
        for name, width in widths.items():
            layer = nn.TransformerEncoderLayer(
                width, head_count(width), model.encoder.feedforward_dim, model.encoder.dropout, batch_first=True
            )
            stack = nn.TransformerEncoder(layer, model.encoder.layers, enable_nested_tensor=False)
            self.encoders[name] = nn.Sequential(stack, nn.Linear(width, hidden))
        self.weighting = nn.ModuleList(
            PlainWeighting(self.names, hidden, model.afw.rank, model.afw.beta) for _ in range(model.afw.layers)
        )
        self.dropout = model.afw.dropout
        self.classifier = nn.Linear(hidden * len(self.names), classes)

    def forward(self, features: Mapping[Modality, Tensor]) -> tuple[Tensor, dict[Modality, Tensor], Tensor]:
        """Map ``(B, T, D)`` by modality to logits ``(B, T, C)``, each modality's own, and the mapping loss."""
        hidden = {name: self.encoders[name](features[name]) for name in self.names}
        gap = next(self.parameters()).new_zeros(())
        for layer in self.weighting:
            hidden, distance = layer(hidden)
            gap = gap + distance
            hidden = {name: F.dropout(x, self.dropout, self.training) for name, x in hidden.items()}
        parts = self.classifier.weight.chunk(len(self.names), dim=1)
        bias = self.classifier.bias / len(self.names)
        votes, alone = [], {}
        for name, part in zip(self.names, parts, strict=True):
            votes.append(F.normalize(hidden[name], dim=-1) @ F.normalize(part.T, dim=1) + bias)
            alone[name] = hidden[name] @ part.T + bias
        return torch.stack(votes).sum(dim=0), alone, gap


class PlainWeighting(nn.Module):
    """One layer of adaptive feature weighting."""

    def __init__(self, names: tuple[Modality, ...], hidden: int, rank: int, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.maps = nn.ModuleDict(
            {f"{name}_{factor}": nn.Linear(hidden, rank) for name in names for factor in ("q1", "q2", "k1", "k2")}
        )
        self.attention = nn.ModuleDict({name: nn.Linear(rank * rank, hidden) for name in names})
        self.mapping = nn.ModuleDict({name: nn.Linear(hidden, hidden) for name in names})

    def forward(self, hidden: dict[Modality, Tensor]) -> tuple[dict[Modality, Tensor], Tensor]:
        """Weight ``(B, T, H)`` by modality; return the mapping loss, too."""
        scores = {name: self._scores(name, x) for name, x in hidden.items()}
        means = {name: theta.mean(dim=1) for name, theta in scores.items()}  # (B, K, K)
        weighted, gaps = {}, []
        for name, x in hidden.items():
            contracted = scores[name]
            for other in hidden:
                if other != name:
                    contracted = torch.einsum("btij,bjk->btik", contracted, means[other])
            weighted[name] = self.attention[name](contracted.flatten(2)) * x + self.beta * x
            gaps.append(self.mapping[name](x) - weighted[name])
        return weighted, torch.stack(gaps).abs().mean(dim=(1, 2, 3)).mean()

    def _scores(self, name: str, x: Tensor) -> Tensor:
        q1, q2, k1, k2 = (self.maps[f"{name}_{factor}"](x) for factor in ("q1", "q2", "k1", "k2"))
        return torch.einsum("bti,btj->btij", q1, q2) * torch.einsum("bti,btj->btij", k1, k2)


def pad(batch: DialogueBatch) -> dict[Modality, Tensor]:
    """Return the batch's features on the padded grid, ``(B, T, D)``."""
    lengths = list(batch.layout.lengths)
    return {m: pad_sequence(list(torch.split(x, lengths)), batch_first=True) for m, x in batch.features.items()}


def plain_step(
    model: PlainAda2I, optimizer: torch.optim.Optimizer, batch: DialogueBatch, config: TrainConfig, *, modulate: bool
) -> None:
    """Take one step."""
    model.train()
    optimizer.zero_grad()
    lengths = batch.layout.lengths
    logits, alone, gap = model(pad(batch))
    rows = torch.cat([logits[i, :length] for i, length in enumerate(lengths)])
    loss = F.cross_entropy(rows, batch.labels) + gap
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.training.clip_norm)
    scores = true_class_scores(alone, batch)
    if modulate:
        assert isinstance(config.balance, Ada2IBalance)
        _modulate(model, scores, config.balance.alpha)
    optimizer.step()
    loss.item()


def true_class_scores(alone: Mapping[Modality, Tensor], batch: DialogueBatch) -> dict[Modality, Tensor]:
    """Return each modality's summed probability of the true class, utterance by utterance."""
    rows = {m: torch.cat([x[i, :n] for i, n in enumerate(batch.layout.lengths)]) for m, x in alone.items()}
    return {m: _true_class_score(x, batch.labels) for m, x in rows.items()}


def _true_class_score(logits: Tensor, labels: Tensor) -> Tensor:
    total = logits.new_zeros(())
    for row, label in zip(logits.detach(), labels, strict=True):
        total = total + torch.softmax(row, dim=0)[label]
    return total


def _modulate(model: PlainAda2I, scores: Mapping[Modality, Tensor], alpha: float) -> None:
    least = min(float(score) for score in scores.values())
    for name, score in scores.items():
        ratio = float(score) / least
        coefficient = 1 - math.tanh(alpha * ratio) if ratio > 1 else 1.0
        for parameter in model.encoders[name].parameters():
            assert parameter.grad is not None
            noise = torch.zeros_like(parameter.grad).normal_(0, parameter.grad.std().item() + 1e-8)
            parameter.grad = parameter.grad * coefficient + noise
