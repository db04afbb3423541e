"""The order of dialogues is a pure function of (seed, epoch); ranks only share it out."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ada2i.data.order import cut, epoch_batches, share

SEEDS, EPOCHS = st.integers(0, 2**31), st.integers(1, 1000)
quick = settings(deadline=None, max_examples=60)
MASK = 2**64 - 1


def splitmix(key: int) -> int:
    """One output of SplitMix64 as published, in plain integers."""
    key = (key + 0x9E3779B97F4A7C15) & MASK
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & MASK
    return key ^ (key >> 31)


@quick
@given(SEEDS, EPOCHS, st.integers(1, 60), st.integers(1, 20))
def test_the_stream_never_changes(seed: int, epoch: int, dialogues: int, size: int) -> None:
    key = splitmix(splitmix(seed) ^ epoch)
    wanted = sorted(range(dialogues), key=lambda d: splitmix(d ^ key))
    batches = epoch_batches(dialogues, batch_dialogues=size, seed=seed, epoch=epoch)
    assert list(chain(*batches)) == wanted


def test_published_outputs_of_the_mixer() -> None:
    # The first outputs of SplitMix64 seeded with 0, as in Vigna's reference code.
    assert [splitmix(n * 0x9E3779B97F4A7C15 & MASK) for n in range(2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@quick
@given(SEEDS, EPOCHS, st.integers(1, 60), st.integers(1, 20))
def test_an_epoch_sees_every_dialogue_once(seed: int, epoch: int, dialogues: int, size: int) -> None:
    batches = epoch_batches(dialogues, batch_dialogues=size, seed=seed, epoch=epoch)
    assert sorted(chain(*batches)) == list(range(dialogues))
    assert {len(batch) for batch in batches[:-1]} <= {size}
    assert 1 <= len(batches[-1]) <= size
    assert batches == epoch_batches(dialogues, batch_dialogues=size, seed=seed, epoch=epoch)


def test_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(chain(*epoch_batches(50, batch_dialogues=8, seed=seed, epoch=epoch)))
        for seed in range(20)
        for epoch in range(1, 21)
    }
    assert len(orders) == 400


def test_every_dialogue_comes_first_now_and_then() -> None:
    firsts = [epoch_batches(5, batch_dialogues=1, seed=1, epoch=epoch)[0][0] for epoch in range(1, 1001)]
    assert all(150 < count < 250 for count in np.bincount(firsts))


def test_cut_keeps_the_order() -> None:
    assert cut([5, 3, 1, 4], 3) == [[5, 3, 1], [4]]
    assert cut([], 3) == []


BATCHES = st.lists(st.integers(1, 40), min_size=1, max_size=20)  # lengths of the dialogues of a batch
RANKS = st.integers(1, 6)


@quick
@given(BATCHES, RANKS)
def test_share_is_a_partition_in_order(lengths: list[int], ranks: int) -> None:
    batch = list(reversed(range(len(lengths))))
    shares = share(batch, np.array(lengths), ranks)
    assert len(shares) == ranks
    assert sorted(chain(*shares)) == sorted(batch)
    assert all(own == [d for d in batch if d in own] for own in shares)


@quick
@given(BATCHES, RANKS)
def test_share_is_balanced(lengths: list[int], ranks: int) -> None:
    loads = [sum(lengths[d] for d in own) for own in share(range(len(lengths)), np.array(lengths), ranks)]
    assert max(loads) - min(loads) <= max(lengths)
    # Graham 1966: greedy exceeds the best possible by less than the last dialogue placed.
    assert max(loads) * ranks <= sum(lengths) + (ranks - 1) * max(lengths)


@quick
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20, unique=True), RANKS, st.randoms())
def test_who_shares_with_whom_does_not_depend_on_the_batchs_order(
    lengths: list[int], ranks: int, random: object
) -> None:
    batch = list(range(len(lengths)))
    shuffled = np.random.RandomState(len(lengths)).permutation(batch).tolist()
    ours = [sorted(own) for own in share(batch, np.array(lengths), ranks)]
    assert [sorted(own) for own in share(shuffled, np.array(lengths), ranks)] == ours


@quick
@given(SEEDS, st.integers(1, 30))
def test_batches_do_not_depend_on_the_number_of_ranks(seed: int, dialogues: int) -> None:
    lengths = np.arange(1, dialogues + 1)
    for batch in epoch_batches(dialogues, batch_dialogues=7, seed=seed, epoch=1):
        for ranks in (1, 2, 3, 8):
            assert set(chain(*share(batch, lengths, ranks))) == set(batch)


def test_longest_first_to_the_least_loaded() -> None:
    lengths = np.array([7, 6, 5, 4, 3, 2])
    assert share(range(6), lengths, 2) == [[0, 3, 4], [1, 2, 5]]  # 7+4+3 and 6+5+2


@pytest.mark.parametrize("ranks", [3, 5])
def test_ranks_without_dialogues_get_none(ranks: int) -> None:
    assert share([4, 2], np.array([1, 1, 9, 1, 2]), ranks) == [[2], [4], *([[]] * (ranks - 2))]
