"""The relational encoder: an utterance next to decayed means of its neighbours, by direction and by speaker.

Emotion has inertia, and it differs between a speaker's own turns and the answers of others. Learning which utterances
to attend to overfits on corpora of a thousand utterances, so this encoder is given means over fixed relations: (past,
next) x (same speaker, other speaker), and the whole dialogue. Means decay exponentially with the distance in
utterances, so long dialogues use recurrences, whose time and memory grow with the length and not with its square.

Shape letters in this file:
    N utterances     B dialogues     T longest dialogue of a part     K utterances of a block
    S most speakers of a dialogue
    D width of the modality's features     V values: all widths and a count for each modality     R relations
    H hidden width     M modalities
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ada2i import fast
from ada2i.batch import Layout
from ada2i.fast.dropout import dropout
from ada2i.fast.operators import register
from ada2i.model.afw import Features, Present

_BLOCK = 64  # utterances of one matrix product in a recurrence; a state holds the sums over earlier ones
_MAX_DENSE = 256  # longest dialogue whose weights are one matrix; longer ones use recurrences
_LEAST = 1e-6  # smallest divisor: a mean over neighbours of less total weight shrinks to zero


class Neighbours:
    """Extends the features of all modalities by their relations' means, all modalities together.

    Args:
        decays: Distances, in utterances, at which a neighbour's weight is 1/e; each gives four relations, causal two.
        dialogue_decay: The same for the mean of the dialogue.
        causal: Only past neighbours count; the mean of the dialogue also counts the utterance itself.
    """

    def __init__(self, *, decays: Sequence[float], dialogue_decay: float, causal: bool = False) -> None:
        self.decays, self.dialogue_decay, self.causal = tuple(decays), dialogue_decay, causal

    @property
    def relations(self) -> int:
        """``R``."""
        return len(self.decays) * (2 if self.causal else 4) + 1

    def __call__(self, features: Features, layout: Layout, speakers: Tensor, present: Present) -> Features:
        """Return ``(N, (1 + R) * D)`` by modality: the own vector, then the means; see ``relation_means``."""
        means = self.means(features, layout, speakers, present)
        return {m: torch.cat([x, means[m].to(x.dtype)], dim=1) for m, x in features.items()}

    @torch.no_grad()
    def means(self, features: Features, layout: Layout, speakers: Tensor, present: Present) -> Features:
        """Return ``(N, R * D)`` float32 by modality; features are zero where a modality is absent."""
        there = [torch.ones_like(speakers) if found is None else found for found in present.values()]
        counts = torch.stack(there, dim=1).float()  # (N, M)
        values = torch.cat([*(x.float() for x in features.values()), counts], dim=1)
        with torch.autocast(values.device.type, enabled=False):
            sums = self._sums(values, layout, speakers)  # (N, R, V)
            sizes = [*(x.shape[1] for x in features.values()), len(features)]
            *parts, weights = torch.split(sums, sizes, dim=2)
            weights = weights.clamp_min(_LEAST)
            found = [part / weights[..., i : i + 1] for i, part in enumerate(parts)]
        return {m: mean.flatten(1) for m, mean in zip(features, found, strict=True)}

    def _sums(self, values: Tensor, layout: Layout, speakers: Tensor) -> Tensor:
        """Return ``(N, R, V)`` sums of ``(N, V)`` values over each row's neighbours, by relation."""
        if values.device.type != "cpu" or not fast.enabled():
            return self.sums_of_grids(values, layout, speakers)
        # One operator, however many grids the dialogues are grouped into.
        sizes = list(layout.lengths), layout.padded_length, layout.speakers
        decays = list(self.decays), self.dialogue_decay, self.causal
        found: Tensor = torch.ops.ada2i.relation_sums(values, speakers, *sizes, *decays)
        return found

    def sums_of_grids(self, values: Tensor, layout: Layout, speakers: Tensor) -> Tensor:
        """Return the sums, ``(N, R, V)``, grid by grid."""
        slots = []
        for part in layout.parts:
            rows, who, inner = part.grid(values), part.grid(speakers), part.layout
            if inner.padded_length <= _MAX_DENSE:
                weights = self._weights(who, inner)  # (B, R, T, T)
                sums = torch.unflatten(torch.bmm(weights.flatten(1, 2), rows), 1, weights.shape[1:3])  # (B, R, T, V)
            else:
                hot = nn.functional.one_hot(who, layout.speakers or int(speakers.max()) + 1).float()
                sums = self._long_sums(rows * inner.occupied[:, :, None], hot)
            slots.append(sums.transpose(1, 2).flatten(0, 1))
        return layout.from_grids(slots[0] if len(slots) == 1 else torch.cat(slots))

    def _weights(self, who: Tensor, layout: Layout) -> Tensor:
        """Return ``(B, R, T, T)``: the weight of each neighbour (last axis) in each relation of a row."""
        there = layout.occupied[:, None]  # (B, 1, T)
        same = (who[:, :, None] == who[:, None]) & there
        rules = torch.stack([same, ~same & there, there.expand_as(same)], dim=1)  # (B, 3, T, T)
        kinds, weights = _decay_table(self.decays, self.dialogue_decay, self.causal, who.device)
        return rules.index_select(1, kinds) * weights[:, : layout.padded_length, : layout.padded_length]

    def _long_sums(self, rows: Tensor, hot: Tensor) -> Tensor:
        """Return ``(B, R, T, V)`` by recurrences, whose memory grows with the length and not with its square."""
        if self.causal:
            return self.past_sums(rows, hot, [None] * (len(self.decays) + 1))
        one, directions = torch.ones_like(hot[:, :, :1]), (False, True)
        sums = [x for decay in self.decays for back in directions for x in _one_way(rows, hot, decay, flipped=back)]
        whole = [_one_way(rows, one, self.dialogue_decay, flipped=back)[0] for back in directions]
        return torch.stack([*sums, sum(whole, start=rows)], dim=1)

    def past_sums(self, rows: Tensor, hot: Tensor, states: Sequence[Tensor | None]) -> Tensor:
        """Return ``(B, R, T, V)`` sums of the causal relations.

        Args:
            rows: ``(B, T, V)``.
            hot: ``(B, T, S)``, 1 at the speaker of each row.
            states: By decay, then of the dialogue, as ``decayed_sums`` takes and changes them: ``(B, S, V)`` each, and
                ``(B, 1, V)`` of the dialogue.
        """
        *of_speakers, of_dialogue = states
        pairs = zip(self.decays, of_speakers, strict=True)
        sums = [x for decay, state in pairs for x in decayed_sums(rows, hot, decay, state)]
        before, _ = decayed_sums(rows, torch.ones_like(hot[:, :, :1]), self.dialogue_decay, of_dialogue)
        return torch.stack([*sums, before + rows], dim=1)


@functools.lru_cache(maxsize=16)
def _decay_table(
    decays: tuple[float, ...], dialogue_decay: float, causal: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return for each relation the kind of neighbour (0: same speaker, 1: other, 2: all), and weights ``(R, T, T)``.

    ``T`` is 256; the weights of a shorter dialogue are the first ones, since they depend on distances only.
    """
    places = np.arange(_MAX_DENSE)
    ahead = places - places[:, None]  # from a row (first axis) to its neighbour
    kinds: list[int] = []
    weights: list[Any] = []
    for decay in decays:
        for direction in (-1,) if causal else (-1, 1):
            weight = np.where(ahead * direction > 0, np.exp(-np.abs(ahead) / decay), 0.0)
            kinds += [0, 1]
            weights += [weight, weight]
    whole = np.exp(-np.abs(ahead) / dialogue_decay)
    weights.append(np.where(ahead <= 0, whole, 0.0) if causal else whole)
    table = torch.from_numpy(np.stack(weights).astype(np.float32))
    return torch.tensor([*kinds, 2], device=device), table.to(device)


class RelationalEncoder(nn.Module):
    """Dropout of the own vector and the decayed means, hidden layers, then a linear map.

    Args:
        width: ``D``.
        relations: ``R``; see ``Neighbours``, which provides the means.
        hidden_dim: ``H``.
        layers: Hidden layers, each a linear map, layer norm, GELU and dropout. 0: the encoder is linear.
        feedforward_dim: Width of the hidden layers.
        dropout: Dropout in the hidden layers.
        input_dropout: Dropout of the own vector and the means.
    """

    def __init__(
        self,
        *,
        width: int,
        relations: int,
        hidden_dim: int,
        layers: int,
        feedforward_dim: int,
        dropout: float,
        input_dropout: float,
    ) -> None:
        super().__init__()
        self.width = width
        self.input_dropout = input_dropout
        stages: list[nn.Module] = []
        inputs = width * (1 + relations)
        for _ in range(layers):
            stages += [nn.Linear(inputs, feedforward_dim), nn.LayerNorm(feedforward_dim), nn.GELU(), Dropout(dropout)]
            inputs = feedforward_dim
        self.stages = nn.Sequential(*stages, nn.Linear(inputs, hidden_dim))

    def forward(self, features: Tensor, layout: Layout, speakers: Tensor, present: Tensor | None) -> Tensor:  # noqa: ARG002
        """See ``Encoder``; features are ``(N, (1 + R) * D)``."""
        return self.stages(dropout(features, self.input_dropout, self.training))  # type: ignore[no-any-return]


class Dropout(nn.Module):
    """``fast.dropout`` as a module."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training."""
        return dropout(x, self.p, self.training)


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
        decays: See ``Neighbours``.
        dialogue_decay: See ``Neighbours``.
        causal: See ``Neighbours``.

    Returns:
        ``(N, R * D)`` float32: for each decay past of the same speaker, past of others, then, unless ``causal``, next
        of the same, next of others; last the dialogue's mean.
    """
    neighbours = Neighbours(decays=decays, dialogue_decay=dialogue_decay, causal=causal)
    shown = features if present is None else features * present[:, None]
    return neighbours.means({"text": shown}, layout, speakers, {"text": present})["text"]


def _one_way(rows: Tensor, hot: Tensor, decay: float, *, flipped: bool) -> tuple[Tensor, Tensor]:
    if flipped:
        same, other = decayed_sums(rows.flip(1), hot.flip(1), decay)
        return same.flip(1), other.flip(1)
    return decayed_sums(rows, hot, decay)


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


def _relation_sums(  # noqa: PLR0917 - an operator's arguments are a list
    values: Tensor,
    who: Tensor,
    lengths: list[int],
    padded: int,
    speakers: int | None,
    decays: list[float],
    dialogue_decay: float,
    causal: bool,
) -> Tensor:
    neighbours = Neighbours(decays=decays, dialogue_decay=dialogue_decay, causal=causal)
    return neighbours.sums_of_grids(values, Layout(tuple(lengths), padded, speakers=speakers), who)


register(
    "relation_sums(Tensor values, Tensor who, int[] lengths, int padded, int? speakers, float[] decays, "
    "float dialogue_decay, bool causal) -> Tensor",
    _relation_sums,
)
