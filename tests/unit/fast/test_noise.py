"""Windows of a pool against numbers that are drawn one by one: both are Gaussian and uncorrelated."""

import math
from collections.abc import Iterator

import pytest
import torch

from ada2i import fast
from ada2i.fast.noise import _POOL, _pool, gaussian


def drawn_by(like: torch.Tensor, key: int) -> torch.Tensor:
    """Return the whole noise for a tensor."""
    drawn = torch.full((like.numel(),), math.nan)
    for start, numbers, sign in gaussian(like, key):
        drawn[start : start + len(numbers)] = numbers * sign
    return drawn.view(like.shape)


@pytest.fixture(params=[True, False], ids=["fast", "plain"])
def _both(request: pytest.FixtureRequest) -> Iterator[None]:
    fast.enable(request.param)
    yield
    fast.enable(True)


@pytest.mark.usefixtures("_both")
def test_noise_is_gaussian_and_uncorrelated() -> None:
    drawn = [drawn_by(torch.empty(1000, 1000), 1234567 * key) for key in range(4)]
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


@pytest.mark.usefixtures("_both")
def test_a_key_gives_the_same_noise_again() -> None:
    one, same, other = (drawn_by(torch.empty(30, 7), key) for key in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_tensor_larger_than_a_window_needs_no_larger_pool() -> None:
    drawn = drawn_by(torch.empty(3, _POOL), 77).double()
    assert drawn.std().item() == pytest.approx(1.0, abs=5e-3)
    for one, other in ((0, 1), (0, 2), (1, 2)):  # its windows are of different places
        assert abs((drawn[one] * drawn[other]).mean().item()) < 5e-3
        assert not torch.equal(drawn[one].abs(), drawn[other].abs())
    assert len(_pool(torch.device("cpu"))) == 2 * _POOL
    assert _pool.cache_info().currsize == 1
