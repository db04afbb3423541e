"""Turns of a request: their form, their limits and their vectors."""

import base64
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ada2i.errors import DataError
from ada2i.serving.limits import Limits
from ada2i.serving.turns import GivenTurn, checked, read_features

LIMITS = Limits(turns=2, text_chars=5, clip_bytes=3)
WIDTHS: Any = {"text": 2, "audio": 3}


def turn(**given: Any) -> GivenTurn:
    return GivenTurn.model_validate(given)


def test_a_turn_holds_features_or_what_they_are_extracted_from() -> None:
    clip = base64.b64encode(b"abc").decode()
    first, second = checked([turn(features={"text": [1, 2.5], "audio": None}), turn(text="hello", clip=clip)], LIMITS)
    assert first.features is not None
    text = first.features["text"]
    assert text is not None
    assert text.dtype == np.float32
    assert (text.tolist(), first.features["audio"]) == ([1.0, 2.5], None)
    assert (second.features, second.text, second.clip) == (None, "hello", b"abc")


@pytest.mark.parametrize(
    ("given", "message", "status"),
    [
        ([{}], r"`turns\.0` must have either `features`, or at least one of `text` and `clip`, but has neither", None),
        ([{"text": "a", "features": {}}], r"but has both forms", None),
        ([{"text": "a"}, {"text": "longer"}], r"`turns\.1\.text` must have at most 5 characters, but has 6", 413),
        ([{"clip": "YWJjZA=="}], r"`turns\.0\.clip` must have at most 3 bytes, but has 4", 413),
        ([{"clip": "no base64"}], r"`turns\.0\.clip` must be a media file in base64, but is not", None),
        ([{"text": "a"}] * 3, r"at most 2 turns, but has 3", 413),
    ],
)
def test_what_is_wrong_is_named(given: list[dict[str, Any]], message: str, status: int | None) -> None:
    with pytest.raises(DataError, match=message) as refused:
        checked([turn(**one) for one in given], LIMITS)
    assert refused.value.context.get("status") == status


@pytest.mark.parametrize("vector", [[float("nan")], [float("inf")], ["1.0"], [None], [[1.0]], 5, "text"])
def test_vectors_are_lists_of_finite_numbers(vector: Any) -> None:
    with pytest.raises(ValidationError, match=r"features\.text"):
        turn(features={"text": vector})


def test_features_are_those_that_the_version_reads() -> None:
    found = read_features({"audio": np.ones(3, np.float32)}, WIDTHS, "m@1", "turns.0")
    assert list(found) == ["text", "audio"]
    assert found["text"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"smell": None}, r"must name modalities that m@1 reads, text, audio, but names 'smell'\. Leave it out"),
        ({"text": np.ones(3, np.float32)}, r"`turns\.0\.features\.text` must be 2 numbers, .* but has 3"),
        ({"text": np.array([1, np.inf], np.float32)}, r"but has one beyond float32"),
    ],
)
def test_other_features_are_refused(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_features(given, WIDTHS, "m@1", "turns.0")
