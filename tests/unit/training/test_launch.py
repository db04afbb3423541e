"""What follows an attempt at training, and training in this process."""

import pytest

from ada2i.errors import DivergenceError, PreemptedError
from ada2i.records import Failure
from ada2i.training.launch import another_attempt

PREEMPTED = Failure.of(PreemptedError("Seed 1 was requested to leave."))
DIVERGED = Failure.of(DivergenceError("A loss is not finite."))
LOST = RuntimeError("the controller died")


@pytest.mark.parametrize(
    ("outcome", "losses", "leaving", "expected"),
    [
        (None, 0, False, False),
        (DIVERGED, 0, False, False),
        (PREEMPTED, 0, False, True),  # a worker's node is drained
        (PREEMPTED, 0, True, False),
        (LOST, 1, False, True),
        (LOST, 2, False, True),
        (LOST, 3, False, False),
        (LOST, 1, True, False),
    ],
)
def test_another_attempt(outcome: Failure | Exception | None, losses: int, leaving: bool, expected: bool) -> None:
    assert another_attempt(outcome, losses, max_losses=2, leaving=leaving) is expected
