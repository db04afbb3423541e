"""The order of dialogues is a pure function of (seed, epoch) and the shards; ranks only share it out."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ada2i.loader.order import Order, Shards, in_order, share, shuffled

SEEDS, EPOCHS = st.integers(0, 2**31), st.integers(1, 1000)
quick = settings(deadline=None, max_examples=60)
MASK = 2**64 - 1


def splitmix(key: int) -> int:
    """One output of SplitMix64 as published, in plain integers."""
    key = (key + 0x9E3779B97F4A7C15) & MASK
    key = ((key ^ (key >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    key = ((key ^ (key >> 27)) * 0x94D049BB133111EB) & MASK
    return key ^ (key >> 31)


def whole_epoch(dialogues: int, *, size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch that is shuffled as a whole."""
    split = Shards(np.array([0, dialogues]), np.array([1]), window=1.0)
    return [batch.dialogues for batch in shuffled(split, batch_dialogues=size, seed=seed, epoch=epoch).batches()]


@quick
@given(SEEDS, EPOCHS, st.integers(1, 60), st.integers(1, 20))
def test_the_stream_never_changes(seed: int, epoch: int, dialogues: int, size: int) -> None:
    key = splitmix(splitmix(seed) ^ epoch)
    wanted = sorted(range(dialogues), key=lambda d: splitmix(d ^ key))
    assert list(chain(*whole_epoch(dialogues, size=size, seed=seed, epoch=epoch))) == wanted


def test_published_outputs_of_the_mixer() -> None:
    # The first outputs of SplitMix64 seeded with 0, as in Vigna's reference code.
    assert [splitmix(n * 0x9E3779B97F4A7C15 & MASK) for n in range(2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(chain(*whole_epoch(50, size=8, seed=seed, epoch=epoch))) for seed in range(20) for epoch in range(1, 21)
    }
    assert len(orders) == 400


def test_every_dialogue_comes_first_now_and_then() -> None:
    firsts = [whole_epoch(5, size=1, seed=1, epoch=epoch)[0][0] for epoch in range(1, 1001)]
    assert all(150 < count < 250 for count in np.bincount(firsts))


@st.composite
def splits(draw: st.DrawFn) -> Shards:
    """A split of some shards, each of a few dialogues and of a size of its own, and a window."""
    shards = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 20)), min_size=1, max_size=12))
    edges = np.cumsum([0, *(dialogues for dialogues, _ in shards)])
    return Shards(edges, np.array([size for _, size in shards]), window=draw(st.floats(0.5, 300)))


def order_of(split: Shards, size: int, seed: int, *, shuffle: bool) -> Order:
    if shuffle:
        return shuffled(split, batch_dialogues=size, seed=seed, epoch=3)
    return in_order(split, batch_dialogues=size)


@quick
@given(splits(), st.integers(1, 20), SEEDS, st.booleans())
def test_a_pass_sees_every_dialogue_once(split: Shards, size: int, seed: int, shuffle: bool) -> None:
    order = order_of(split, size, seed, shuffle=shuffle)
    batches = [batch.dialogues for batch in order.batches()]
    assert sorted(chain(*batches)) == list(range(split.edges[-1]))
    assert len(batches) == len(order)
    assert {len(batch) for batch in batches[:-1]} <= {size}
    assert 1 <= len(batches[-1]) <= size
    assert shuffle or list(chain(*batches)) == list(range(split.edges[-1]))


@quick
@given(splits(), st.integers(1, 20), SEEDS, st.booleans())
def test_a_pass_begun_anywhere_is_the_tail_of_the_whole(split: Shards, size: int, seed: int, shuffle: bool) -> None:
    whole = list(order_of(split, size, seed, shuffle=shuffle).batches())
    for start in range(len(whole) + 2):
        assert list(order_of(split, size, seed, shuffle=shuffle).batches(start)) == whole[start:]


@quick
@given(splits(), SEEDS, st.booleans())
def test_windows_are_bounded_and_as_few_as_fit(split: Shards, seed: int, shuffle: bool) -> None:
    windows = order_of(split, 1, seed, shuffle=shuffle).windows
    assert sorted(chain(*windows)) == list(range(len(split.sizes)))
    sizes = [int(split.sizes[shards].sum()) for shards in windows]
    assert all(size <= split.window or len(shards) == 1 for size, shards in zip(sizes, windows, strict=True))
    firsts = [int(split.sizes[shards[0]]) for shards in windows]
    assert all(size + after > split.window for size, after in zip(sizes[:-1], firsts[1:], strict=True))


@quick
@given(splits(), st.integers(1, 20), SEEDS, st.booleans())
def test_a_batch_names_the_windows_it_is_from(split: Shards, size: int, seed: int, shuffle: bool) -> None:
    order = order_of(split, size, seed, shuffle=shuffle)
    homes = {shard: number for number, shards in enumerate(order.windows) for shard in shards.tolist()}
    for batch in order.batches():
        shards = np.searchsorted(split.edges, batch.dialogues, side="right") - 1
        windows = [homes[shard] for shard in shards.tolist()]
        assert batch.windows == (min(windows), max(windows)) == (windows[0], windows[-1])
        assert windows == sorted(windows)


def test_windows_are_made_anew_each_epoch_and_shuffled_inside() -> None:
    split = Shards(np.arange(0, 401, 10), np.full(40, 7), window=30.0)
    orders = [shuffled(split, batch_dialogues=40, seed=1, epoch=epoch) for epoch in range(1, 21)]
    assert len({tuple(map(tuple, order.windows)) for order in orders}) == 20
    batches = [batch.dialogues for order in orders for batch in order.batches()]  # a window of four shards each
    assert all(batch != sorted(batch) and len({d // 10 for d in batch}) == 4 for batch in batches)
    assert all(len({d // 10 for d in batch[:10]}) > 1 for batch in batches)


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
def test_the_sharing_does_not_depend_on_the_batchs_order(lengths: list[int], ranks: int, random: object) -> None:
    batch = list(range(len(lengths)))
    shuffled = np.random.RandomState(len(lengths)).permutation(batch).tolist()
    ours = [sorted(own) for own in share(batch, np.array(lengths), ranks)]
    assert [sorted(own) for own in share(shuffled, np.array(lengths), ranks)] == ours


@quick
@given(splits(), SEEDS)
def test_batches_do_not_depend_on_the_number_of_ranks(split: Shards, seed: int) -> None:
    lengths = np.arange(1, split.edges[-1] + 1)
    for batch in shuffled(split, batch_dialogues=7, seed=seed, epoch=1).batches():
        for ranks in (1, 2, 3, 8):
            assert set(chain(*share(batch.dialogues, lengths, ranks))) == set(batch.dialogues)


def test_longest_first_to_the_least_loaded() -> None:
    lengths = np.array([7, 6, 5, 4, 3, 2])
    assert share(range(6), lengths, 2) == [[0, 3, 4], [1, 2, 5]]  # 7+4+3 and 6+5+2


@pytest.mark.parametrize("ranks", [3, 5])
def test_ranks_without_dialogues_get_none(ranks: int) -> None:
    assert share([4, 2], np.array([1, 1, 9, 1, 2]), ranks) == [[2], [4], *([[]] * (ranks - 2))]
