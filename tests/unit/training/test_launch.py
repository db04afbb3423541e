"""What follows an attempt at training, and training in this process."""

import pytest

from ada2i.errors import DivergenceError, PreemptedError
from ada2i.records import Failure
from ada2i.training.launch import Attempt, next_attempt

PREEMPTED = Failure.of(PreemptedError("Seed 1 was requested to leave."))
DIVERGED = Failure.of(DivergenceError("A loss is not finite."))
LOST = RuntimeError("the controller died")


@pytest.mark.parametrize(
    ("outcome", "losses", "leaving", "expected"),
    [
        (None, 0, False, Attempt.END),
        (DIVERGED, 0, False, Attempt.END),
        (PREEMPTED, 0, False, Attempt.AGAIN),  # a worker's node is drained
        (PREEMPTED, 0, True, Attempt.END),
        (LOST, 1, False, Attempt.AGAIN),
        (LOST, 2, False, Attempt.AGAIN),
        (LOST, 3, False, Attempt.END),
        (LOST, 1, True, Attempt.END),
    ],
)
def test_next_attempt(outcome: Failure | Exception | None, losses: int, leaving: bool, expected: Attempt) -> None:
    assert next_attempt(outcome, losses, max_losses=2, leaving=leaving) is expected
