"""The score of a probe on held-out dialogues, for vectors of known quality."""

from pathlib import Path

import pytest

from ada2i.evaluation.probe import held_out_skill
from tests.unit.training.small import tiny_task


@pytest.fixture(scope="module")
def skills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    task = tiny_task(tmp_path_factory.mktemp("skill"), "run")
    return {m: held_out_skill(task.train, m, classes=6) for m in task.config.model.modalities}


def test_planted_strengths_come_back_in_their_order(skills: dict[str, float]) -> None:
    assert skills["text"] > skills["audio"] > 0.2
    assert skills["text"] > skills["visual"] + 0.2


def test_the_same_split_gives_the_same_skill(tmp_path: Path, skills: dict[str, float]) -> None:
    task = tiny_task(tmp_path, "again")
    assert held_out_skill(task.train, "text", classes=6) == skills["text"]


def test_too_few_rows_tell_nothing(tmp_path: Path) -> None:
    assert held_out_skill(tiny_task(tmp_path, "few").train, "text", classes=500) == 0.0
