"""Tables as the bytes of Parquet files, for files that this project writes itself.

``schema.open_parquet`` opens files from elsewhere: it refuses those that are far larger in memory than on disk.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def to_parquet(table: pa.Table, **options: Any) -> bytes:
    """Return a table as the bytes of a file; the options are those of ``pyarrow.parquet.write_table``."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def from_parquet(data: bytes, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table that the bytes of a file hold, or some of its columns.

    Raises:
        pyarrow.ArrowInvalid: They are no Parquet file.
    """
    return pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))
