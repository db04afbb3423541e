"""The shards that a manifest lists, as columns: some 80 bytes for each, since there may be hundreds of thousands.

Shape letters in this file:
    S shards
"""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationInfo
from pydantic_core import CoreSchema, core_schema, from_json

from ada2i.data.schema import with_column
from ada2i.records import FileName, Record, Sha256

PIECE = 1 << 18  # bytes of JSON that are turned into columns at once
_NEXT = b"\n  },"  # the end of an entry; a text in it holds no raw line break
_NUMBERS, _TEXTS = ("size", "rows", "dialogues"), ("name", "split", "sha256")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")  # FileName
_SHA256 = re.compile(r"[0-9a-f]{64}")

Ints = npt.NDArray[np.int64]


class ShardEntry(Record):
    """One shard: a Parquet file next to the manifest."""

    name: FileName
    split: str
    size: int  # bytes
    sha256: Sha256
    rows: int
    dialogues: int


_FIELDS = frozenset(ShardEntry.model_fields)


class ShardList(Sequence[ShardEntry]):
    """Shards in the order of their rows; an entry is made when it is read.

    Attributes:
        columns: ``S`` rows with the fields of ``ShardEntry``; ``sha256`` as 32 bytes, ``split`` as a dictionary.
    """

    def __init__(self, columns: pa.Table) -> None:
        self.columns = columns

    @classmethod
    def of(cls, entries: Iterable[ShardEntry]) -> Self:
        """Return a list of entries that are already checked."""
        columns = _Columns()
        columns.add([entry.model_dump() for entry in entries])
        return cls(columns.table())

    @classmethod
    def parsed(cls, text: bytes, start: int, end: int) -> Self:
        """Return the entries in a part of indented JSON, between the brackets of its list, piece by piece.

        Raises:
            ValueError: It is not JSON of shards.
        """
        columns = _Columns()
        while start < end:
            cut = text.find(_NEXT, start + PIECE, end)
            stop = end if cut < 0 else cut + len(_NEXT) - 1
            columns.add(_checked(from_json(b"[%b]" % text[start:stop])))
            start = stop + 1
        return cls(columns.table())

    def numbers(self, field: str) -> Ints:
        """Return ``(S,)`` sizes in bytes, numbers of rows, or of dialogues."""
        return np.asarray(self.columns[field].to_numpy(), dtype=np.int64)

    def of_split(self, split: str) -> "ShardList":
        """Return the shards of a split."""
        return ShardList(self.columns.filter(pc.equal(self.columns["split"].cast(pa.string()), pa.scalar(split))))

    def are_different(self) -> bool:
        """Return whether no name occurs twice."""
        names: Any = self.columns["name"].combine_chunks()
        lengths, last = pc.binary_length(names).to_numpy(), max(len(self) - 1, 0)
        # Names are written in ascending order of their numbers, so usually no table of all names is needed.
        ascending = pc.less(names.slice(0, last), names.slice(1)).to_numpy(zero_copy_only=False)
        steps = np.diff(lengths)
        return bool(((steps > 0) | ((steps == 0) & ascending)).all()) or len(names.unique()) == len(self)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return the dialogues and rows of each split."""
        plain = with_column(self.columns, "split", self.columns["split"].cast(pa.string()))
        found = plain.group_by("split").aggregate([("dialogues", "sum"), ("rows", "sum")]).to_pylist()
        return {row["split"]: (row["dialogues_sum"], row["rows_sum"]) for row in found}

    def __len__(self) -> int:
        return self.columns.num_rows

    @overload
    def __getitem__(self, place: int) -> ShardEntry: ...
    @overload
    def __getitem__(self, place: slice) -> "ShardList": ...
    def __getitem__(self, place: int | slice) -> "ShardEntry | ShardList":
        if isinstance(place, slice):
            return ShardList(self.columns.take(pa.array(range(len(self))[place], pa.int64())))
        at = range(len(self))[place]
        return _entry({name: self.columns[name][at].as_py() for name in self.columns.column_names})

    def __iter__(self) -> Iterator[ShardEntry]:
        for batch in self.columns.to_batches(max_chunksize=4096):
            yield from map(_entry, batch.to_pylist())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ShardList):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return isinstance(other, tuple | list) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(self.columns["sha256"][0]) if len(self) else 0

    def __repr__(self) -> str:
        return f"ShardList({len(self)} shards)"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        def validated(value: Any, validate: Callable[[Any], Any], info: ValidationInfo) -> ShardList:
            if isinstance(info.context, ShardList):  # it was cut out of the JSON
                return info.context
            return value if isinstance(value, ShardList) else cls.of(validate(value))

        entries = TypeAdapter(tuple[ShardEntry, ...]).core_schema
        listed = core_schema.plain_serializer_function_ser_schema(lambda found: [entry.model_dump() for entry in found])
        return core_schema.with_info_wrap_validator_function(validated, entries, serialization=listed)


def _entry(fields: dict[str, Any]) -> ShardEntry:
    return ShardEntry.model_construct(**{**fields, "sha256": fields["sha256"].hex()})


def _checked(entries: Any) -> list[dict[str, Any]]:
    """Check entries as ``ShardEntry`` does, which would take seconds for hundreds of thousands."""
    for entry in entries:
        right = isinstance(entry, dict) and entry.keys() == _FIELDS and all(type(entry[name]) is str for name in _TEXTS)
        right = right and all(type(entry[name]) is int for name in _NUMBERS)
        if not right or not (_NAME.fullmatch(entry["name"]) and _SHA256.fullmatch(entry["sha256"])):
            ShardEntry.model_validate(entry)  # raises an error that names the field
            raise ValueError(f"a shard must have the fields {', '.join(sorted(_FIELDS))}")
    found: list[dict[str, Any]] = entries
    return found


class _Columns:
    """Collects columns in buffers that grow in place; Arrow's own would take twice their memory meanwhile."""

    def __init__(self) -> None:
        self.names, self.digests = bytearray(), bytearray()
        self.ends, self.codes = array("i", [0]), array("i")
        self.numbers = {name: array("q") for name in _NUMBERS}
        self.splits: dict[str, int] = {}

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Add checked entries."""
        for entry in entries:
            self.names += entry["name"].encode()
            self.ends.append(len(self.names))
        self.digests += bytes.fromhex("".join([entry["sha256"] for entry in entries]))
        self.codes.extend([self.splits.setdefault(entry["split"], len(self.splits)) for entry in entries])
        for name, column in self.numbers.items():
            column.extend([entry[name] for entry in entries])

    def table(self) -> pa.Table:
        """Return the columns; they keep the buffers."""
        rows, buffer = len(self.codes), pa.py_buffer
        codes = pa.Array.from_buffers(pa.int32(), rows, [None, buffer(self.codes)])
        columns: dict[str, Any] = {
            "name": pa.Array.from_buffers(pa.string(), rows, [None, buffer(self.ends), buffer(self.names)]),
            "split": pa.DictionaryArray.from_arrays(codes, pa.array(list(self.splits), pa.string())),
            "sha256": pa.Array.from_buffers(pa.binary(32), rows, [None, buffer(self.digests)]),
        }
        for name, column in self.numbers.items():
            columns[name] = pa.Array.from_buffers(pa.int64(), rows, [None, buffer(column)])
        return pa.table({name: columns[name] for name in ShardEntry.model_fields})
