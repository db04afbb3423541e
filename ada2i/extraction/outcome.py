"""What became of one thing that was to be encoded: a vector, or why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ada2i.extraction.encoders.base import Encoded

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ada2i.extraction.media import MediaProblem


NO_VECTOR = "no-vector"  # a problem: an encoder gave none and no reason


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One thing's vector, or why there is none.

    Attributes:
        vector: ``(D,)`` float32; None where there is none.
        flags: What to know of the vector.
        problem: Why there is none, in a word that can be counted; None where there is one.
        message: The same for people; empty where the word says all.
        measures: Numbers to average over a corpus.
    """

    vector: "npt.NDArray[np.float32] | None"
    flags: tuple[str, ...] = ()
    problem: str | None = None
    message: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)


def outcome(encoded: Encoded) -> Outcome:
    """Return what an encoder said; the last flag of a missing vector is why it is missing."""
    if encoded.vector is None:
        *flags, problem = encoded.flags or (NO_VECTOR,)
        return Outcome(None, tuple(flags), problem, measures=encoded.measures)
    return Outcome(encoded.vector, encoded.flags, measures=encoded.measures)


def lost(problem: "MediaProblem") -> Outcome:
    """Return what a file that gives no sound or pictures comes to."""
    return Outcome(None, problem=problem.code, message=problem.message)
