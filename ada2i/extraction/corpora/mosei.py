"""Reads the raw release of CMU-MOSEI and CMU-MOSI by their SDK: a folder ``Raw`` with a table of labels.

These files are read, anywhere below the folder:
    ``Transcript/Segmented/<video>.annotprocessed`` (MOSI), with lines ``<segment>_DELIM_<text>``
    ``Transcript/Segmented/Combined/<video>.txt`` (MOSEI), with lines ``<video>___<segment>___<start>___<end>___<text>``
    ``Audio/**/<video>_<segment>.wav``, or ``<video>.wav`` if the transcript has times
    ``Video/**`` or ``Videos/**``, likewise, ``.mp4``
    ``label.csv``, ``labels.csv`` or ``labels.parquet``: ``video_id``, ``segment``, ``sentiment_score`` and ``split``

The release stores its labels in an HDF5 file of the SDK; export the table from it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ada2i import storage
from ada2i.errors import DataError
from ada2i.extraction.corpora.assemble import published
from ada2i.extraction.corpora.files import files_below, named, parts_of, read_text
from ada2i.extraction.corpora.tables import NUMBER, TEXT, WHOLE, Field, read_table, require_different
from ada2i.extraction.utterance import MISSING_CLIP, Clip, Corpus, Utterance
from ada2i.importers import datasets
from ada2i.importers.checks import check_keys, renamed_splits
from ada2i.importers.rows import Rows

LICENCE = "research material of CMU's MultiComp laboratory; cite it, and do not pass the videos on"

_TABLES = ("labels.parquet", "labels.csv", "label.csv")
_FIELDS: Mapping[str, Field] = {
    "video_id": Field(TEXT, required=True, spellings=("dialogue_id",)),
    "segment": Field(WHOLE, required=True, spellings=("clip_id",)),
    "sentiment_score": Field(NUMBER, required=True, spellings=("sentiment", "label")),
    "split": Field(TEXT, required=True, spellings=("mode",)),
}


class Key(NamedTuple):
    """A segment of a video."""

    video: str
    segment: int


@dataclass(frozen=True)
class _Line:
    """A segment of a transcript; times in seconds of the whole video."""

    text: str | None
    start: float | None = None
    end: float | None = None


def read_mosei(location: str, *, dataset: str) -> Corpus:
    """Read CMU-MOSEI or CMU-MOSI; a video is a dialogue, its labelled segments are the utterances.

    Segments are ordered by time if the transcript has times, and else by number. Scores from -3 to 3 become two
    classes (0 is non-negative), or seven by rounding.

    Args:
        location: A path, or any URI that fsspec opens: the folder that holds ``Raw`` and the table of labels.
        dataset: ``cmu-mosei-2``, ``cmu-mosei-7``, ``cmu-mosi-2`` or ``cmu-mosi-7``.

    Raises:
        DataError: There is no table of labels, or one of its values or a transcript is invalid.
    """
    files = files_below(location)
    source, known = storage.public(location), datasets.dataset(dataset)
    rows = _labels(source, files)
    lines = _transcripts(files)
    media = {what: _media(files, folders, suffix) for what, (folders, suffix) in _MEDIA.items()}
    if not lines and not any(media.values()):
        raise DataError(
            f"{source} must hold Raw/Transcript/Segmented, Raw/Audio and Raw/Videos as the SDK releases them, but does "
            "not. Name the folder that holds `Raw` and the table of labels.",
            uri=source,
        )
    held = _keys(rows)
    unlabelled = len(lines.keys() - set(held))
    problems = [f"{unlabelled} transcribed segments have no label and are left out."] if unlabelled else []
    return published(known, source, LICENCE, _utterances(rows, held, lines, media, len(known.labels)), problems)


_MEDIA: Mapping[str, tuple[tuple[str, ...], str]] = {
    "audio": (("Audio",), ".wav"),
    "video": (("Video", "Videos"), ".mp4"),
}


# --- labels ---


def _labels(source: str, files: Sequence[str]) -> Rows:
    if not (found := named(files, *_TABLES)):
        raise DataError(
            f"{source} must hold a table of labels, one of {', '.join(_TABLES)}, but holds none. Export it from the "
            "SDK's CMU_MOSEI_Labels.csd or CMU_MOSI_Opinion_Labels.csd: video_id, segment, sentiment_score, split.",
            uri=source,
        )
    rows = _with_names(read_table(found[0], _FIELDS))
    check_keys(rows, _FIELDS)
    rows = renamed_splits(rows)
    score = rows.columns["sentiment_score"].to_numpy()
    rows.require(
        np.abs(score) <= 3,
        "sentiment_score",
        must="lie between -3 and 3",
        found=lambda row: f"holds {score[row]:g}",
        remedy="Correct the score.",
    )
    require_different(
        rows, _keys(rows), "segment", must="differ between the rows of a video", remedy="Remove one of the rows."
    )
    return rows


def _with_names(rows: Rows) -> Rows:
    """Return the rows with the columns that identify an utterance in messages."""
    columns = rows.columns
    named = columns.append_column("dialogue_id", columns["video_id"])
    return replace(rows, columns=named.append_column("utterance_index", columns["segment"]))


def _keys(rows: Rows) -> list[Key]:
    return [
        Key(*key) for key in zip(*(rows.columns[name].to_pylist() for name in ("video_id", "segment")), strict=True)
    ]


# --- transcripts and media ---


def _transcripts(files: Sequence[str]) -> dict[Key, _Line]:
    lines: dict[Key, _Line] = {}
    for uri in files:
        *folders, name = parts_of(uri)
        if "Transcript" not in folders or "Segmented" not in folders or name.startswith("."):
            continue
        video, _, suffix = name.rpartition(".")
        if suffix == "annotprocessed":
            lines.update(_parsed(uri, "_DELIM_", video))
        elif suffix == "txt":
            lines.update(_parsed(uri, "___", None))
    return lines


def _parsed(uri: str, mark: str, video: str | None) -> Iterator[tuple[Key, _Line]]:
    """Yield the segments of a transcript; the file name gives the video if the lines do not."""
    form = "<segment>_DELIM_<text>" if video else "<video>___<segment>___<start>___<end>___<text>"
    for row, line in enumerate(read_text(uri).splitlines()):
        if not line.strip():
            continue
        parts = line.strip().split(mark, form.count(mark))
        try:
            if video:
                segment, text = parts
                yield Key(video, int(segment)), _Line(text.strip() or None)
            else:
                name, segment, start, end, text = parts
                yield Key(name, int(segment)), _Line(text.strip() or None, float(start), float(end))
        except ValueError as problem:
            public = storage.public(uri)
            raise DataError(
                f"Line {row + 1} of {public} must be like `{form}`, but is {line[:80]!r}. Get the file again.",
                uri=public,
                row=row,
            ) from problem


def _media(files: Sequence[str], folders: tuple[str, ...], suffix: str) -> dict[str, str]:
    """Return files by name without suffix: ``<video>_<segment>`` or ``<video>``."""
    found: dict[str, str] = {}
    for uri in files:
        *above, name = parts_of(uri)
        if name.endswith(suffix) and not name.startswith("._") and not set(folders).isdisjoint(above):
            found.setdefault(name.removesuffix(suffix), uri)
    return found


def _clip(media: Mapping[str, str], key: Key, line: _Line) -> Clip | None:
    """Return the clip of a segment: its own file, or a part of the whole video's file if the times are known."""
    if own := media.get(f"{key.video}_{key.segment}"):
        return Clip(own)
    whole = media.get(key.video)
    return Clip(whole, line.start, line.end) if whole and line.end is not None else None


def _utterances(
    rows: Rows, keys: Sequence[Key], lines: Mapping[Key, _Line], media: Mapping[str, Mapping[str, str]], classes: int
) -> Iterator[Utterance]:
    places = _order(keys, lines)
    for key, row in zip(keys, rows.columns.to_pylist(), strict=True):
        line = lines.get(key, _Line(None))
        audio, video = (_clip(media[what], key, line) for what in _MEDIA)
        yield Utterance(
            dialogue_id=key.video,
            utterance_index=places[key],
            utterance_id=f"{key.video}_{key.segment}",
            split=row["split"],
            speaker=None,
            label=datasets.sentiment(row["sentiment_score"], classes),
            text=line.text,
            audio=audio,
            video=video,
            notes=() if audio and video else (MISSING_CLIP,),
        )


def _order(keys: Sequence[Key], lines: Mapping[Key, _Line]) -> dict[Key, int]:
    """Return each segment's index in its video."""
    held: dict[str, list[Key]] = defaultdict(list)
    for key in keys:
        held[key.video].append(key)
    unknown = _Line(None)
    return {
        key: place
        for group in held.values()
        for place, key in enumerate(sorted(group, key=lambda key: (lines.get(key, unknown).start or 0.0, key.segment)))
    }
