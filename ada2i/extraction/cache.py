"""A cache of vectors, keyed by content and encoder, so that nothing is encoded twice.

``<root>/extraction/vectors/<encoder's digest>/`` holds chunks of vectors, ``<root>/extraction/files/`` chunks of file
digests. A chunk's name is the SHA-256 of its bytes: it is complete or ignored, and never changes. Everything here may
be deleted at any time; it is then computed again.
"""

import logging
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pyarrow as pa

from ada2i import storage
from ada2i.data import schema
from ada2i.data.parquet import to_parquet
from ada2i.extraction.outcome import Outcome

log = logging.getLogger(__name__)

_SUFFIX = ".parquet"


class VectorCache:
    """The vectors of one encoder."""

    def __init__(self, root: str, digest: str, width: int) -> None:
        self._folder = storage.join(root, "extraction", "vectors", digest)
        self._width = width
        self._seen: set[str] = set()

    def write(self, outcomes: Mapping[str, Outcome]) -> None:
        """Write a chunk.

        Args:
            outcomes: By key of the encoded content.
        """
        present = np.array([one.vector is not None for one in outcomes.values()])
        values = np.zeros((len(outcomes), self._width), np.float32)
        for row, one in enumerate(outcomes.values()):
            if one.vector is not None:
                values[row] = one.vector
        table = pa.table(
            {
                "key": pa.array(list(outcomes), pa.string()),
                "vector": schema.pack_vectors(values, present),
                "flags": pa.array([one.flags for one in outcomes.values()], pa.list_(pa.string())),
                "problem": pa.array([one.problem for one in outcomes.values()], pa.string()),
                "message": pa.array([one.message for one in outcomes.values()], pa.string()),
                "measures": pa.array(
                    [list(one.measures.items()) for one in outcomes.values()], pa.map_(pa.string(), pa.float64())
                ),
            }
        )
        _put(self._folder, table)

    def read(self, wanted: Collection[str]) -> dict[str, Outcome]:
        """Return the vectors of some keys, from chunks that no earlier call on this object has read."""
        found: dict[str, Outcome] = {}
        for table in _chunks(self._folder, self._seen):
            keys: list[str] = table["key"].to_pylist()  # type: ignore[assignment]  # none is null
            rows = [row for row, key in enumerate(keys) if key in wanted and key not in found]
            if rows and table["vector"].type.list_size == self._width:
                found |= zip((keys[row] for row in rows), _outcomes(table.take(rows)), strict=True)
        return found


def _outcomes(table: pa.Table) -> Iterator[Outcome]:
    values, present = schema.unpack_vectors(table["vector"])
    others = table.drop_columns(["key", "vector"]).to_pylist()
    for row, there, vector in zip(others, present, values, strict=True):
        yield Outcome(
            vector if there else None, tuple(row["flags"]), row["problem"], row["message"], dict(row["measures"])
        )


class DigestCache:
    """Digests of source files, by file stamp: see ``storage.source_stamps``."""

    def __init__(self, root: str) -> None:
        self._folder = storage.join(root, "extraction", "files")

    def write(self, digests: Mapping[str, str], stamps: Mapping[str, str]) -> None:
        """Write digests of files that have stamps.

        Args:
            digests: By file.
            stamps: By file, taken before the file was read.
        """
        known = sorted(file for file in digests if file in stamps)
        if known:
            columns = {
                "file": [storage.public(file) for file in known],
                "stamp": [stamps[file] for file in known],
                "digest": [digests[file] for file in known],
            }
            _put(self._folder, pa.table(columns))

    def read(self, stamps: Mapping[str, str]) -> dict[str, str]:
        """Return the digests, by file, of files that have not changed since they were last read."""
        held: dict[tuple[str, str], str] = {}
        for table in _chunks(self._folder, set()):
            columns = (table[name].to_pylist() for name in ("file", "stamp", "digest"))
            held |= {(file, stamp): digest for file, stamp, digest in zip(*columns, strict=True)}
        found = {file: held.get((storage.public(file), stamp)) for file, stamp in stamps.items()}
        return {file: digest for file, digest in found.items() if digest}


def _put(folder: str, table: pa.Table) -> None:
    data = to_parquet(table, compression="zstd")
    storage.put(storage.join(folder, f"{storage.digest(data)}{_SUFFIX}"), data)


def _chunks(folder: str, seen: set[str]) -> Iterator[pa.Table]:
    for name in storage.children(folder):
        if name in seen or not name.endswith(_SUFFIX):
            continue
        uri = storage.join(folder, name)
        data = storage.get(uri)
        if storage.digest(data) != name.removesuffix(_SUFFIX):
            log.warning("%s is damaged and is ignored; its contents are computed again. Delete it.", uri)
            continue
        seen.add(name)
        file = schema.open_parquet(data, uri)
        yield file.read(file.schema_arrow.names)
