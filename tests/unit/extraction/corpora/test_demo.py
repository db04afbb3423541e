import io
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ada2i import storage
from ada2i.errors import DataError
from ada2i.extraction.corpora.demo import write_demo_media
from ada2i.extraction.corpora.folder import read_folder
from ada2i.extraction.utterance import Clip, Corpus
from ada2i.importers.demo import LABELS
from tests.unit.data.tables import written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo")
    write_demo_media(str(path), dialogues=6)
    return path


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return read_folder(str(folder))


def sound(clip: Clip) -> NDArray[np.int16]:
    with wave.open(io.BytesIO(storage.read_source(clip.uri))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def grey_frames(clip: Clip) -> list[NDArray[Any]]:
    with av.open(io.BytesIO(storage.read_source(clip.uri)), "r") as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def faces(corpus: Corpus) -> dict[str, list[bool]]:
    """By utterance with video, whether a detector finds a face in every third frame."""
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"))
    return {
        item.utterance_id: [
            len(cascade.detectMultiScale(frame, 1.2, 5, minSize=(40, 40))) > 0 for frame in grey_frames(item.video)[::3]
        ]
        for item in corpus.utterances
        if item.video is not None
    }


def test_it_reads_as_any_folder_and_says_that_it_is_made_up(corpus: Corpus) -> None:
    assert (corpus.name, corpus.labels, corpus.synthetic) == ("synthetic-recordings", LABELS, True)
    dialogues = {item.dialogue_id: item.split for item in corpus.utterances}
    assert Counter(dialogues.values()) == {"train": 4, "dev": 1, "test": 1}
    assert all(5 <= number <= 11 for number in Counter(item.dialogue_id for item in corpus.utterances).values())
    assert all(item.text and item.audio for item in corpus.utterances)


def test_media_last_as_long_as_each_other(corpus: Corpus) -> None:
    for item in corpus.utterances:
        assert item.audio is not None
        seconds = len(sound(item.audio)) / 16_000
        assert 1.0 <= seconds <= 1.6
        if item.video is not None:
            assert len(grey_frames(item.video)) == pytest.approx(6 * seconds, abs=0.51)


def test_the_planted_defects(corpus: Corpus, faces: dict[str, list[bool]]) -> None:
    silent = [item.utterance_id for item in corpus.utterances if item.audio and not sound(item.audio).any()]
    unseen = [item.utterance_id for item in corpus.utterances if item.video is None]
    faceless = [name for name, found in faces.items() if not any(found)]
    assert [len(silent), len(unseen), len(faceless)] == [1, 1, 1]
    assert len({*silent, *unseen, *faceless}) == 3


def test_faces_are_found(faces: dict[str, list[bool]]) -> None:
    shown = [face for found in faces.values() if any(found) for face in found]
    assert np.mean(shown) > 0.98


def test_louder_in_anger_than_in_sadness(folder: Path) -> None:
    from ada2i.extraction.corpora.voice import MANNERS, speak

    def loudness(emotion: str) -> float:
        data = speak(np.random.RandomState(3), MANNERS[emotion], pitch=120, seconds=1.2)
        with wave.open(io.BytesIO(data)) as file:
            return float(np.abs(np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)).mean())

    assert loudness("anger") > 2 * loudness("sadness")


def test_the_same_arguments_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_demo_media(str(tmp_path / "again"), dialogues=6)
    write_demo_media(str(tmp_path / "other"), dialogues=6, seed=8)
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = {path.relative_to(tmp_path / "again"): path.read_bytes() for path in (tmp_path / "again").rglob("*.*")}
    assert again == files
    table = Path("utterances.csv")
    assert (tmp_path / "other" / table).read_bytes() != files[table]


def test_too_few_dialogues(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^`dialogues` must be at least 5, .* but is 4\."):
        write_demo_media(str(tmp_path / "x"), dialogues=4)
    assert written(tmp_path / "x") == []
