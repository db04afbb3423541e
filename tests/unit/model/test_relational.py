"""The relational encoder: decayed means against a naive double loop, and what an utterance may see."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ada2i.batch import Layout
from ada2i.model.relational import Neighbours, RelationalEncoder, decayed_sums, relation_means
from tests.unit.model.batches import random_rows

WIDTH, HIDDEN = 5, 6


def naive(rows: Tensor, lengths: tuple[int, ...], speakers: Tensor, present: Tensor, *, causal: bool) -> Tensor:
    """Return the means of decays 3 and 1.5 and of the dialogue, in double precision, one pair at a time."""
    found, start = [], 0
    for length in lengths:
        places = range(start, start + length)
        for i in places:
            parts = []
            for decay in (3.0, 1.5):
                for past in (True,) if causal else (True, False):
                    for same in (True, False):
                        seen = [j for j in places if (j < i if past else j > i)]
                        near = [j for j in seen if (speakers[j] == speakers[i]) == same and present[j]]
                        parts.append(naive_mean(rows, i, near, decay))
            whole = [j for j in places if present[j] and (j <= i or not causal)]
            found.append(torch.cat([*parts, naive_mean(rows, i, whole, 15.0)]))
        start += length
    return torch.stack(found)


def naive_mean(rows: Tensor, i: int, neighbours: list[int], decay: float) -> Tensor:
    weights = [math.exp(-abs(i - j) / decay) for j in neighbours]
    total = sum((w * rows[j].double() for w, j in zip(weights, neighbours, strict=True)), torch.zeros(WIDTH).double())
    return total / max(sum(weights), 1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [(1,), (3, 1, 2), (70, 5, 130, 64)])
def test_means_are_those_of_a_naive_loop(lengths: tuple[int, ...], causal: bool) -> None:
    rows = random_rows(sum(lengths), WIDTH, seed=1)
    draw = torch.Generator().manual_seed(2)
    speakers = torch.randint(3, (len(rows),), generator=draw)
    present = torch.rand(len(rows), generator=draw) < 0.8
    layout = Layout(lengths, max(lengths))
    found = relation_means(rows, layout, speakers, present, decays=(3.0, 1.5), dialogue_decay=15.0, causal=causal)
    expected = naive(rows, lengths, speakers, present, causal=causal)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_a_state_carried_between_calls_is_the_whole_pass() -> None:
    rows, hot = random_rows(100, WIDTH, seed=3)[None], torch.eye(2)[torch.arange(100) % 3 // 2][None]
    whole = decayed_sums(rows, hot, 3.0)
    state = rows.new_zeros(1, 2, WIDTH)
    for start, end in ((0, 1), (1, 70), (70, 100)):
        same, other = decayed_sums(rows[:, start:end], hot[:, start:end], 3.0, state)
        torch.testing.assert_close(same, whole[0][:, start:end])
        torch.testing.assert_close(other, whole[1][:, start:end])


def test_a_causal_encoder_does_not_see_later_utterances() -> None:
    torch.manual_seed(0)
    network = encoder(causal=True)
    rows, who = random_rows(90, WIDTH, seed=4), torch.arange(90) % 2
    with torch.no_grad():
        whole = network(rows, Layout((90,), 90), who, None)
        for end in (1, 2, 64, 65, 89):
            begun = network(rows[:end], Layout((end,), end), who[:end], None)
            torch.testing.assert_close(begun, whole[:end])


def test_another_dialogue_changes_nothing() -> None:
    network = encoder()
    rows, who = random_rows(12, WIDTH, seed=5), torch.tensor([0, 1] * 6)
    with torch.no_grad():
        alone = network(rows[:5], Layout((5,), 5), who[:5], None)
        together = network(rows, Layout((5, 7), 7), who, None)
    torch.testing.assert_close(together[:5], alone)


def test_a_speaker_far_away_fades_to_zero() -> None:
    rows = torch.ones(400, WIDTH)
    speakers = torch.zeros(400, dtype=torch.int64)
    speakers[0] = 1
    means = relation_means(rows, Layout((400,), 400), speakers, None, decays=(3.0,), dialogue_decay=15.0)
    other_before = means[:, WIDTH]
    assert other_before[1] == pytest.approx(1.0)
    assert other_before[20] == pytest.approx(1.0, abs=1e-4)
    assert other_before[399] == 0.0
    assert torch.isfinite(means).all()


def test_long_dialogues_need_no_table_of_pairs() -> None:
    rows, who = random_rows(30_000, 2, seed=6), torch.zeros(30_000, dtype=torch.int64)
    means = relation_means(rows, Layout((30_000,), 30_000), who, None, decays=(3.0,), dialogue_decay=15.0)
    assert means.shape == (30_000, 10)  # a table of pairs would take 3.6 GB
    assert torch.isfinite(means).all()


def test_without_hidden_layers_it_is_linear() -> None:
    network = encoder(layers=0)
    rows, other = random_rows(6, WIDTH, seed=7), random_rows(6, WIDTH, seed=8)
    layout, who = Layout((6,), 6), torch.tensor([0, 1, 0, 1, 0, 1])
    with torch.no_grad():
        zero = network(torch.zeros_like(rows), layout, who, None)
        summed = network(rows + other, layout, who, None) - zero
        parts = network(rows, layout, who, None) + network(other, layout, who, None) - 2 * zero
    torch.testing.assert_close(summed, parts, rtol=1e-4, atol=1e-5)


def encoder(*, causal: bool = False, layers: int = 1) -> Callable[[Tensor, Layout, Tensor, Tensor | None], Tensor]:
    """Return an encoder together with the means that it reads."""
    torch.manual_seed(0)
    neighbours = Neighbours(decays=(3.0,), dialogue_decay=15.0, causal=causal)
    network = RelationalEncoder(
        width=WIDTH,
        relations=neighbours.relations,
        hidden_dim=HIDDEN,
        layers=layers,
        feedforward_dim=8,
        dropout=0.5,
        input_dropout=0.7,
    ).eval()

    def encode(rows: Tensor, layout: Layout, who: Tensor, present: Tensor | None) -> Tensor:
        extended = neighbours({"text": rows}, layout, who, {"text": present})["text"]
        found: Tensor = network(extended, layout, who, present)
        return found

    return encode
