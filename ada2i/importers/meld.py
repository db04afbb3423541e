"""Imports MELD from its published CSVs, with the vectors of feature tables."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ada2i import storage
from ada2i.errors import DataError, NotFoundError
from ada2i.importers.checks import check_keys, with_splits
from ada2i.importers.datasets import dataset
from ada2i.importers.import_rows import import_rows
from ada2i.importers.keyed import attach, read_keyed
from ada2i.importers.rows import File, Rows
from ada2i.importers.transcripts import csv_lines, repaired

if TYPE_CHECKING:
    from ada2i.modalities import Modality

FILES: Mapping[str, str] = {split: f"{split}_sent_emo.csv" for split in ("train", "dev", "test")}

_COLUMNS: Mapping[str, str] = {  # by our name, MELD's
    "text": "Utterance",
    "speaker": "Speaker",
    "label": "Emotion",
    "dialogue_id": "Dialogue_ID",
    "utterance_id": "Utterance_ID",
}


def import_meld(folder: str, root: str, *, features: Sequence[str] = ()) -> str:
    """Import MELD: annotations from ``train_sent_emo.csv``, its dev and test CSVs, and vectors from feature tables.

    Utterances are ordered by ``Utterance_ID``, which has gaps, so it is not an index. A feature table identifies them
    by ``split`` (or a word of the file's name), ``dialogue_id`` and ``utterance_id``, as MELD numbers them; its vectors
    are in ``text_feat``, ``audio_feat`` and ``visual_feat``. An utterance that is in no table lacks the modality.

    Args:
        folder: Folder with the three CSVs.
        root: The storage root.
        features: Tables or folders of tables, each with vectors of any modalities and splits. Without
            them, the set has transcripts only.

    Returns:
        The URI of the set.

    Raises:
        DataError: A check failed. Nothing was written.
    """
    storage.check(folder)
    rows, changed = read_annotations(folder, {split: storage.join(folder, name) for split, name in FILES.items()})
    encoders: dict[Modality, str] = {}
    for keyed in read_keyed(features, keys=("utterance_id",), splits_of_files=True):
        rows = attach(rows, keyed, complete=False)
        encoders[keyed.modality] = keyed.rows.encoder(keyed.modality)
    meld = dataset("meld")
    joined = f" joined with {', '.join(map(storage.public, features))}" if features else ""
    return import_rows(
        _with_clip_names(rows),
        root,
        dataset=meld.name,
        labels=meld.labels,
        source=f"MELD {storage.public(folder)}{joined}; texts repaired: {changed}",
        encoders=encoders,
    )


def read_annotations(source: str, uris: Mapping[str, str]) -> tuple[Rows, int]:
    """Read MELD's CSVs.

    Args:
        source: Location of all CSVs, for messages.
        uris: The CSV of each split.

    Returns:
        One row per utterance: ``utterance_id`` is MELD's number in its dialogue, ``utterance_index`` the index; and the
        number of repaired texts.

    Raises:
        DataError: A CSV is absent, damaged or not MELD's.
    """
    tables = [_read(uri, split) for split, uri in uris.items()]
    files = tuple(file for file, _ in tables)
    rows = Rows(source, files, pa.concat_tables([file.columns for file in files]))
    check_keys(rows, ["dialogue_id", "label"])
    return with_splits(rows), sum(number for _, number in tables)


def _read(uri: str, split: str) -> tuple[File, int]:
    """Return a CSV's rows, and the number of its repaired texts."""
    lines, uri = list(_lines(uri)), storage.public(uri)
    ids = [(_whole(line["Dialogue_ID"]), _number(uri, row, line["Utterance_ID"])) for row, line in enumerate(lines)]
    texts = [repaired(line["Utterance"]) for line in lines]
    data: dict[str, Any] = {
        "dialogue_id": [dialogue or None for dialogue, _ in ids],
        "utterance_index": _positions(ids),
        "utterance_id": [str(number) for _, number in ids],
        "label": [line["Emotion"].strip().lower() or None for line in lines],
        "speaker": [repaired(line["Speaker"]).strip() or None for line in lines],
        "text": texts,
        "split": [split] * len(lines),
    }
    kinds = {name: pa.int64() if name == "utterance_index" else pa.string() for name in data}
    columns = pa.table({name: pa.array(values, kinds[name]) for name, values in data.items()})
    changed = sum(text != line["Utterance"] for text, line in zip(texts, lines, strict=True))
    return File(uri, columns, _COLUMNS, {}), changed


def _lines(uri: str) -> Iterator[dict[str, str]]:
    location, uri = uri, storage.public(uri)
    try:
        data = storage.read_source(location)
        text = data.decode("utf-8-sig")
    except NotFoundError as problem:
        raise DataError(
            f"{uri} must be one of MELD's three CSVs, {', '.join(FILES.values())}, but does not exist. Name the folder "
            "with all three.",
            uri=uri,
        ) from problem
    except UnicodeDecodeError as problem:
        raise DataError(
            f"{uri} must be UTF-8, as published, but is not at byte {problem.start}. Download the file again.", uri=uri
        ) from problem
    try:
        yield from _checked_lines(uri, csv.DictReader(csv_lines(text)))
    except csv.Error as problem:
        raise DataError(
            f"{uri} must be valid CSV, but is not: {problem}. Download the file again.", uri=uri
        ) from problem


def _checked_lines(uri: str, reader: "csv.DictReader[str]") -> Iterator[dict[str, str]]:
    if missing := [name for name in _COLUMNS.values() if name not in (reader.fieldnames or ())]:
        raise DataError(
            f"{uri} must have the column `{missing[0]}`, but has only {', '.join(reader.fieldnames or ['none'])}. "
            "Download the file again.",
            uri=uri,
            field=missing[0],
        )
    for row, line in enumerate(reader):
        if any(line[name] is None for name in _COLUMNS.values()):
            raise DataError(
                f"{uri} must have a value in each column, but row {row} is cut short. Download the file again.",
                uri=uri,
                row=row,
            )
        yield line


def _whole(text: str) -> str:
    """Return a number as MELD writes it: pandas makes 3.0 of 3 if another cell is empty."""
    return re.sub(r"^(\d+)\.0+$", r"\1", text.strip())


def _number(uri: str, row: int, text: str) -> int:
    number = _whole(text)
    if not (number.isascii() and number.isdecimal() and len(number) < 10):
        raise DataError(
            f"Column `Utterance_ID` of {uri} must hold whole numbers, but row {row} holds {text!r}. "
            "Download the file again.",
            uri=uri,
            row=row,
            field="Utterance_ID",
        )
    return int(number)


def _positions(ids: Sequence[tuple[str, int]]) -> list[int]:
    """Return each utterance's index in its dialogue, by the order of numbers, which may have gaps."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for dialogue, number in ids:
        numbers[dialogue].add(number)
    places = {d: {number: place for place, number in enumerate(sorted(held))} for d, held in numbers.items()}
    return [places[dialogue][number] for dialogue, number in ids]


def _with_clip_names(rows: Rows) -> Rows:
    """Name utterances as MELD's clips are named, by which users find them: ``dia0_utt5``."""
    columns = rows.columns
    names = pc.binary_join_element_wise(  # type: ignore[call-overload]
        pa.scalar("dia"), columns["dialogue_id"], pa.scalar("_utt"), columns["utterance_id"], pa.scalar("")
    )
    return rows.with_column("utterance_id", names)
