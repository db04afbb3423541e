"""The model replica without Ray: takeover of a new champion, versions of sessions, drift windows, errors."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ada2i import storage
from ada2i.data import schema
from ada2i.data.manifest import open_features
from ada2i.drift import Window, windows
from ada2i.drift.reference import split_sums
from ada2i.errors import Ada2iError, DataError
from ada2i.importers.demo import write_demo_corpus
from ada2i.registry.aliases import move
from ada2i.registry.versions import find, version_uri
from ada2i.serving import replica
from ada2i.serving.replica import Answered, Asked, Replica
from ada2i.serving.request import spec_of
from ada2i.serving.turns import Turn
from tests.unit.prediction.tiny import registered

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def root(tmp_path: Any) -> str:
    """A root with two versions, of which the first is champion."""
    place = (tmp_path / "store").as_uri()
    info = open_features(write_demo_corpus(place, dialogues=20)).info()
    for preset in ("corrected", "reference"):
        registered(place, info, preset)
    promote(place, 1, None)
    return str(place)


def promote(root: str, number: int, before: int | None) -> None:
    move(root, "tiny", "champion", number, expected=before, by="test", reason="test")


def started(root: str) -> Replica:
    return Replica(spec_of("tiny@champion", poll_seconds=0.05), root)


def turn(**more: Any) -> Turn:
    vectors: Any = {m: np.ones(w, np.float32) for m, w in {"text": 32, "audio": 24, "visual": 20}.items()}
    return Turn("A", {**vectors, **more})


async def answered(found: Replica, asked: Asked) -> Answered:
    result = await found.ask(asked)
    assert isinstance(result, Answered), result
    return result


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.02)


async def test_a_new_champion_takes_over_and_a_session_stays(root: str) -> None:
    served = started(root)
    whole = Asked((turn(), turn()))
    before = await answered(served, whole)
    live = await answered(served, Asked((turn(),), live=True))
    promote(root, 2, 1)
    await until(lambda: served._number == 2)
    after = await answered(served, whole)
    later = await answered(served, Asked((turn(),), live=True, context=live.context))
    assert [one.version for one in (before, live, after, later)] == ["tiny@1", "tiny@1", "tiny@2", "tiny@1"]
    assert before.answers != after.answers
    fresh = await answered(started(root), Asked((turn(),), live=True, context=live.context))
    assert (fresh.version, fresh.answers) == ("tiny@1", later.answers)


def kept(root: str, number: int) -> list[Window]:
    return windows(root, find(root, "tiny", number))


async def test_a_takeover_and_the_end_write_the_windows(root: str) -> None:
    served = started(root)
    for _ in range(5):
        await answered(served, Asked((turn(), turn())))
    assert kept(root, 1) == []
    promote(root, 2, 1)
    await until(lambda: bool(kept(root, 1)))
    for _ in range(6):
        await answered(served, Asked((turn(),)))
    assert kept(root, 2) == []
    assert (await served.describe()).windows == {"stored": 1}
    served.__del__()
    found = kept(root, 1) + kept(root, 2)
    assert [(one.dialogues, one.sums[0]) for one in found] == [(5, 10.0), (6, 6.0)]


def dialogues(root: str) -> list[list[Turn]]:
    """Return the dialogues of the dev split of a version's features, as turns."""
    features = open_features(find(root, "tiny", 1).features.uri)
    rows: dict[str, list[Turn]] = {}
    for shard in features.manifest.shards:
        data = pa.BufferReader(storage.get(storage.join(features.uri, shard.name)))
        for row in pq.read_table(data).to_pylist():
            if row["split"] == "dev":
                vectors = {m: row[schema.vector_column(m)] for m in features.manifest.modalities}
                arrays: Any = {m: None if x is None else np.array(x, np.float32) for m, x in vectors.items()}
                rows.setdefault(row["dialogue_id"], []).append(Turn(row["speaker"], arrays))
    return list(rows.values())


@pytest.mark.parametrize("preset", ["causal", "corrected"])
@pytest.mark.parametrize("live", [False, True])
async def test_a_window_is_that_of_a_prediction(tmp_path: Any, preset: str, live: bool) -> None:
    place = (tmp_path / "store").as_uri()
    version = registered(place, open_features(write_demo_corpus(place, dialogues=60)).info(), preset)
    expected = split_sums(place, version, "dev")
    served, given = Replica(spec_of("tiny"), place), dialogues(place)
    assert len(given) == len(expected) >= 5
    for dialogue in given:
        if not live:
            await answered(served, Asked(tuple(dialogue)))
            continue
        context = None
        for one in dialogue:
            context = (await answered(served, Asked((one,), live=True, context=context))).context
        assert context is not None
        assert context.sums is not None
        await served.count(context.number, context.sums)
    served.__del__()
    (window,) = kept(place, 1)
    assert window.dialogues == len(given)
    np.testing.assert_allclose(window.sums, expected.sum(axis=0), rtol=1e-4, atol=1e-3)


async def test_each_dialogue_is_counted_once_although_another_fails(root: str) -> None:
    served, large = started(root), turn(text=np.array([3e38, -3e38] * 16, np.float32))
    await asyncio.gather(*(served.ask(Asked((one,))) for one in (turn(), large, turn(), turn(), large, turn(), turn())))
    served.__del__()
    assert [(one.dialogues, one.sums[0]) for one in kept(root, 1)] == [(5, 5.0)]


async def test_without_windows_nothing_is_counted(root: str) -> None:
    served = Replica(spec_of("tiny@champion", drift_window=0), root)
    for _ in range(6):
        live = await answered(served, Asked((turn(),), live=True))
        await answered(served, Asked((turn(),)))
    assert live.context is not None
    assert live.context.sums is None
    served.__del__()
    assert kept(root, 1) == []


async def test_a_champion_that_cannot_be_loaded_is_not_taken(root: str, caplog: pytest.LogCaptureFixture) -> None:
    served = started(root)
    await answered(served, Asked((turn(),)))
    storage.put(storage.join(version_uri(root, find(root, "tiny", 2)), "weights.safetensors"), b"damaged")
    promote(root, 2, 1)
    with caplog.at_level(logging.WARNING):
        await until(lambda: "tiny@1 still answers" in caplog.text)
    assert (await answered(served, Asked((turn(),)))).version == "tiny@1"


async def test_requests_of_one_batch_get_their_own_answers_and_errors(root: str) -> None:
    served = started(root)
    louder = turn(audio=np.full(24, 3, np.float32))
    wrong = turn(audio=np.ones(3, np.float32))
    single = [await answered(served, Asked((one,))) for one in (turn(), louder)]
    first, second, third, live = await asyncio.gather(
        served.ask(Asked((turn(),))),
        served.ask(Asked((louder,))),
        served.ask(Asked((wrong,))),
        served.ask(Asked((louder,), live=True)),
    )
    for found, expected in ((first, single[0]), (second, single[1]), (live, single[1])):
        assert isinstance(found, Answered)
        assert found.answers[0]["label"] == expected.answers[0]["label"]
        assert found.answers[0]["votes"] == pytest.approx(expected.answers[0]["votes"], rel=1e-6)
    assert isinstance(third, DataError)
    assert "must be 24 numbers" in third.message


@pytest.mark.parametrize("preset", ["causal", "corrected"])
async def test_a_session_equals_the_dialogue_up_to_its_last_turn(tmp_path: Any, preset: str) -> None:
    place = (tmp_path / "store").as_uri()
    registered(place, open_features(write_demo_corpus(place, dialogues=20)).info(), preset)
    served, context, sizes = Replica(spec_of("tiny"), place), None, []
    turns = [
        replace(turn(audio=None if n == 1 else np.full(24, n, np.float32)), speaker="ABAAB"[n % 5]) for n in range(12)
    ]
    for number, one in enumerate(turns):
        live = await answered(served, Asked((one,), live=True, context=context))
        whole = await answered(served, Asked(tuple(turns[: number + 1])))
        assert live.answers[0] == pytest.approx(whole.answers[-1], abs=1e-5)
        context = live.context
        assert context is not None
        assert context.turns == number + 1
        sizes.append(context.nbytes)
    assert (len(set(sizes)) == 1) == (preset == "causal")


@pytest.mark.parametrize("preset", ["causal", "corrected"])
async def test_a_vector_too_large_to_predict_from_fails_alone(tmp_path: Any, preset: str) -> None:
    place = (tmp_path / "store").as_uri()
    registered(place, open_features(write_demo_corpus(place, dialogues=20)).info(), preset)
    served, large = Replica(spec_of("tiny"), place), turn(text=np.array([3e38, -3e38] * 16, np.float32))
    alone = await answered(served, Asked((turn(),)))
    first = await answered(served, Asked((turn(),), live=True))
    for live in (False, True):
        context = first.context if live else None
        asked = [Asked((one,), live=live, context=context) for one in (turn(), large, turn())]
        good, bad, other = await asyncio.gather(*(served.ask(one) for one in asked))
        assert isinstance(bad, DataError)
        assert "small enough for the model" in bad.message
        for found in (good, other):
            assert isinstance(found, Answered)
            if not live:
                assert found.answers[0] == pytest.approx(alone.answers[0], abs=1e-6)


async def test_a_text_for_imported_features_is_refused(root: str) -> None:
    found = await started(root).ask(Asked((Turn("A", None, "words"),)))
    assert isinstance(found, DataError)
    assert "whose encoders are unknown" in found.message


async def test_an_unknown_error_is_returned_by_its_class(
    root: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("what a client sent")

    monkeypatch.setattr(replica, "read_features", broken)
    found = await started(root).ask(Asked((turn(),)))
    assert isinstance(found, Ada2iError)
    assert "The server failed with ValueError" in found.message
    assert "what a client sent" not in found.message + caplog.text


async def test_few_versions_are_held(root: str) -> None:
    served = started(root)
    for number in range(10, 20):
        other = replace(served._current, version=served._current.version.model_copy(update={"number": number}))
        served._hold(other)
    assert len(served._held) == 3
    assert {1, 19} <= served._held.keys()
