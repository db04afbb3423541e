"""The result of encoding one item: a vector, or the reason why it has none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ada2i.extraction.encoders.base import Encoded

if TYPE_CHECKING:
    import numpy.typing as npt

    from ada2i.extraction.media import MediaProblem


NO_VECTOR = "no-vector"  # a problem: an encoder returned no vector and no reason


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The vector of one item, or the reason why it has none.

    Attributes:
        vector: ``(D,)`` float32, or None.
        flags: Remarks on the vector.
        problem: The reason, as a word that can be counted; None if there is a vector.
        message: The reason as text for people; empty if the word is enough.
        measures: Numbers to average over a corpus.
    """

    vector: "npt.NDArray[np.float32] | None"
    flags: tuple[str, ...] = ()
    problem: str | None = None
    message: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)


def outcome(encoded: Encoded) -> Outcome:
    """Return the outcome of an encoder's result; the last flag of a missing vector is the reason."""
    if encoded.vector is None:
        *flags, problem = encoded.flags or (NO_VECTOR,)
        return Outcome(None, tuple(flags), problem, measures=encoded.measures)
    return Outcome(encoded.vector, encoded.flags, measures=encoded.measures)


def lost(problem: "MediaProblem") -> Outcome:
    """Return the outcome of a file without usable sound or pictures."""
    return Outcome(None, problem=problem.code, message=problem.message)


def joint_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Return one item's outcome of several encoders: concatenated vectors, or the first reason for a missing one."""
    if len(outcomes) == 1:
        return outcomes[0]
    flags = tuple(dict.fromkeys(flag for one in outcomes for flag in one.flags))
    measures = {name: value for one in reversed(outcomes) for name, value in one.measures.items()}
    vectors = [one.vector for one in outcomes if one.vector is not None]
    if len(vectors) < len(outcomes):
        first = next(one for one in outcomes if one.vector is None)
        return replace(first, flags=flags, measures=measures)
    return Outcome(np.concatenate(vectors), flags, measures=measures)
