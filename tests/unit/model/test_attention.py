"""Attention by parts of similar length against attention one dialogue at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ada2i.batch import Layout
from ada2i.model.attention import Masks, dialogue_attention, visibility
from tests.unit.model.batches import random_rows

HEADS, WIDTH = 2, 6
LENGTHS = (2, 130, 1, 3, 120, 2)  # two groups


def one_at_a_time(rows: Tensor, lengths: tuple[int, ...], *, causal: bool) -> Tensor:
    out = []
    for dialogue in torch.split(rows, list(lengths)):
        q, k, v = (x.view(len(dialogue), HEADS, -1).transpose(0, 1) for x in dialogue.chunk(3, dim=-1))
        scores = q @ k.transpose(1, 2) / (WIDTH / HEADS) ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones(len(dialogue), len(dialogue)).triu(1).bool(), float("-inf"))
        out.append((scores.softmax(-1) @ v).transpose(0, 1).reshape(len(dialogue), -1))
    return torch.cat(out)


def attend(rows: Tensor, layout: Layout, masks: Masks, dropout_p: float) -> Tensor:
    return dialogue_attention(rows, layout, masks, heads=HEADS, dropout_p=dropout_p)


@pytest.mark.parametrize("dropout_p", [0.0, 1e-12])  # the latter drops nothing, in the way of what may
@pytest.mark.parametrize("causal", [False, True])
def test_equals_one_dialogue_at_a_time(*, causal: bool, dropout_p: float) -> None:
    layout = Layout(LENGTHS, 140)
    assert len(layout.parts) > 1
    rows = random_rows(sum(LENGTHS), 3 * WIDTH, seed=0).requires_grad_()
    masks = visibility(layout, None, causal=causal)
    found, wanted = attend(rows, layout, masks, dropout_p), one_at_a_time(rows, LENGTHS, causal=causal)
    torch.testing.assert_close(found, wanted)
    direction = random_rows(sum(LENGTHS), WIDTH, seed=1)
    gradients = [torch.autograd.grad((out * direction).sum(), rows)[0] for out in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_dropped_weights_leave_the_mean() -> None:
    layout = Layout((4, 4), 4)
    rows = random_rows(8, 3 * WIDTH, seed=1)
    masks = visibility(layout, None, causal=False)
    torch.manual_seed(0)
    draws = [attend(rows, layout, masks, 0.3) for _ in range(4000)]
    torch.testing.assert_close(torch.stack(draws).mean(0), one_at_a_time(rows, (4, 4), causal=False), atol=0.05, rtol=0)


def test_a_mask_that_is_added_or_hides_drops_alike() -> None:
    layout = Layout((5, 3), 5)
    rows = random_rows(8, 3 * WIDTH, seed=2)
    (visible,) = visibility(layout, None, causal=True)
    assert visible is not None
    added = torch.zeros(visible.shape).masked_fill(~visible, float("-inf"))
    outputs = []
    for mask in (visible, added):
        torch.manual_seed(7)
        outputs.append(attend(rows, layout, [mask], 0.5))
    assert torch.equal(*outputs)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=12).map(tuple))
def test_parts_hold_every_row_once(lengths: tuple[int, ...]) -> None:
    layout = Layout(lengths, max(lengths) + 2)
    rows = torch.arange(sum(lengths))
    grids = [part.grid(rows) for part in layout.parts]
    assert torch.equal(layout.from_grids(torch.cat([grid.flatten(0, 1) for grid in grids])), rows)
    own = [row.tolist()[:n] for part, grid in zip(layout.parts, grids, strict=True)
           for row, n in zip(grid, part.layout.lengths, strict=True)]  # fmt: skip
    assert sorted(own) == [dialogue.tolist() for dialogue in torch.split(rows, list(lengths))]
    for part, grid in zip(layout.parts, grids, strict=True):
        assert torch.equal(grid[~part.layout.occupied], grid[:, :1].expand_as(grid)[~part.layout.occupied])
    cells = sum(len(part.layout.lengths) * part.layout.padded_length**2 for part in layout.parts)
    assert cells <= len(lengths) * max(lengths) ** 2
