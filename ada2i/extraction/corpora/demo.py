"""A small SYNTHETIC corpus of raw media, generated here without any recording, for trials. It proves nothing.

Two people talk, with the emotions of ``importers.demo``: each keeps one (inertia) or catches the other's (contagion).
Words, voices and faces show the emotion with planted imbalance: each modality shows the right emotion with the
probability below, and otherwise another one.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ada2i import storage
from ada2i.extraction.corpora import face, voice
from ada2i.extraction.corpora.folder import ABOUT, TABLE, About
from ada2i.importers.demo import LABELS, emotions, sentences, splits
from ada2i.modalities import Modality

NAME = "synthetic-recordings"  # its vectors are as wide as those of real recordings, so it has no settings of its own
LICENCE = "none needed: made up here, from no recording"

SHOWN: Mapping[Modality, float] = {"text": 0.75, "audio": 0.75, "visual": 0.55}

_TURNS = (5, 11)  # shortest and longest dialogue
_SECONDS = (1.0, 1.6)
_PITCHES = (205.0, 120.0)  # of the two people, in Hz
_SILENT, _UNSEEN, _FACELESS = 2, 4, 5  # utterances with planted defects, all in the first two dialogues

_FEELINGS: Mapping[str, tuple[str, ...]] = {
    "neutral": ("All right then.", "As I said before.", "That is the usual way.", "It is about noon.", "Fine by me."),
    "joy": ("I am so happy!", "This is wonderful!", "What a lovely day!", "I love it!", "We won, how great!"),
    "sadness": ("I feel so sad.", "I miss her so much.", "I could cry.", "It is hopeless.", "I am all alone now."),
    "anger": ("I am furious!", "How dare you!", "I hate this!", "Shut up and leave!", "This makes me so angry!"),
    "surprise": ("Oh my God, really?", "I can't believe it!", "What? Since when?", "Wow, no way!", "I had no idea!"),
    "fear": ("I am so scared.", "Please don't hurt me.", "I'm terrified.", "Something is out there!", "Help, run!"),
}


@dataclass(frozen=True)
class _Turn:
    """One utterance; everything generated for it depends on the seed and its number in the corpus."""

    number: int
    dialogue: int
    index: int
    split: str
    emotion: str

    @property
    def name(self) -> str:
        return f"demo-{self.dialogue:04d}_{self.index}"


def write_demo_media(folder: str, *, dialogues: int = 60, seed: int = 7) -> str:
    """Write the synthetic corpus as a folder that ``read_folder`` reads; the same arguments give the same bytes.

    One utterance is silent, one has no video, and one shows no face, as happens in recordings.

    Args:
        folder: Target folder: a path, ``file://`` or ``s3://``.
        dialogues: About 70 % become train, 10 % dev and 20 % test; each has 5 to 11 utterances of 1 to 1.6 seconds.
        seed: Seed of ``np.random.RandomState``, whose stream is the same in all versions.

    Returns:
        The folder's URI.

    Raises:
        DataError: There are too few dialogues for three splits.
    """
    uri = storage.normalise(folder)
    random = np.random.RandomState(seed)
    turns = list(_turns(random, dialogues))
    said = sentences(random, len(turns))
    rows = [_write_turn(uri, turn, sentence, seed) for turn, sentence in zip(turns, said, strict=True)]
    about = About(name=NAME, labels=LABELS, licence=LICENCE, synthetic=True)
    storage.put(storage.join(uri, ABOUT), about.to_json())
    # Written last: a crash before this leaves media without a table, which no reader reads and the next call replaces.
    storage.put(storage.join(uri, f"{TABLE}.csv"), _csv(rows))
    return uri


def _turns(random: np.random.RandomState, dialogues: int) -> Iterator[_Turn]:
    number = 0
    for dialogue, split in enumerate(splits(dialogues)):
        felt = emotions(random, random.randint(_TURNS[0], _TURNS[1] + 1))
        for index, emotion in enumerate(felt):
            yield _Turn(number, dialogue, index, str(split), LABELS[emotion])
            number += 1


def _write_turn(uri: str, turn: _Turn, sentence: str, seed: int) -> dict[str, str]:
    """Write an utterance's media; return its row."""
    random = np.random.RandomState([seed, turn.number])
    seconds = random.uniform(*_SECONDS)
    feelings = _FEELINGS[_shown(random, turn.emotion, "text")]
    text = f"{feelings[random.randint(len(feelings))]} {sentence}"
    audio, video = f"audio/{turn.name}.wav", f"video/{turn.name}.mp4"
    storage.put(storage.join(uri, audio), _sound(random, turn, seconds))
    pictures = _pictures(random, turn, seconds)
    if turn.number == _UNSEEN:
        video = ""
    else:
        storage.put(storage.join(uri, video), pictures)
    return {
        "dialogue_id": f"demo-{turn.dialogue:04d}",
        "utterance_index": str(turn.index),
        "utterance_id": turn.name,
        "speaker": "AB"[turn.index % 2],
        "label": turn.emotion,
        "split": turn.split,
        "text": text,
        "audio": audio,
        "video": video,
    }


def _shown(random: np.random.RandomState, emotion: str, modality: Modality) -> str:
    """Return the emotion that a modality shows: the right one, or a random other one."""
    others = [label for label in LABELS if label != emotion]
    other = others[random.randint(len(others))]
    return emotion if random.random_sample() < SHOWN[modality] else other


def _sound(random: np.random.RandomState, turn: _Turn, seconds: float) -> bytes:
    manner = voice.MANNERS[_shown(random, turn.emotion, "audio")]
    if turn.number == _SILENT:
        return voice.encode(np.zeros(round(seconds * voice.RATE)))
    return voice.speak(random, manner, pitch=_PITCHES[turn.index % 2], seconds=seconds)


def _pictures(random: np.random.RandomState, turn: _Turn, seconds: float) -> bytes:
    look = face.LOOKS[_shown(random, turn.emotion, "visual")]
    if turn.number == _FACELESS:
        return face.empty_room(random, seconds=seconds)
    return face.talk(random, look, skin=face.SKINS[turn.index % 2], seconds=seconds)


def _csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
