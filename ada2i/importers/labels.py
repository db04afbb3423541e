"""Classes of a corpus: their names, from the caller or the files, and the class index of each row.

Shape letters in this file:
    N utterances of all files, concatenated
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ada2i.data import spool
from ada2i.errors import DataError
from ada2i.importers.rows import File, Rows
from ada2i.records import UNLABELLED

Names = tuple[str, ...]  # by class index


def classes(rows: Rows, given: Names | None) -> tuple[Names, NDArray[np.int32]]:
    """Return class names, and ``(N,)`` int32 class indices, ``UNLABELLED`` for a null label.

    Args:
        rows: Rows with canonical split names.
        given: Names from the caller; by default those of the files, else the distinct names (sorted) or indices in
            train.

    Raises:
        DataError: Names repeat or are empty, a label belongs to no class, or train has fewer than two classes.
    """
    names = _check_given(given and tuple(name.strip() for name in given)) or recorded_names(rows.files)
    label, train = rows.columns["label"], pa.scalar("train")
    parts = spool.pieces(rows.columns.select(["label", "split"]))
    found = [pc.unique(part["label"].filter(pc.equal(part["split"], train))) for part in parts]
    seen = pc.unique(pa.chunked_array(found, label.type)).drop_null()
    if len(seen) < 2:
        raise DataError(
            f"Column `label` of {rows.source} must hold at least two classes in train, but holds "
            f"{f'only {seen[0]}' if len(seen) else 'no label there'}. Check the labels.",
            uri=rows.source,
            field="label",
        )
    if pa.types.is_string(label.type):
        names = names or tuple(sorted(str(name) for name in seen.to_pylist()))
        return names, _of_names(rows, names)
    known = "the classes of train" if names is None else f"the {len(names)} known classes"
    names = names or tuple(str(index) for index in range(len(seen)))
    return names, _of_indices(rows, len(names), known)


def _of_names(rows: Rows, names: Names) -> NDArray[np.int32]:
    label, known = rows.columns["label"], pa.array(names, pa.string())
    parts = (pc.index_in(part["label"], value_set=known) for part in spool.pieces(rows.columns.select(["label"])))
    index = np.concatenate([part.fill_null(UNLABELLED).to_numpy() for part in parts])
    rows.require(
        (index != UNLABELLED) | label.is_null().to_numpy(),
        "label",
        must=f"hold a known class, one of {', '.join(names)}",
        found=lambda row: f"holds {label[row].as_py()!r}",
        remedy="Correct the label, or name all classes.",
    )
    return index


def _of_indices(rows: Rows, number: int, known: str) -> NDArray[np.int32]:
    label, nothing = rows.columns["label"], pa.scalar(UNLABELLED, rows.columns["label"].type)
    parts = (part["label"].fill_null(nothing).to_numpy() for part in spool.pieces(rows.columns.select(["label"])))
    known_parts = (np.where(np.isin(part, np.arange(number)), part, UNLABELLED) for part in parts)
    index = np.concatenate([part.astype(np.int32) for part in known_parts])
    rows.require(
        (index != UNLABELLED) | label.is_null().to_numpy(),
        "label",
        must=f"hold integers 0..{number - 1}, the indices of {known}",
        found=lambda row: f"holds {label[row].as_py():.12g}",
        remedy="Correct the label (null: none); number the classes of train without gaps, or name them all.",
    )
    return index


def _check_given(names: Names | None) -> Names | None:
    if names and not _distinct(names):
        raise DataError(
            f"`labels` must be different names, none empty, but are {', '.join(map(repr, names))}. Correct the names.",
            field="labels",
        )
    return names


def recorded_names(files: tuple[File, ...]) -> Names | None:
    """Return the class names in the Parquet key ``label_names``, which is optional but must not contradict itself.

    Raises:
        DataError: Files contradict one another, or the value is not a list of names.
    """
    first: Names | None = None
    for file in files:
        if "label_names" not in file.metadata:
            continue
        names = _parse(file.uri, file.metadata["label_names"])
        first = first or names
        if names != first:
            raise _bad_key(file.uri, f"be {','.join(first)} in all files", ",".join(names))
    return first


def _parse(uri: str, text: str) -> Names:
    pairs = [part.strip().partition("=") for part in text.split(",")]
    names = tuple(name.strip() for _, _, name in pairs)
    if [number for number, _, _ in pairs] != [str(index) for index in range(len(pairs))]:
        raise _bad_key(uri, "count 0=name,1=name... without a gap", text)
    if not _distinct(names):
        raise _bad_key(uri, "hold different names, none empty", text)
    return names


def _distinct(names: Names) -> bool:
    return all(names) and len(set(names)) == len(names)


def _bad_key(uri: str, must: str, found: str) -> DataError:
    return DataError(
        f"The Parquet key `label_names` of {uri} must {must}, but is {found!r}. Correct the file, or name the classes "
        "yourself.",
        uri=uri,
        field="label_names",
    )
