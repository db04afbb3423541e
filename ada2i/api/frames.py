"""Tables in memory: what the API takes and returns.

A frame is a pandas or polars DataFrame, a ``pyarrow.Table``, or another object with ``__arrow_c_stream__``. The use
cases read files, so a frame becomes a Parquet file in a temporary folder while a call runs.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from ada2i.errors import Ada2iError, DataError

Frame: TypeAlias = Any
"""A pandas or polars DataFrame, a ``pyarrow.Table``, or another object with ``__arrow_c_stream__``."""

_FILE = "frame.parquet"


def is_frame(source: object) -> bool:
    """Return whether a source is a frame, and not a path or a name."""
    return not isinstance(source, str | os.PathLike)


@contextmanager
def as_location(source: Frame | str | os.PathLike[str]) -> Iterator[str]:
    """Yield the location of a source: a path or name as text, or a temporary Parquet file that holds a frame.

    Messages of errors that the block raises call that file "the frame".

    Raises:
        DataError: The source is neither a path nor a frame, or a column has no type in Arrow.
    """
    if not is_frame(source):
        yield os.fspath(source)
        return
    table = to_arrow(source)
    with tempfile.TemporaryDirectory(prefix="ada2i-") as folder:
        file = Path(folder).resolve() / _FILE
        pq.write_table(table, file)
        try:
            yield str(file)
        except Ada2iError as problem:
            if str(file) not in problem.message:
                raise
            message = problem.message.replace(file.as_uri(), "the frame").replace(str(file), "the frame")
            raise type(problem)(message[0].upper() + message[1:], **problem.context) from None


def to_arrow(frame: Frame) -> pa.Table:
    """Return a frame as an Arrow table; the index of a pandas frame is left out.

    Raises:
        DataError: It is no frame, or a column mixes types.
    """
    try:
        if isinstance(frame, pa.Table):
            return frame
        if _library(frame) == "pandas" and hasattr(frame, "columns"):
            return pa.Table.from_pandas(frame, preserve_index=False)
        if _library(frame) == "polars" and hasattr(frame, "columns"):
            import polars

            # Parquet knows no views of text.
            return pa.table(frame.to_arrow(compat_level=polars.CompatLevel.oldest()))
        if hasattr(frame, "__arrow_c_stream__") and _library(frame) not in ("pandas", "polars"):  # no single column
            return pa.table(frame)
    except (pa.ArrowException, ValueError, OverflowError) as problem:
        raise DataError(
            "Each column of a frame must have a name of its own and hold values of one type that Arrow knows, but: "
            f"{str(problem).splitlines()[0]} Convert the column; vectors are lists of numbers."
        ) from problem
    raise DataError(
        "The source must be a path, a pandas or polars DataFrame, or a pyarrow.Table, but is of the type "
        f"{type(frame).__module__}.{type(frame).__qualname__}. Convert it, for example by pandas.DataFrame(...)."
    )


def like(frame: Frame, table: pa.Table) -> Frame:
    """Return an Arrow table of as many rows as ``frame`` in the library of ``frame``; pandas also gets its index."""
    library = _library(frame)
    if library == "pandas":
        return table.to_pandas().set_index(frame.index)
    if library == "polars":
        import polars

        return polars.from_arrow(table)
    return table


def _library(frame: Frame) -> str:
    return type(frame).__module__.partition(".")[0]
