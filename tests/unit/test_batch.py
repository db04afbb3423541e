"""Rows and the padded grid, against torch's own padding."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from ada2i.batch import DialogueBatch, Layout

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6).map(tuple)
PADDING = st.integers(0, 3)
quick = settings(deadline=None, max_examples=50)


def layout_of(lengths: tuple[int, ...], padding: int) -> Layout:
    return Layout(lengths, max(lengths) + padding)


def batch_of(lengths: tuple[int, ...], padded_length: int, rows: int | None = None) -> DialogueBatch:
    number = sum(lengths) if rows is None else rows
    return DialogueBatch(
        features={"text": torch.zeros(number, 2)},
        present={"text": torch.ones(number, dtype=torch.bool)},
        labels=torch.zeros(number, dtype=torch.int64),
        speakers=torch.zeros(number, dtype=torch.int64),
        layout=Layout(lengths, padded_length),
        global_utterances=number,
        global_dialogues=len(lengths),
    )


@quick
@given(LENGTHS, PADDING)
def test_pad_places_rows_as_torch_does(lengths: tuple[int, ...], padding: int) -> None:
    layout = layout_of(lengths, padding)
    rows = torch.arange(1.0, 1 + 3 * sum(lengths)).view(-1, 3)
    grid = pad_sequence(list(torch.split(rows, list(lengths))), batch_first=True)
    wanted = torch.cat([grid, grid.new_zeros(len(lengths), padding, 3)], dim=1)
    assert torch.equal(layout.pad(rows).view(len(lengths), -1, 3), wanted)


@quick
@given(LENGTHS, PADDING)
def test_unpad_is_the_inverse(lengths: tuple[int, ...], padding: int) -> None:
    layout = layout_of(lengths, padding)
    rows = torch.randn(sum(lengths), 2, 2)
    assert torch.equal(layout.unpad(layout.pad(rows)), rows)


@quick
@given(LENGTHS, PADDING)
def test_slots_and_occupied(lengths: tuple[int, ...], padding: int) -> None:
    layout = layout_of(lengths, padding)
    wanted = [d * layout.padded_length + position for d, length in enumerate(lengths) for position in range(length)]
    assert layout.slots.tolist() == wanted
    assert layout.occupied.flatten().nonzero().flatten().tolist() == wanted
    assert layout.occupied.shape == (len(lengths), layout.padded_length)


@quick
@given(LENGTHS, PADDING)
def test_dialogue_of_each_row(lengths: tuple[int, ...], padding: int) -> None:
    layout = layout_of(lengths, padding)
    wanted = [d for d, length in enumerate(lengths) for _ in range(length)]
    assert layout.dialogue.tolist() == wanted
    assert layout.one_hot.argmax(dim=1).tolist() == wanted
    assert layout.one_hot.sum(dim=1).eq(1).all()


def test_the_full_layout_is_the_grid_itself() -> None:
    layout = Layout((2, 5), 6)
    assert layout.full == Layout((6, 6), 6)
    assert not layout.is_full
    assert layout.full.is_full
    grid = torch.randn(12, 3)
    assert layout.full.pad(grid) is grid


@quick
@given(st.lists(st.integers(1, 200), min_size=1, max_size=40).map(tuple))
def test_rounded_layouts_come_in_few_sizes(lengths: tuple[int, ...]) -> None:
    layout = layout_of(lengths, 0)
    rows, rounded = sum(lengths), sum(layout.rounded.lengths)
    assert layout.rounded.lengths[: len(lengths)] == lengths
    assert 0 <= rounded - rows < max(16, rows / 8)
    assert rounded % 16 == 0
    assert rounded % ((1 << rows.bit_length()) // 16 or 1) == 0  # eight sizes at most from one power of two to the next


def test_padding_takes_part_in_gradients() -> None:
    layout = Layout((1, 3), 3)
    rows = torch.randn(4, 2, requires_grad=True)
    layout.unpad(layout.pad(rows) * 2).sum().backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    assert torch.equal(rows.grad, torch.full((4, 2), 2.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: batch_of((2, 3), 2), r"lengths must lie in 1..2 \(padded_length\), but are \(2, 3\)"),
        (lambda: batch_of((0, 3), 3), "lengths must lie in 1..3"),
        (lambda: batch_of((), 3), "lengths must lie in 1..3"),
        (lambda: batch_of((2, 3), 3, rows=6), "all tensors must have 5 rows, the sum of lengths"),
    ],
)
def test_checks(make: Callable[[], DialogueBatch], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_to_the_same_device_is_free() -> None:
    batch = batch_of((2, 3), 3)
    assert batch.to(torch.device("cpu")) is batch


def test_to_moves_everything() -> None:
    moved = batch_of((2, 3), 3).to(torch.device("meta"))
    tensors = [*moved.features.values(), *moved.present.values(), moved.labels, moved.layout.lengths_tensor]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
