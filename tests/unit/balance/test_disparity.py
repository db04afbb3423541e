"""Ratio, modulation and noise against loops over utterances, and streams that nothing else can shift."""

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


def noise(name: str, gradient: Tensor, *, seed: int = 1, step: int = 2) -> Tensor:
    added = torch.zeros_like(gradient)
    deviations = balance.deviations([gradient], gradient.norm()[None])
    balance.add_noise_([added], [name], deviations, (seed, step))
    return added


@pytest.mark.parametrize("scale", [1e-6, 1.0, 300.0])
def test_noise_has_the_gradients_own_deviation(scale: float) -> None:
    gradient = scale * (5 + random_rows(200, 500, seed=1))
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
    together = {"u": random_rows(7, 3, seed=2), "w": gradient, "x": random_rows(2, 2, seed=3)}
    added = [torch.zeros_like(x) for x in together.values()]
    torch.manual_seed(0)
    norms = torch.stack([x.norm() for x in together.values()])
    balance.add_noise_(added, list(together), balance.deviations(list(together.values()), norms), (1, 2))
    torch.manual_seed(1)
    assert torch.equal(added[1], noise("w", gradient))


def test_noise_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    noise("w", random_rows(20, 5, seed=1))
    assert torch.equal(torch.rand(3), wanted)


def test_deviations_are_those_of_torch() -> None:
    tensors = [random_rows(30, 7, seed=1), 1e-6 * (5 + random_rows(9, 9, seed=2)), torch.full((4, 5), 3.0)]
    found = balance.deviations(tensors, torch.stack([x.norm() for x in tensors]))
    torch.testing.assert_close(found, torch.stack([x.std() for x in tensors]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "tensor", [torch.tensor([4.0]), torch.tensor([1.0, float("inf")]), torch.full((3,), float("nan"))]
)
def test_what_has_no_deviation_has_zero(tensor: Tensor) -> None:
    assert balance.deviations([tensor], tensor.norm()[None]).tolist() == [0.0]


def test_noise_is_gaussian_and_uncorrelated() -> None:
    drawn = [torch.mul(*balance.gaussian(torch.empty(1000, 1000), 1234567 * key)) for key in range(4)]
    for one in drawn:
        flat = one.flatten().double()
        shares = [(flat.abs() < bound).double().mean().item() for bound in (0.5, 1.0, 2.0, 3.0)]
        assert shares == pytest.approx([math.erf(bound / math.sqrt(2)) for bound in (0.5, 1.0, 2.0, 3.0)], abs=2e-3)
        for lag in (1, 7, 32, 64, 1000):
            assert abs((flat[lag:] * flat[:-lag]).mean().item()) < 5e-3
    for other in drawn[1:]:
        assert abs((drawn[0] * other).mean().item()) < 5e-3
    sums = torch.stack([one @ torch.ones(1000) / 1000**0.5 for one in drawn]).flatten()
    assert sums.std().item() == pytest.approx(1.0, abs=0.05)


def test_a_single_number_has_no_deviation() -> None:
    assert torch.equal(noise("w", torch.tensor([3.0])), torch.zeros(1))


def test_stream_keys_are_frozen() -> None:
    # From b2sum -l 64 of "1/2/w", so that a run resumed by a later version draws the same.
    assert balance.stream_key(1, 2, "w") == int.from_bytes(bytes.fromhex("1711e2509106d7b6"), "little") >> 1
    keys = {balance.stream_key(seed, step, name) for seed in range(20) for step in range(20) for name in ("a", "b")}
    assert len(keys) == 800
    assert all(0 <= key < 2**63 for key in keys)
