"""Live dialogues: what a session keeps between two turns, and the answer to its next turn.

A causal model whose context is a state carries it from turn to turn, at constant cost. Any other model predicts the
session's turns again with each new one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from ada2i.inference.predict import answers_of
from ada2i.inference.sums import Floats, dialogue_sums
from ada2i.model.live import LiveDialogue, State, is_carried
from ada2i.serving.served import Answer, Served, answer, inputs_of, rows_of
from ada2i.serving.turns import Vectors


@dataclass(frozen=True, eq=False)
class Context:
    """What a session keeps.

    Attributes:
        number: Number of the version that answers it from its first turn to its last.
        turns: The number of its turns so far.
        past: These turns, of a model that predicts them again.
        state: What a causal model carries instead.
        sums: ``(K,)`` of its turns as they are predicted by now, see ``inference.sums.Columns``; None: not counted.
    """

    number: int
    turns: int = 0
    past: tuple[Vectors, ...] = ()
    state: State = field(default_factory=dict)
    sums: Floats | None = None

    @property
    def nbytes(self) -> int:
        """The memory that it takes, in bytes."""
        sums = 0 if self.sums is None else self.sums.nbytes
        return sum(turn.nbytes for turn in self.past) + sum(tensor.nbytes for tensor in self.state.values()) + sums


def follow(
    served: Served, live: Sequence[tuple[Context, Vectors]], *, counted: bool = False
) -> list[tuple[Context, Answer]]:
    """Return, for the next turn of each of some sessions, its context afterwards and its answer.

    Args:
        served: The version.
        live: The context and the next turn of each session.
        counted: Whether contexts hold the sums of their dialogues.
    """
    if is_carried(served.model):
        return [_carry(served, context, turn, counted=counted) for context, turn in live]
    dialogues, sums = [(*context.past, turn) for context, turn in live], list[Floats]()
    answers = answer(served, dialogues, sums.extend if counted else None)
    number = served.version.number
    found = [(Context(number, len(past), past), rows[-1]) for past, rows in zip(dialogues, answers, strict=True)]
    return [(replace(one, sums=row), last) for (one, last), row in zip(found, sums, strict=True)] if counted else found


def _carry(served: Served, context: Context, turn: Vectors, *, counted: bool) -> tuple[Context, Answer]:
    dialogue = LiveDialogue(served.model)
    if context.state:
        dialogue.restore(context.state)
    features = {m: None if x is None else torch.from_numpy(x) for m, x in turn.features.items()}
    prediction = dialogue.turn(features, _speaker(turn.speaker))
    inference, sums = answers_of(served.model, prediction), None
    if counted:
        (sums,) = dialogue_sums(served.model, inputs_of(served, [[turn]]), inference)
        sums = sums if context.sums is None else context.sums + sums
    (row,) = rows_of(served, inference)
    return Context(served.version.number, context.turns + 1, state=dialogue.state(), sums=sums), row


def _speaker(name: str | None) -> int:
    """Return a number for a speaker's name, so that a session keeps no list of names."""
    return int.from_bytes(hashlib.sha256((name or "").encode()).digest()[:7], "big")
