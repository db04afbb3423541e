"""Reads your own corpus: a folder with one table of utterances and the media files that it names, at any depth."""

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from pydantic import ValidationError, field_validator

from ada2i import storage
from ada2i.errors import DataError
from ada2i.extraction.corpora.assemble import in_order, lacking
from ada2i.extraction.corpora.files import files_below, parts_of, path_of
from ada2i.extraction.corpora.tables import (
    NUMBER,
    SUFFIXES,
    TEXT,
    TIME,
    WHOLE,
    Field,
    read_table,
    require_different,
    suffix_of,
)
from ada2i.extraction.utterance import Clip, Corpus, Utterance
from ada2i.importers.checks import check_keys, check_order, optional_splits
from ada2i.importers.rows import Rows
from ada2i.records import Record

TABLE = "utterances"
ABOUT = "corpus.json"

_FIELDS: Mapping[str, Field] = {
    "dialogue_id": Field(TEXT, required=True),
    "utterance_index": Field(WHOLE),
    "utterance_id": Field(TEXT),
    "speaker": Field(TEXT),
    "label": Field(TEXT),
    "split": Field(TEXT),
    "text": Field(TEXT),
    "audio": Field(TEXT),
    "video": Field(TEXT),
    "start": Field(NUMBER),
    "end": Field(NUMBER),
    "recorded_at": Field(TIME),
}
_MEDIA = ("audio", "video")


class About(Record):
    """Optional facts about a corpus that its table does not hold: ``corpus.json``, in which every field is optional.

    Attributes:
        name: Name of the dataset; by default the folder's.
        labels: Class names, by class index; by default those of the table, sorted.
        licence: Terms of use of the corpus.
        synthetic: Whether the corpus is synthetic.
    """

    name: str | None = None
    labels: tuple[str, ...] = ()
    licence: str = "not stated"
    synthetic: bool = False

    @field_validator("labels")
    @classmethod
    def _different(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len({label for label in labels if label}) != len(labels):
            raise ValueError("they must be different names, none empty")
        return labels


def read_folder(location: str) -> Corpus:
    """Read a folder with a table of utterances: ``utterances.csv``, ``utterances.parquet`` or ``utterances.jsonl``.

    A row is an utterance: ``dialogue_id``, and optionally ``utterance_index`` (from 0, without a gap; else rows are in
    order), ``utterance_id``, ``speaker``, ``label`` (empty if the utterance is only context, or will be predicted),
    ``split`` (train, dev, test or gate; for all rows or none), ``text``, ``audio`` and ``video`` (files below the
    folder; both may name the same file), ``start`` and ``end`` (seconds in these files), ``recorded_at`` (a date or
    time; the newest dialogues of train become the gate). The utterance lacks what is empty; other columns are named at
    the end of the extraction. ``corpus.json`` may add facts: see ``About``.

    Args:
        location: The folder, or the table itself if it has another name; a path, or any URI that fsspec opens.

    Raises:
        DataError: There is no table or more than one, or a value is invalid.
    """
    table, files = _find(location)
    base = table.rpartition("/")[0]
    about = _about(f"{base}/{ABOUT}", files)
    rows = read_table(table, _FIELDS)
    check_keys(rows, ("dialogue_id",))
    rows = _with_index(optional_splits(rows))
    _check(rows, about)
    media = {path_of(uri).removeprefix(f"{path_of(base)}/"): uri for uri in files}
    rows = _with_media(rows, media)
    utterances = in_order(_utterances(rows, media))
    labels = about.labels or tuple(sorted({item.label for item in utterances if item.label is not None}))
    return Corpus(
        name=about.name or parts_of(base)[-1],
        labels=labels,
        source=rows.source,
        licence=about.licence,
        utterances=utterances,
        problems=lacking(utterances),
        synthetic=about.synthetic,
        unused=rows.unused,
    )


def _find(location: str) -> tuple[str, tuple[str, ...]]:
    """Return the URI of the table, and those of all files in its folder and below it."""
    named = suffix_of(location) is not None
    folder, _, name = location.rpartition("/") if named else (location, "", "")
    files = files_below(folder or ("/" if location.startswith("/") else "."))
    public = storage.public(location)
    top = min(uri.count("/") for uri in files)
    accepted = [name] if named else [f"{TABLE}{suffix}" for suffix in SUFFIXES]
    found = [uri for uri in files if uri.count("/") == top and parts_of(uri)[-1] in accepted]
    if len(found) == 1:
        return found[0], files
    if named:
        raise DataError(f"{public} must be a table of utterances, but does not exist. Check the path.", uri=public)
    raise DataError(
        f"{public} must be a folder with a table of utterances, one of {', '.join(accepted)}, but has "
        f"{' and '.join(parts_of(uri)[-1] for uri in found) or 'none'}. "
        f"{'Remove all but one' if found else 'Write it, one row per utterance'}.",
        uri=public,
    )


def _about(uri: str, files: Sequence[str]) -> About:
    if uri not in files:
        return About()
    try:
        return About.model_validate_json(storage.read_source(uri))
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        public = storage.public(uri)
        raise DataError(
            f"{public} must hold {', '.join(f'`{name}`' for name in About.model_fields)} and nothing else, but at "
            f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}. Correct it, or remove the file.",
            uri=public,
        ) from problem


# --- keys ---


def _with_index(rows: Rows) -> Rows:
    """Return the rows with each utterance's index in its dialogue: as given, or by order of rows."""
    if "utterance_index" in rows.names:
        check_keys(rows, ("utterance_index",))
        check_order(rows)
        return rows
    seen: dict[tuple[str, str], int] = defaultdict(int)
    places = []
    for split, dialogue in zip(*(rows.columns[name].to_pylist() for name in ("split", "dialogue_id")), strict=True):
        places.append(seen[split, dialogue])
        seen[split, dialogue] += 1
    return rows.with_column("utterance_index", pa.array(places, pa.int64()))


# --- values ---


def _check(rows: Rows, about: About) -> None:
    _check_ids(rows)
    _check_times(rows)
    if about.labels:
        labels = rows.columns["label"].to_pylist()
        rows.require(
            np.array([label is None or label in about.labels for label in labels]),
            "label",
            must=f"hold one of the `labels` of {ABOUT}, {', '.join(about.labels)}, or be empty",
            found=lambda row: f"holds {labels[row]!r}",
            remedy=f"Correct the label, or add it to {ABOUT}.",
        )


def _check_ids(rows: Rows) -> None:
    splits, names = (rows.columns[name].to_pylist() for name in ("split", "utterance_id"))
    require_different(
        rows,
        [None if name is None else (split, name) for split, name in zip(splits, names, strict=True)],
        "utterance_id",
        must="differ between the utterances of a split",
        remedy="Name each utterance differently, or leave the column out.",
    )


def _check_times(rows: Rows) -> None:
    start, end = (rows.columns[name].fill_null(pa.scalar(default)).to_numpy() for name, default in _OPEN.items())
    rows.require(
        start >= 0,
        "start",
        must="hold seconds from the start of the file",
        found=lambda row: f"holds {start[row]:g}",
        remedy="Correct the time, or leave it empty for the file's start.",
    )
    rows.require(
        end > start,
        "end",
        must="be later than `start`",
        found=lambda row: f"ends at {end[row]:g} s and starts at {start[row]:g} s",
        remedy="Correct the times, in seconds, or leave both empty for the whole file.",
    )


_OPEN = {"start": 0.0, "end": np.inf}


# --- media ---


def _with_media(rows: Rows, media: Mapping[str, str]) -> Rows:
    """Return the rows with normalised paths; every path must name an existing file."""
    for name in _MEDIA:
        written = rows.columns[name].to_pylist()
        paths = [None if path is None else posixpath.normpath(path.replace("\\", "/")) for path in written]
        rows.require(
            np.array([path is None or path in media for path in paths]),
            name,
            must="name a file below the table's folder, by its path from there",
            found=lambda row, written=written: f"names {written[row]!r}, which does not exist",  # type: ignore[misc]
            remedy="Add the file (in no folder whose name begins with `.` or `_`), correct the path, or leave it empty "
            "if the utterance has no recording.",
        )
        rows = rows.with_column(name, pa.array(paths, pa.string()))
    if all(rows.columns[name].null_count == rows.columns.num_rows for name in ("text", *_MEDIA)):
        raise DataError(
            f"{rows.source} must hold `text`, `audio` or `video` in at least one row, but all are empty or absent. Add "
            "text or media to extract features from.",
            uri=rows.source,
        )
    return rows


def _utterances(rows: Rows, media: Mapping[str, str]) -> Iterator[Utterance]:
    for row in rows.columns.to_pylist():
        audio, video = (
            None if row[name] is None else Clip(media[row[name]], row["start"], row["end"]) for name in _MEDIA
        )
        yield Utterance(
            dialogue_id=row["dialogue_id"],
            utterance_index=row["utterance_index"],
            utterance_id=row["utterance_id"] or f"{row['dialogue_id']}_{row['utterance_index']}",
            split=row["split"],
            speaker=row["speaker"],
            label=row["label"],
            text=row["text"],
            audio=audio,
            video=video,
            recorded_at=row["recorded_at"],
        )
