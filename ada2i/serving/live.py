"""Live dialogues: what a session keeps between two turns, and the answer to its next turn.

A causal model whose context is a state carries it from turn to turn, at constant cost. Any other model predicts the
session's turns again with each new one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ada2i.inference.predict import answers_of
from ada2i.model.live import LiveDialogue, State, is_carried
from ada2i.serving.served import Answer, Served, answer, rows_of
from ada2i.serving.turns import Vectors


@dataclass(frozen=True, eq=False)
class Context:
    """What a session keeps.

    Attributes:
        number: Number of the version that answers it from its first turn to its last.
        turns: The number of its turns so far.
        past: These turns, of a model that predicts them again.
        state: What a causal model carries instead.
    """

    number: int
    turns: int = 0
    past: tuple[Vectors, ...] = ()
    state: State = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The memory that it takes, in bytes."""
        return sum(turn.nbytes for turn in self.past) + sum(tensor.nbytes for tensor in self.state.values())


def follow(served: Served, live: Sequence[tuple[Context, Vectors]]) -> list[tuple[Context, Answer]]:
    """Return, for the next turn of each of some sessions, its context afterwards and its answer."""
    if is_carried(served.model):
        return [_carry(served, context, turn) for context, turn in live]
    dialogues = [(*context.past, turn) for context, turn in live]
    answers = answer(served, dialogues)
    number = served.version.number
    return [(Context(number, len(past), past), rows[-1]) for past, rows in zip(dialogues, answers, strict=True)]


def _carry(served: Served, context: Context, turn: Vectors) -> tuple[Context, Answer]:
    dialogue = LiveDialogue(served.model)
    if context.state:
        dialogue.restore(context.state)
    features = {m: None if x is None else torch.from_numpy(x) for m, x in turn.features.items()}
    prediction = dialogue.turn(features, _speaker(turn.speaker))
    (row,) = rows_of(served, answers_of(served.model, prediction))
    return Context(served.version.number, context.turns + 1, state=dialogue.state()), row


def _speaker(name: str | None) -> int:
    """Return a number for a speaker's name, so that a session keeps no list of names."""
    return int.from_bytes(hashlib.sha256((name or "").encode()).digest()[:7], "big")
