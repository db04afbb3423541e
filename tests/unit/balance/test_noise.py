"""Noise with a gradient's own deviation, from streams that depend on (seed, step, name) alone."""

import pytest
import torch
from torch import Tensor

from ada2i.balance import noise as noise_
from tests.unit.model.batches import random_rows


def noise(name: str, gradient: Tensor, *, seed: int = 1, step: int = 2) -> Tensor:
    added = torch.zeros_like(gradient)
    deviations = noise_.deviations([gradient], gradient.norm()[None])
    noise_.add_noise_([added], [name], deviations, noise_.StepDraws(seed, step))
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
    noise_.add_noise_(added, list(together), noise_.deviations(list(together.values()), norms), noise_.StepDraws(1, 2))
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
    found = noise_.deviations(tensors, torch.stack([x.norm() for x in tensors]))
    torch.testing.assert_close(found, torch.stack([x.std() for x in tensors]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "tensor", [torch.tensor([4.0]), torch.tensor([1.0, float("inf")]), torch.full((3,), float("nan"))]
)
def test_tensors_without_a_deviation_have_zero(tensor: Tensor) -> None:
    assert noise_.deviations([tensor], tensor.norm()[None]).tolist() == [0.0]


def test_a_single_number_has_no_deviation() -> None:
    assert torch.equal(noise("w", torch.tensor([3.0])), torch.zeros(1))


def test_stream_keys_are_frozen() -> None:
    # From b2sum -l 64 of "1/2/w", so that a run resumed by a later version draws the same.
    assert noise_.stream_key(1, 2, "w") == int.from_bytes(bytes.fromhex("1711e2509106d7b6"), "little") >> 1
    keys = {noise_.stream_key(seed, step, name) for seed in range(20) for step in range(20) for name in ("a", "b")}
    assert len(keys) == 800
    assert all(0 <= key < 2**63 for key in keys)
