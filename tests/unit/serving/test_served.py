"""A loaded version: its answers equal those of a prediction, live turns as well."""

from typing import Any

import numpy as np
import pytest

from ada2i.data.manifest import open_features
from ada2i.importers.demo import write_demo_corpus
from ada2i.serving.live import Context, follow
from ada2i.serving.served import Served, answer, load_served
from ada2i.serving.turns import Vectors
from tests.served import differs
from tests.unit.prediction.tiny import registered


@pytest.fixture(scope="module", params=["corrected", "reference"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    root = (tmp_path_factory.mktemp("served") / request.param).as_uri()
    version = registered(root, open_features(write_demo_corpus(root, dialogues=20)).info(), request.param)
    return load_served(root, version.name, own_code={}, allowed=())


def dialogues(served: Served, *lengths: int) -> list[list[Vectors]]:
    random = np.random.default_rng(4)

    def turn(number: int) -> Vectors:
        vectors: Any = {m: random.standard_normal(w).astype(np.float32) for m, w in served.widths.items()}
        if number % 3 == 1:
            vectors["audio"] = None
        return Vectors("ABC"[number % 3], vectors)

    return [[turn(number) for number in range(length)] for length in lengths]


def test_a_dialogue_is_answered_alike_in_any_batch(served: Served) -> None:
    given = dialogues(served, 5, 1, 9, 5)
    together = answer(served, given)
    for dialogue, rows in zip(given, together, strict=True):
        assert len(rows) == len(dialogue)
        assert differs(answer(served, [dialogue])[0], rows) < 1e-6


def test_live_turns_are_answered_as_the_dialogue_so_far(served: Served) -> None:
    given = dialogues(served, 4, 4)
    contexts = [Context(1), Context(1)]
    for place in range(4):
        turns = [dialogue[place] for dialogue in given]
        followed = follow(served, list(zip(contexts, turns, strict=True)))
        for dialogue, (context, found) in zip(given, followed, strict=True):
            assert context.turns == place + 1
            assert differs([found], answer(served, [dialogue[: place + 1]])[0][-1:]) < 1e-6
        contexts = [context for context, _ in followed]


def test_speakers_are_numbered_by_appearance(served: Served) -> None:
    (given,) = dialogues(served, 6)
    renamed = [Vectors({"A": "zoe", "B": None, "C": "adam"}[str(turn.speaker)], turn.features) for turn in given]
    assert answer(served, [renamed]) == answer(served, [given])
