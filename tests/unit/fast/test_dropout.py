"""Dropout against its definition: shares, scale, gradient and keys."""

import pytest
import torch

from ada2i.fast.dropout import dropout, random_words


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drops_a_share_and_scales_the_rest(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(400, 501, dtype=dtype)
    dropped = dropout(x, p, training=True)
    assert dropped.shape == x.shape
    assert dropped.dtype == dtype
    zeros = dropped == 0
    assert zeros.float().mean().item() == pytest.approx(p, abs=0.01)
    torch.testing.assert_close(
        dropped[~zeros].float(), torch.full_like(dropped[~zeros], 1 / (1 - p)).float(), rtol=5e-3, atol=0
    )


def test_the_gradient_passes_where_the_value_did() -> None:
    torch.manual_seed(1)
    x = torch.randn(13, 7, requires_grad=True)
    kept = dropout(x, 0.4, training=True)
    kept.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), kept.detach())


def test_rows_and_columns_are_dropped_independently() -> None:
    torch.manual_seed(2)
    kept = (dropout(torch.ones(2000, 64), 0.5, training=True) != 0).float() - 0.5
    assert (kept.T @ kept / 2000 - torch.eye(64) / 4).abs().max() < 0.05


def test_draws_follow_the_generator() -> None:
    x = torch.ones(50, 3)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5, training=True), dropout(x, 0.5, training=True)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.5, training=True))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_nothing_is_drawn_without_need(p: float, *, training: bool) -> None:
    torch.manual_seed(4)
    wanted = torch.rand(2)
    torch.manual_seed(4)
    x = torch.ones(5)
    assert dropout(x, p, training) is x
    assert torch.equal(torch.rand(2), wanted)


def test_the_highest_share_leaves_finite_numbers() -> None:
    assert dropout(torch.ones(1000), 1 - 1e-9, training=True).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_expectation_is_kept(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    means = [dropout(torch.ones(1 << 20, dtype=dtype), 0.1, training=True).double().mean() for _ in range(8)]
    assert torch.stack(means).mean().item() == pytest.approx(1.0, abs=1e-3 if dtype == torch.float32 else 2e-3)


def test_bits_are_fair_and_draws_unlike_each_other() -> None:
    torch.manual_seed(6)
    drawn = [random_words(1 << 15) for _ in range(6)]
    signs = [2.0 * (words[:, None] >> torch.arange(64) & 1).flatten() - 1.0 for words in drawn]
    for number, one in enumerate(signs):
        assert abs(one.mean().item()) < 4e-3
        for lag in (1, 16, 64, 640):
            assert abs((one[lag:] * one[:-lag]).mean().item()) < 4e-3
        for other in signs[:number]:
            assert abs((one * other).mean().item()) < 4e-3


def test_more_bits_than_a_table_holds() -> None:
    torch.manual_seed(7)
    words = random_words((1 << 21) + 3)
    assert len(words) == (1 << 21) + 3
    assert len(torch.unique(words)) > len(words) - 10
