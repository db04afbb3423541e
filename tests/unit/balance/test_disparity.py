"""Ratio and modulation against loops over utterances."""

import math

import pytest
import torch
from torch import Tensor

from ada2i.balance import disparity as balance
from tests.unit.model.batches import random_rows

MODALITIES, ROWS, CLASSES = 3, 11, 4


def logits() -> Tensor:
    return torch.stack([(m + 1) * random_rows(ROWS, CLASSES, seed=m) for m in range(MODALITIES)])


def labels() -> Tensor:
    return torch.randint(CLASSES, (ROWS,), generator=torch.Generator().manual_seed(9))


def naive_scores() -> list[float]:
    """Utterance by utterance: the softmax at the true class."""
    scores = []
    for alone in logits().tolist():
        total = 0.0
        for row, label in zip(alone, labels().tolist(), strict=True):
            total += math.exp(row[label]) / sum(math.exp(x) for x in row)
        scores.append(total)
    return scores


def test_scores_and_ratio() -> None:
    wanted = naive_scores()
    found = balance.true_class_scores(logits(), labels())
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    ratio = balance.disparity_ratio(found).tolist()
    assert ratio == pytest.approx([score / min(wanted) for score in wanted], rel=1e-5)
    assert min(ratio) == 1.0


def test_scores_of_parts_add_up() -> None:
    first = balance.true_class_scores(logits()[:, :4], labels()[:4])
    second = balance.true_class_scores(logits()[:, 4:], labels()[4:])
    torch.testing.assert_close(first + second, balance.true_class_scores(logits(), labels()))


def test_a_modality_that_is_surely_wrong_breaks_nothing() -> None:
    certain = torch.tensor([[[0.0, 200.0]], [[0.0, 1.0]]])
    scores = balance.true_class_scores(certain, torch.tensor([0]))
    assert scores[0] == 0.0
    ratio = balance.disparity_ratio(scores)
    assert ratio[0] == 1.0
    assert 1e10 < ratio[1] < 1e14
    assert balance.modulation(ratio, 0.4).tolist() == [1.0, 0.0]


def test_one_modality_is_its_own_measure() -> None:
    ratio = balance.disparity_ratio(balance.true_class_scores(logits()[:1], labels()))
    assert balance.modulation(ratio, 0.4).tolist() == [1.0]


@pytest.mark.parametrize("alpha", [0.0, 0.037, 0.42, 3.0])
def test_modulation(alpha: float) -> None:
    ratios = [1.0, 1.0001, 1.7, 25.0]
    wanted = [1.0, *(1 - math.tanh(alpha * rho) for rho in ratios[1:])]
    assert balance.modulation(torch.tensor(ratios), alpha).tolist() == pytest.approx(wanted, abs=1e-6)
