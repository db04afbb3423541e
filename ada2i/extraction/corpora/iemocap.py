"""Reads IEMOCAP as released: ``IEMOCAP_full_release``, five sessions of two actors each."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ada2i import storage
from ada2i.display import count
from ada2i.errors import DataError
from ada2i.extraction.corpora.assemble import published
from ada2i.extraction.corpora.files import files_below, path_of, read_text
from ada2i.extraction.utterance import MISSING_CLIP, Clip, Corpus, Half, Utterance
from ada2i.importers import datasets

LICENCE = "IEMOCAP's own licence of USC's SAIL laboratory: research only, not to be passed on"

_TEST_SESSION = "5"
_PLACES: Mapping[str, "re.Pattern[str]"] = {
    "emotions": re.compile(r"/Session\d/dialog/EmoEvaluation/(Ses\d\d[FM]_\w+)\.txt$"),
    "transcript": re.compile(r"/Session\d/dialog/transcriptions/(Ses\d\d[FM]_\w+)\.txt$"),
    "video": re.compile(r"/Session\d/dialog/avi/DivX/(Ses\d\d[FM]_\w+)\.avi$"),
    "sentence": re.compile(r"/Session\d/sentences/wav/\w+/(Ses\d\d[FM]_\w+)\.wav$"),
}
# [6.2901 - 8.2357]  Ses01F_impro01_F000  neu  [2.5000, 2.5000, 2.5000], with tabs
_EMOTION = re.compile(r"\[\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*\]\s+(Ses\w+_([FM])\w+)\s+(\w+)\s+\[.*\]\s*")
# Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
_LINE = re.compile(r"(Ses\w+) \[[\d.\s-]+\]:(.*)")


@dataclass(frozen=True)
class _Turn:
    """One line of an emotion file: seconds in the dialogue, and the speaker, F or M."""

    start: float
    end: float
    utterance_id: str
    speaker: str
    emotion: str


@dataclass
class _Release:
    """The file's URI by dialogue, or by utterance for sentences."""

    emotions: dict[str, str] = field(default_factory=dict)
    transcript: dict[str, str] = field(default_factory=dict)
    video: dict[str, str] = field(default_factory=dict)
    sentence: dict[str, str] = field(default_factory=dict)


def read_iemocap(location: str, *, dataset: str) -> Corpus:
    """Read IEMOCAP; utterances with other emotions, or without agreement among raters, are left out and counted.

    Files of each session: ``dialog/EmoEvaluation/*.txt`` (labels and times), ``dialog/transcriptions/*.txt``,
    ``sentences/wav/<dialogue>/<utterance>.wav`` and ``dialog/avi/DivX/<dialogue>.avi``. Sessions 1 to 4 are train and
    session 5 is test; a speaker is F or M. Turns are ordered by time. With four classes, ``exc`` is left out rather
    than counted as ``hap``: this gives the 943 test utterances of the published results.

    Args:
        location: A path, or any URI that fsspec opens: the folder that holds ``Session1`` to ``Session5``.
        dataset: ``iemocap`` (6 emotions) or ``iemocap-4``.

    Raises:
        DataError: There is no emotion file, or a line of one is invalid.
    """
    source, known = storage.public(location), datasets.dataset(dataset)
    release = _release(files_below(location))
    if not release.emotions:
        raise DataError(
            f"{source} must hold files such as Session1/dialog/EmoEvaluation/Ses01F_impro01.txt, but holds no such "
            "file. Name the folder IEMOCAP_full_release.",
            uri=source,
        )
    utterances: list[Utterance] = []
    left_out: Counter[str] = Counter()
    for dialogue, uri in release.emotions.items():
        turns = _turns(uri)
        left_out.update(turn.emotion for turn in turns if turn.emotion not in known.labels)
        kept = [turn for turn in turns if turn.emotion in known.labels]
        utterances.extend(_utterances(dialogue, kept, release))
    return published(known, source, LICENCE, utterances, _problems(release, left_out))


def _release(files: Sequence[str]) -> _Release:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for uri in files:
        path = path_of(uri)
        for kind, place in _PLACES.items():
            if match := place.search(path):
                found[kind][match[1]] = uri
    return _Release(**found)


def _turns(uri: str) -> list[_Turn]:
    """Return the turns of a dialogue, sorted by time."""
    turns = []
    for row, line in enumerate(read_text(uri).splitlines()):
        if not line.startswith("["):  # the header, and votes of single raters
            continue
        if not (match := _EMOTION.fullmatch(line)):
            raise DataError(
                f"Line {row + 1} of {storage.public(uri)} must be like `[6.2901 - 8.2357] Ses01F_impro01_F000 neu "
                f"[2.5, 2.5, 2.5]`, but is {line[:80]!r}. Download the file again.",
                uri=storage.public(uri),
                row=row,
            )
        start, end, name, speaker, emotion = match.groups()
        turns.append(_Turn(float(start), float(end), name, speaker, emotion))
    return sorted(turns, key=lambda turn: (turn.start, turn.end, turn.utterance_id))


def _utterances(dialogue: str, turns: Sequence[_Turn], release: _Release) -> Iterator[Utterance]:
    texts = _texts(release.transcript[dialogue]) if turns and dialogue in release.transcript else {}
    video = release.video.get(dialogue)
    for index, turn in enumerate(turns):
        wav = release.sentence.get(turn.utterance_id)
        yield Utterance(
            dialogue_id=dialogue,
            utterance_index=index,
            utterance_id=turn.utterance_id,
            split="test" if dialogue[4] == _TEST_SESSION else "train",
            speaker=turn.speaker,
            label=turn.emotion,
            text=texts.get(turn.utterance_id),
            audio=Clip(wav) if wav else None,
            video=Clip(video, turn.start, turn.end, _half(dialogue, turn.speaker)) if video else None,
            notes=() if wav and video else (MISSING_CLIP,),
        )


def _half(dialogue: str, speaker: str) -> Half:
    """Return the half of the picture that shows the speaker.

    By convention of the release, the actor with the markers is on the left, and the letter in the dialogue's name gives
    that actor's gender: in ``Ses01F_impro01`` the woman. Check some frames before a long run.
    """
    return "left" if dialogue[5] == speaker else "right"


def _texts(uri: str) -> dict[str, str]:
    matches = (_LINE.fullmatch(line.rstrip()) for line in read_text(uri).splitlines())
    return {match[1]: text for match in matches if match and (text := match[2].strip())}


def _problems(release: _Release, left_out: Counter[str]) -> list[str]:
    found = []
    if left_out:
        counts = ", ".join(f"{emotion} {number}" for emotion, number in sorted(left_out.items()))
        found.append(
            f"{count(left_out.total(), 'utterance')} with other emotions, or no agreement (xxx), left out: {counts}."
        )
    sessions = {dialogue[4] for dialogue in release.emotions}
    if absent := sorted(set("12345") - sessions):
        found.append(f"Of the five sessions, {', '.join(absent)} are absent.")
    return found
