"""Ratio, modulation and noise against loops over utterances, and streams that nothing else can shift."""

import math

import pytest
import torch
from torch import Tensor

from ada2i.training import balance
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


def test_scale_multiplies_each_modalitys_gradients() -> None:
    gradients = [{"a": torch.ones(2, 3), "b": torch.full((2,), 2.0)}, {"c": torch.full((3,), -1.0)}]
    balance.scale_(gradients, torch.tensor([0.5, 3.0]))
    assert gradients[0]["a"].eq(0.5).all()
    assert gradients[0]["b"].eq(1.0).all()
    assert gradients[1]["c"].eq(-3.0).all()


def noise(name: str, gradient: Tensor, *, seed: int = 1, step: int = 2) -> Tensor:
    noisy = gradient.clone()
    balance.add_noise_([{name: noisy}], seed=seed, step=step)
    return noisy - gradient


@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0])
def test_noise_has_the_gradients_own_deviation(scale: float) -> None:
    gradient = (scale * (5 + random_rows(200, 500, seed=1))).double()
    added = noise("w", gradient)
    deviation = gradient.std().item()
    assert added.std().item() == pytest.approx(deviation, rel=0.02)
    assert abs(added.mean().item()) < 0.02 * deviation
    kurtosis = ((added - added.mean()) / added.std()).pow(4).mean().item()
    assert kurtosis == pytest.approx(3.0, abs=0.1)  # a Gaussian's


def test_noise_is_keyed_by_seed_step_and_name() -> None:
    gradient = random_rows(20, 5, seed=1)
    base = noise("w", gradient)
    assert torch.equal(base, noise("w", gradient))
    others = [noise("v", gradient), noise("w", gradient, seed=3), noise("w", gradient, step=3)]
    for other in others:
        assert not torch.isclose(base, other).any()


def test_noise_of_a_parameter_does_not_depend_on_the_others() -> None:
    gradient = random_rows(20, 5, seed=1)
    together = [{"u": random_rows(7, 3, seed=2), "w": gradient.clone()}, {"x": random_rows(2, 2, seed=3)}]
    torch.manual_seed(0)
    balance.add_noise_(together, seed=1, step=2)
    torch.manual_seed(1)
    assert torch.equal(together[0]["w"] - gradient, noise("w", gradient))


def test_noise_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    noise("w", random_rows(20, 5, seed=1))
    assert torch.equal(torch.rand(3), wanted)


def test_a_single_number_gets_no_noise() -> None:
    assert torch.equal(noise("w", torch.tensor([3.0])), torch.zeros(1))


def test_stream_keys_are_frozen() -> None:
    # From b2sum -l 64 of "1/2/w", so that a run resumed by a later version draws the same.
    assert balance.stream_key(1, 2, "w") == int.from_bytes(bytes.fromhex("1711e2509106d7b6"), "little") >> 1
    keys = {balance.stream_key(seed, step, name) for seed in range(20) for step in range(20) for name in ("a", "b")}
    assert len(keys) == 800
    assert all(0 <= key < 2**63 for key in keys)
