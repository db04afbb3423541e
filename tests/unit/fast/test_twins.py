"""Each fast implementation against its plain one: equal up to rounding, or alike in distribution."""

from collections.abc import Iterator

import pytest
import torch

from ada2i import fast
from ada2i.batch import Layout
from ada2i.fast.adam import scaled_step
from ada2i.fast.allocator import keep_freed_memory
from ada2i.fast.attention import attend
from ada2i.fast.buckets import groups_of, rows_to_add, similar
from ada2i.fast.dropout import dropout
from tests.unit.model.batches import MASKED, build, make_batch, random_rows


@pytest.fixture(autouse=True)
def _on_again() -> Iterator[None]:
    yield
    fast.enable(True)


@pytest.mark.parametrize("broken", [False, True])
def test_adam(*, broken: bool) -> None:
    finals = []
    for on in (True, False):
        fast.enable(on)
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(4, 3)) for _ in range(3)]
        groups = [{"params": weights[:1]}, {"params": weights[1:]}]
        optimizer = torch.optim.Adam(groups, lr=0.01, weight_decay=1e-3, fused=True)
        for step in range(4):
            for number, weight in enumerate(weights):
                weight.grad = random_rows(4, 3, seed=10 * step + number)
            stopped = torch.tensor(float(broken and step == 2))
            moved = scaled_step(optimizer, torch.tensor([0.5, 2.0]), torch.tensor([1.0, 0.25]), stopped)
            assert moved.item() == float(not (broken and step >= 2))
        assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01]
        finals.append([weight.detach() for weight in weights])
    torch.testing.assert_close(*finals)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_that_drops_nothing(*, masked: bool) -> None:
    shapes, rows = [(2, 5), (3, 1)], random_rows(13, 3 * 4, seed=0)
    masks = [torch.ones(5, 5, dtype=torch.bool).tril().expand(2, 1, 5, 5) if masked else None, None]
    results = []
    for on in (True, False):
        fast.enable(on)
        projected = rows.clone().requires_grad_()
        mean = attend(projected, shapes, masks, 2, 1e-12)  # drops nothing, in the way of one that may
        mean.backward(random_rows(13, 4, seed=1))  # type: ignore[no-untyped-call]
        results.append((mean, projected.grad))
    torch.testing.assert_close(*results)


def test_attention_hands_down_a_gradient_that_fits_its_draw() -> None:
    rows = random_rows(6, 3 * 4, seed=0).double().requires_grad_()

    def drawn(projected: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return attend(projected, [(2, 3)], [None], 2, 0.4)

    assert torch.autograd.gradcheck(drawn, (rows,), eps=1e-3, atol=1e-2)


def test_a_mask_that_is_learned_gets_a_gradient_despite_dropout() -> None:
    bias = torch.zeros(1, 1, 3, 3, requires_grad=True)
    attend(random_rows(3, 3 * 4, seed=0), [(1, 3)], [bias], 2, 0.1).sum().backward()  # type: ignore[no-untyped-call]
    assert bias.grad is not None
    assert bias.grad.abs().sum() > 0


def test_dropout_drops_the_same_share() -> None:
    shares = []
    for on in (True, False):
        fast.enable(on)
        torch.manual_seed(0)
        dropped = dropout(torch.ones(400, 500), 0.3, training=True)
        shares.append((dropped == 0).float().mean().item())
        assert dropped.max().item() == pytest.approx(1 / 0.7, rel=1e-4)
    assert shares == pytest.approx([0.3, 0.3], abs=0.01)


def test_rows_are_grouped_and_rounded_only_if_fast() -> None:
    lengths = (2, 130, 1, 3)
    assert groups_of(lengths) == similar(lengths) != [[0, 1, 2, 3]]
    assert (136 + rows_to_add(136)) % 16 == 0
    fast.enable(False)
    assert groups_of(lengths) == [[0, 1, 2, 3]]
    assert rows_to_add(136) == 0
    assert not keep_freed_memory()
    assert Layout((2, 3), 4).rounded == Layout((2, 3), 4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_predicts_the_same(precision: str) -> None:
    batch = make_batch((9, 1, 140))
    model = build({**MASKED, "model.precision": precision}).eval()
    quick = model(batch).logits
    fast.enable(False)
    plain = model(make_batch((9, 1, 140))).logits
    torch.testing.assert_close(plain, quick, atol=1e-5 if precision == "float32" else 0.02, rtol=0)
