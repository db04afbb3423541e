"""Live dialogues: what a session keeps between two turns, and the answer to its next turn.

This file alone decides how a session's past reaches the model: today its vectors are predicted again with each turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ada2i.serving.served import Answer, Served, answer
from ada2i.serving.turns import Vectors


@dataclass(frozen=True, eq=False)
class Context:
    """What a session keeps.

    Attributes:
        number: Number of the version that answers it from its first turn to its last.
        past: Its turns so far.
    """

    number: int
    past: tuple[Vectors, ...] = ()

    @property
    def turns(self) -> int:
        """The number of its turns so far."""
        return len(self.past)

    @property
    def nbytes(self) -> int:
        """The memory that it takes, in bytes."""
        return sum(turn.nbytes for turn in self.past)


def follow(served: Served, live: Sequence[tuple[Context, Vectors]]) -> list[tuple[Context, Answer]]:
    """Return, for the next turn of each of some sessions, its context afterwards and its answer."""
    dialogues = [(*context.past, turn) for context, turn in live]
    answers = answer(served, dialogues)
    return [(Context(served.version.number, past), rows[-1]) for past, rows in zip(dialogues, answers, strict=True)]
