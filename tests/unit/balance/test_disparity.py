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
    ratio = balance.disparity_ratio(found, torch.full((3,), 11.0)).tolist()
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
    ratio = balance.disparity_ratio(scores, torch.ones(2))
    assert ratio[0] == 1.0
    assert 1e10 < ratio[1] < 1e14
    assert balance.modulation(ratio, 0.4).tolist() == [1.0, 0.0]


def test_a_missing_modality_is_measured_where_it_is_present() -> None:
    """Three equally good modalities; one is absent in half of the utterances, one everywhere."""
    alone = torch.tensor([2.0, 0.0]).expand(3, 4, 2).clone()
    present = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    alone[~present] = 0.0  # an absent modality votes 0
    labels = torch.tensor([0, 0, -1, 0])
    scores = balance.true_class_scores(alone, labels, present)
    counts = balance.counted(labels, present, 3)
    assert counts.tolist() == [3.0, 1.0, 0.0]
    ratio = balance.disparity_ratio(scores, counts)
    assert ratio.tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert balance.modulation(ratio, 0.4).tolist() == [1.0, 1.0, 1.0]


def test_what_is_absent_everywhere_is_not_the_weakest() -> None:
    ratio = balance.disparity_ratio(torch.tensor([6.0, 2.0, 0.0]), torch.tensor([8.0, 4.0, 0.0]))
    assert ratio.tolist() == [1.5, 1.0, 1.0]  # 6 / 8 against 2 / 4
    nothing = balance.disparity_ratio(torch.zeros(3), torch.zeros(3))
    assert nothing.tolist() == [1.0, 1.0, 1.0]


def test_equal_counts_change_no_bit() -> None:
    scores = 11 * torch.rand(3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(balance.disparity_ratio(scores, torch.full((3,), 7.0)), scores / scores.min())


def test_one_modality_is_its_own_measure() -> None:
    ratio = balance.disparity_ratio(balance.true_class_scores(logits()[:1], labels()), torch.tensor([11.0]))
    assert balance.modulation(ratio, 0.4).tolist() == [1.0]


@pytest.mark.parametrize("alpha", [0.0, 0.037, 0.42, 3.0])
def test_modulation(alpha: float) -> None:
    ratios = [1.0, 1.0001, 1.7, 25.0]
    wanted = [1.0, *(1 - math.tanh(alpha * rho) for rho in ratios[1:])]
    assert balance.modulation(torch.tensor(ratios), alpha).tolist() == pytest.approx(wanted, abs=1e-6)
