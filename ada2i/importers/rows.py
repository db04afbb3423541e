"""The rows of all files of a source, with their origin, so that messages can name file and row.

Shape letters in this file:
    N utterances of all files, concatenated
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ada2i.data import schema
from ada2i.data.manifest import FeatureSet
from ada2i.errors import DataError

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class File:
    """One file with canonical column names and types; only types have been checked.

    Attributes:
        columns: ``dialogue_id``, ``utterance_index``, ``label``, ``split``, ``utterance_id``, ``speaker``, ``text``,
            ``recorded_at`` and vector columns as lists of float32. Labels are strings or float64; columns that the file
            lacks are null.
        names: The file's own column names, by canonical name of the columns that it has.
        metadata: The keys and values of the file's schema.
        first_row: Number of the first row, if the columns are only a part of the file.
        unused: By column that was not read, what it holds; see ``unread``.
    """

    uri: str
    columns: pa.Table
    names: Mapping[str, str]
    metadata: Mapping[str, str]
    first_row: int = 0
    unused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """The rows of all files, concatenated.

    Attributes:
        source: The location that was imported.
        columns: ``N`` rows, as ``File.columns``.
        base: The feature set that the rows come from, if they come from one.
        split_rule: How the import made the splits; None if the source has them.
    """

    source: str
    files: tuple[File, ...]
    columns: pa.Table
    base: FeatureSet | None = None
    split_rule: str | None = None

    @property
    def names(self) -> Mapping[str, str]:
        """The first file's own column names, by canonical name."""
        return self.files[0].names

    @property
    def unused(self) -> dict[str, str]:
        """The columns that were not read, and what they hold."""
        return {name: held for file in self.files for name, held in file.unused.items()}

    def with_column(self, name: str, values: Any) -> "Rows":
        """Return the rows with other values in one of their columns."""
        return replace(self, columns=schema.with_column(self.columns, name, values))

    def recorded(self, key: str) -> str | None:
        """Return what the files record under a key: each distinct value once."""
        return "; ".join(dict.fromkeys(file.metadata[key] for file in self.files if file.metadata.get(key))) or None

    def encoder(self, modality: str) -> str:
        """Return what made a modality's vectors, as the files record it."""
        return self.recorded(f"{modality}_encoder") or self.recorded("encoder") or "imported"

    def require(
        self, good: Bools, field: str, *, must: str, found: Callable[[int], str], remedy: str, others: int = 0
    ) -> None:
        """Refuse the first bad row.

        Args:
            good: ``(N,)`` bool.
            field: The column that is checked.
            must: What must hold, as it follows "must".
            found: Returns what was found in a row, as it follows the row's name.
            remedy: What to do, as a sentence.
            others: Number of bad rows that are not among these.
        """
        if good.all():
            return
        row = int(np.argmin(good))
        uri, at = self._where(row)
        more = int(np.count_nonzero(~good)) - 1 + others
        raise DataError(
            f"Column `{field}` of {uri} must {must}, but row {at}{self._utterance(row)} {found(row)}"
            f"{f'; {more} more rows are wrong too' if more else ''}. {remedy}",
            uri=uri,
            row=at,
            field=field,
        )

    def place(self, row: int) -> str:
        """Return a row's number and file for a message."""
        uri, at = self._where(row)
        return f"row {at} of {uri}"

    def _where(self, row: int) -> tuple[str, int]:
        for file in self.files:
            if row < file.columns.num_rows:
                break
            row -= file.columns.num_rows
        return file.uri, file.first_row + row

    def _utterance(self, row: int) -> str:
        held = self.columns.schema.names
        dialogue, index = (
            self.columns[name][row].as_py() if name in held else None for name in ("dialogue_id", "utterance_index")
        )
        return "" if dialogue is None or index is None else f" (dialogue {dialogue!r}, utterance {index})"


_MOST_UNUSED = 20  # columns that are described
_WORDS: Mapping[str, tuple[str, ...]] = {  # parts of names of columns with one modality's vectors
    "text_feat": ("text", "bert", "sentence", "transcript", "word"),
    "audio_feat": ("audio", "speech", "voice", "sound", "acoustic"),
    "visual_feat": ("visual", "video", "vision", "face", "image", "picture", "frame"),
}


def unread(
    held: Iterable[str], used: Collection[str], describe: Callable[[str], str], free: Iterable[str]
) -> dict[str, str]:
    """Return the columns that were not read: by name, what they hold, and the name under which they would be read.

    Args:
        held: The table's columns.
        used: Those that were read.
        describe: Returns what a column holds.
        free: Names that would be read, but that no column has.
    """
    others, free = [name for name in dict.fromkeys(held) if name not in used], list(free)
    found = {}
    for name in others[:_MOST_UNUSED]:
        what = describe(name)
        found[name.encode(errors="replace").decode()] = f"{what}{_advice(name, what, free)}"  # JSON may hold no Unicode
    return found | ({"...": f"{len(others) - len(found)} more"} if len(others) > len(found) else {})


def _advice(name: str, what: str, free: list[str]) -> str:
    if what.endswith("numbers a row"):
        vectors = [other for other in free if other.endswith("_feat")]
        meant = [other for other in vectors if any(word in name.lower() for word in _WORDS.get(other, ()))]
        named = f"; name it {' or '.join(meant or vectors)}" if vectors else ""
        return f", looks like vectors{named}"
    close = get_close_matches(name.lower(), [other for other in free if not other.endswith("_feat")], 1, 0.8)
    return f"; `{close[0]}` would be read" if close else ""
