"""A short soak; ``python -m tests.faults.soak`` runs long ones."""

from pathlib import Path

import pytest

from tests.faults.soak import soak


@pytest.mark.soak
def test_kills_at_random_points_change_nothing_and_leave_nothing(tmp_path: Path) -> None:
    found = soak(tmp_path, kills=3, seed=7)
    assert len(found["kills"]) == 3
    assert found["differences"] == []
    assert found["left_behind"] == []
