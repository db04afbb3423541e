"""The relational encoder: an utterance next to decayed means of its neighbours, by direction and by speaker.

Emotion has inertia, and it differs between a speaker's own turns and the answers of others. Learning which utterances
to attend to overfits on corpora of a thousand utterances, so this encoder is given means over fixed relations: (past,
next) x (same speaker, other speaker), and the whole dialogue. Means decay exponentially with the distance in
utterances, so they are recurrences: time and memory grow with the number of utterances, not with its square.

Shape letters in this file:
    N utterances     B dialogues     T longest dialogue of a part     K utterances of a block
    S most speakers of a dialogue
    D width of the modality's features     R relations     H hidden width
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.fast.dropout import dropout

_BLOCK = 64  # utterances whose weights on one another are one matrix; a state carries what is before them
_LEAST = 1e-6  # a mean over neighbours that together weigh less fades to zero


class RelationalEncoder(nn.Module):
    """Own vector and decayed means, dropout, hidden layers, then a linear map.

    Args:
        width: ``D``.
        hidden_dim: ``H``.
        layers: Hidden layers, each a linear map, layer norm, GELU and dropout. 0: the encoder is linear.
        feedforward_dim: Width of the hidden layers.
        dropout: Dropout in the hidden layers.
        input_dropout: Dropout of the own vector and the means.
        decays: Distances, in utterances, over which a neighbour's weight falls by 1/e; each gives four relations.
        dialogue_decay: The same for the mean of the dialogue.
        causal: Only past neighbours count.
    """

    def __init__(
        self,
        *,
        width: int,
        hidden_dim: int,
        layers: int,
        feedforward_dim: int,
        dropout: float,
        input_dropout: float,
        decays: Sequence[float],
        dialogue_decay: float,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.input_dropout = input_dropout
        self.decays, self.dialogue_decay, self.causal = tuple(decays), dialogue_decay, causal
        relations = len(self.decays) * (2 if causal else 4) + 1
        stages: list[nn.Module] = []
        inputs = width * (1 + relations)
        for _ in range(layers):
            stages += [nn.Linear(inputs, feedforward_dim), nn.LayerNorm(feedforward_dim), nn.GELU()]
            stages += [nn.Dropout(dropout)]
            inputs = feedforward_dim
        self.stages = nn.Sequential(*stages, nn.Linear(inputs, hidden_dim))

    def forward(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:
        """See ``Encoder``."""
        means = relation_means(
            features,
            layout,
            speakers,
            present,
            decays=self.decays,
            dialogue_decay=self.dialogue_decay,
            causal=self.causal,
        )
        inputs = torch.cat([features, means.to(features.dtype)], dim=1)
        return self.stages(dropout(inputs, self.input_dropout, self.training))  # type: ignore[no-any-return]


@torch.no_grad()
def relation_means(
    features: Tensor,
    layout: Layout,
    speakers: Tensor,
    present: Tensor | None,
    *,
    decays: Sequence[float],
    dialogue_decay: float,
    causal: bool = False,
) -> Tensor:
    """Return the decayed means of each utterance's neighbours; a relation without neighbours is zero.

    Args:
        features: ``(N, D)``; they need no gradient.
        layout: The rows of each dialogue.
        speakers: ``(N,)`` int64, numbered within each dialogue.
        present: ``(N,)`` bool: absent utterances are not part of a mean. None: all are present.
        decays: See ``RelationalEncoder``.
        dialogue_decay: See ``RelationalEncoder``.
        causal: Only past neighbours count, and for the dialogue the utterance itself.

    Returns:
        ``(N, R * D)`` float32: for each decay past of the same speaker, past of others, then, unless ``causal``, next
        of the same, next of others; last the dialogue's mean.
    """
    weight = torch.ones_like(speakers, dtype=torch.float32) if present is None else present.float()
    values = torch.cat([features.float() * weight[:, None], weight[:, None]], dim=1)  # the last column counts
    hot = nn.functional.one_hot(speakers, layout.speakers or int(speakers.max()) + 1).float()  # (N, S)
    grids = []
    with torch.autocast(features.device.type, enabled=False):
        for part in layout.parts:
            grid = part.grid(values) * part.layout.occupied[:, :, None]
            grids.append(_part_means(grid, part.grid(hot), decays, dialogue_decay, causal=causal).flatten(0, 1))
    slots = grids[0] if len(grids) == 1 else torch.cat(grids)
    return slots if layout.is_full else slots.index_select(0, layout.from_parts)


def _part_means(grid: Tensor, hot: Tensor, decays: Sequence[float], dialogue_decay: float, *, causal: bool) -> Tensor:
    """Return ``(B, T, R * D)`` of values and weights ``(B, T, D + 1)`` and speakers ``(B, T, S)``, one-hot."""
    one = torch.ones_like(hot[:, :, :1])
    directions = (False,) if causal else (False, True)
    sums = [found for decay in decays for flipped in directions for found in _sums(grid, hot, decay, flipped=flipped)]
    whole = [_sums(grid, one, dialogue_decay, flipped=flipped)[0] for flipped in directions]
    return torch.cat([_mean(found) for found in (*sums, sum(whole, start=grid))], dim=2)


def _mean(sums: Tensor) -> Tensor:
    return sums[:, :, :-1] / sums[:, :, -1:].clamp_min(_LEAST)


def _sums(grid: Tensor, hot: Tensor, decay: float, *, flipped: bool) -> tuple[Tensor, Tensor]:
    if flipped:
        same, other = decayed_sums(grid.flip(1), hot.flip(1), decay)
        return same.flip(1), other.flip(1)
    return decayed_sums(grid, hot, decay)


def decayed_sums(values: Tensor, hot: Tensor, decay: float, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return sums over the rows before each one, of the same speaker and of the others, ``(B, T, D)`` each.

    A row that is d rows before weighs exp(-d / decay). A state per speaker passes from block to block.

    Args:
        values: ``(B, T, D)``.
        hot: ``(B, T, S)``, 1 at the speaker of each row.
        decay: In rows.
        state: ``(B, S, D)`` sums of the rows before these, by speaker, as the first row sees them; it is changed in
            place to what the row after the last one sees. None: there are no rows before.
    """
    carried = values.new_zeros(len(values), hot.shape[2], values.shape[2]) if state is None else state
    same, other = [], []
    for rows, who in _blocks(values, hot):
        size = rows.shape[1]
        steps = torch.arange(size, device=rows.device)
        distance = steps[:, None] - steps
        weights = torch.where(distance > 0, torch.exp(-distance / decay), 0.0)  # (K, K)
        alike = who @ who.transpose(1, 2)  # (B, K, K)
        fall = torch.exp(-steps / decay)[:, None]
        same.append((weights * alike) @ rows + fall * (who @ carried))
        other.append((weights * (1 - alike)) @ rows + fall * ((1 - who) @ carried))
        left = torch.exp(-(size - steps) / decay)[:, None]
        carried.mul_(math.exp(-size / decay)).add_(who.transpose(1, 2) @ (left * rows))
    return torch.cat(same, dim=1), torch.cat(other, dim=1)


def _blocks(values: Tensor, hot: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    starts = range(0, values.shape[1], _BLOCK)
    return ((values[:, at : at + _BLOCK], hot[:, at : at + _BLOCK]) for at in starts)
