"""The score of a probe on held-out dialogues, for vectors of known quality."""

from pathlib import Path

import pytest

from ada2i.evaluation.probe import held_out_skill, linear_confusion, weighted_f1
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


def test_a_linear_model_on_test_beats_the_majority_and_all_modalities_beat_the_weakest(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, "floor")
    modalities = task.config.model.modalities
    scores = {
        chosen: weighted_f1(linear_confusion(task.train, task.dev, chosen, classes=6).astype(float))
        for chosen in [*((m,) for m in modalities), modalities]
    }
    counts = linear_confusion(task.train, task.dev, modalities, classes=6)
    assert counts.sum() == task.dev.lengths.sum()  # every utterance, also without a vector
    assert counts.sum(axis=1).tolist() == task.dev.class_counts.tolist()
    majority = task.dev.class_counts[int(task.train.class_counts.argmax())] / task.dev.lengths.sum()
    assert scores["text",] > majority
    assert scores[modalities] > min(scores[m,] for m in modalities)
