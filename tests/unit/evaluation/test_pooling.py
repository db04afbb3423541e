"""Several seeds' predictions as one model's: rows add up, and a dialogue stays one."""

import numpy as np
import pytest

from ada2i.evaluation.compare import compare
from ada2i.evaluation.pooling import dialogue_counts, pool
from tests.unit.evaluation.predictions import columns, predictions, stored


def test_counts_by_dialogue() -> None:
    rows = columns(dialogues=5)
    counts = dialogue_counts(stored(rows))
    expected = np.zeros((5, 3, 3))
    for name, true, said in zip(rows["dialogue_id"], rows["label"], rows["prediction"], strict=True):
        expected[int(name[1:]), true, said] += 1
    assert (counts == expected).all()


def test_pooled_counts_are_the_sum_by_dialogue() -> None:
    files = [predictions(seed=seed) for seed in (1, 2, 3)]
    assert (dialogue_counts(pool(files)) == sum(map(dialogue_counts, files))).all()


def test_one_file_stays_what_it_is() -> None:
    assert (dialogue_counts(pool([predictions()])) == dialogue_counts(predictions())).all()


def test_pooled_files_can_be_compared() -> None:
    weak = pool([predictions(right=0.4, seed=seed) for seed in (1, 2)])
    strong = pool([predictions(right=0.6, seed=seed) for seed in (3, 4)])
    found = compare(weak, strong, rounds=200)
    assert found.dialogues == 31
    assert found.utterances == 2 * len(columns()["label"])
    assert found.differences["weighted_f1"].difference == pytest.approx(0.2, abs=0.06)


def test_repeating_a_seed_makes_no_surer() -> None:
    """Dialogues are resampled, not predictions: the same ones thrice say nothing new."""
    a, b = predictions(right=0.4), predictions(right=0.6, seed=2)
    once, thrice = compare(a, b, rounds=500), compare(pool([a] * 3), pool([b] * 3), rounds=500)
    for score, found in once.differences.items():
        same = thrice.differences[score]
        assert same.p_randomisation == found.p_randomisation
        assert same.interval.low == pytest.approx(found.interval.low, abs=1e-12)
        assert same.interval.high == pytest.approx(found.interval.high, abs=1e-12)
