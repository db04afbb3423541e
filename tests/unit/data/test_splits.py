import hashlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ada2i.data.splits import cut_dev, normalise_split
from ada2i.errors import DataError


@pytest.mark.parametrize(
    ("written", "ours"),
    [("train", "train"), ("dev", "dev"), ("val", "dev"), ("valid", "dev"), ("Validation ", "dev"), ("TEST", "test")],
)
def test_corpora_name_splits_in_many_ways(written: str, ours: str) -> None:
    assert normalise_split(written) == ours


@pytest.mark.parametrize("written", ["", "training", "holdout", "None"])
def test_other_names_are_no_split(written: str) -> None:
    assert normalise_split(written) is None


def dev(ids: list[str]) -> list[str]:
    return list(cut_dev(pa.array(ids, pa.string()), uri="file:///x").to_pylist())


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@given(st.lists(st.text(max_size=6), min_size=2, max_size=60, unique=True))
def test_dev_is_a_tenth_of_the_dialogues_whatever_their_order(ids: list[str]) -> None:
    chosen = dev(ids)
    assert chosen == dev(ids[::-1]) == dev(ids + ids) == sorted(ids, key=digest)[: len(chosen)]
    assert (len(chosen) - 1) * 10 < len(ids) <= len(chosen) * 10
    assert 0 < len(chosen) < len(ids)


def test_the_rule_is_frozen() -> None:
    # By `printf %s dialogue-14 | sha256sum` and so on: 1070a37a, 11c7665e (dialogue-17), 1c13cd70 (dialogue-00).
    assert dev([f"dialogue-{number:02d}" for number in range(20)]) == ["dialogue-14", "dialogue-17"]


@pytest.mark.parametrize("ids", [[], ["a"], ["a", "a"]])
def test_one_dialogue_cannot_be_cut(ids: list[str]) -> None:
    with pytest.raises(
        DataError, match=r"^file:///x has no dev split, so `train` must hold at least 2 .* holds [01]\."
    ):
        cut_dev(pa.array(ids, pa.string()), uri="file:///x")
