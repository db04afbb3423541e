"""The encoder of preset `corrected`: what it starts as, and what it may and may not see."""

import math

import torch
from torch import Tensor

from ada2i.batch import Layout
from ada2i.model.context import ContextEncoder
from tests.unit.model.batches import random_rows

WIDTH, HIDDEN = 10, 6


def encoder(*, inertia: float = 0.4, causal: bool = False) -> ContextEncoder:
    torch.manual_seed(0)
    return ContextEncoder(
        width=WIDTH,
        hidden_dim=HIDDEN,
        layers=1,
        feedforward_dim=8,
        dropout=0.5,
        input_dropout=0.5,
        inertia=inertia,
        positions=True,
        speakers=True,
        causal=causal,
    ).eval()


def encode(network: ContextEncoder, rows: Tensor, *lengths: int, speakers: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        who = torch.zeros(len(rows), dtype=torch.int64) if speakers is None else speakers
        found: Tensor = network(rows, Layout(lengths, max(lengths)), who, None)
    return found


def test_it_starts_as_an_average_that_falls_off_with_distance() -> None:
    network, rows = encoder(), random_rows(3, WIDTH, seed=1)
    with torch.no_grad():
        network.layers[0].attention_in.weight[: 2 * WIDTH] = 0.0  # type: ignore[union-attr, operator]
    normed = [(row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt() for row in rows]
    mixed = []
    for i in range(3):
        shares = [math.exp(-0.5 * abs(i - j)) for j in range(3)]
        near = sum((share / sum(shares) * normed[j] for j, share in enumerate(shares)), torch.zeros(WIDTH))
        mixed.append(rows[i] + 0.4 * near)
    with torch.no_grad():
        wanted = network.project(network.norm(torch.stack(mixed)))
    torch.testing.assert_close(encode(network, rows, 3), wanted, rtol=0, atol=1e-5)


def test_without_inertia_it_starts_blind_to_the_others() -> None:
    network, rows = encoder(inertia=0.0), random_rows(4, WIDTH, seed=2)
    torch.testing.assert_close(encode(network, rows, 4)[:1], encode(network, rows[:1], 1), rtol=0, atol=1e-6)


def test_dialogues_do_not_see_each_other_or_padding() -> None:
    network, rows = encoder(), random_rows(7, WIDTH, seed=3)
    together = encode(network, rows, 2, 5)
    torch.testing.assert_close(together[:2], encode(network, rows[:2], 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(together[2:], encode(network, rows[2:], 5), rtol=0, atol=1e-6)


def test_causal_the_future_changes_nothing() -> None:
    network, rows = encoder(causal=True), random_rows(5, WIDTH, seed=4)
    changed = rows.clone()
    changed[3:] = random_rows(2, WIDTH, seed=9)
    before, after = encode(network, rows, 5), encode(network, changed, 5)
    assert before[:3].equal(after[:3])
    assert not torch.allclose(before[3], after[3], atol=1e-3)


def test_far_utterances_are_all_equally_far() -> None:
    network, rows = encoder(), random_rows(21, WIDTH, seed=5)
    swapped = rows.clone()
    swapped[[12, 20]] = rows[[20, 12]]  # both more than 8 from the first
    torch.testing.assert_close(encode(network, rows, 21)[0], encode(network, swapped, 21)[0], rtol=0, atol=1e-5)


def test_the_same_speaker_counts_once_it_is_learned() -> None:
    network, rows = encoder(), random_rows(4, WIDTH, seed=6)
    one, two = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 0, 1])
    assert encode(network, rows, 4, speakers=one).equal(encode(network, rows, 4, speakers=two))
    with torch.no_grad():
        network.layers[0].same_speaker.fill_(3.0)  # type: ignore[operator]
    assert not torch.allclose(encode(network, rows, 4, speakers=one), encode(network, rows, 4, speakers=two), atol=1e-3)
