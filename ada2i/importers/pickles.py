"""Open published pickles without executing code that they name.

A child process reads the pickle with an allow-list of names, within limits of memory and time, and returns plain
data; see ``pickle_child``. This process never unpickles the original bytes, and reads the child's answer with the same
allow-list.
"""

import io
import json
import signal
import subprocess
import sys
from typing import Any

from ada2i import storage
from ada2i.errors import DataError, NotFoundError
from ada2i.importers import pickle_child

BUDGET_FACTOR = 16  # memory limit of the child, as a multiple of the file's size
BUDGET_FLOOR = 256 * 2**20  # minimum of that limit, bytes
SECONDS_FLOOR = 5  # CPU time for any file; one more second for each MiB

_UNPACK = "Unpack it, and name the pickle in it."
_AS_ARRAYS = "Load it with the library that wrote it, and save dicts of numpy arrays by dialogue as a pickle."
_FORMATS = (  # the first bytes of files that are no pickles, what they are, and what to do
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run `git lfs pull`."),
    (b"<", "a web page or XML", "Download the file itself: the link may lead to a page, or to a log-in."),
    (b"\x93NUMPY", "an array in numpy's own format (npy)", _AS_ARRAYS),
    (b"PK\x03\x04", "a zip archive, as torch and numpy (npz) also write", f"{_UNPACK} {_AS_ARRAYS}"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", "a file of torch in its old format", _AS_ARRAYS),
    (b"\x89HDF\r\n", "a file of HDF5", _AS_ARRAYS),
    (b"MATLAB", "a file of Matlab", _AS_ARRAYS),
    (b"\x1f\x8b", "compressed by gzip", _UNPACK),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"PAR1", "a Parquet file", "Import it with `ada2i import table`."),
    (b"{", "JSON or other text", _AS_ARRAYS),
)
_FROM_PUBLISHER = "Download the file from its publisher again."
_SAVE_AS_NUMPY = "If you trust the file, save its tensors as numpy arrays."
_ONE_OBJECT = "Write one object into one file."


def load_pickle(uri: str) -> object:
    """Read a pickle of plain data and numpy arrays.

    Args:
        uri: A path, or any URI that fsspec opens.

    Returns:
        Dicts, lists, tuples, sets, text, numbers and arrays.

    Raises:
        DataError: The file does not exist, is not a pickle, or needs anything that ``pickle_child`` refuses. No code
            that it names was executed.
    """
    try:
        data = storage.read_source(uri)
    except NotFoundError as problem:
        raise DataError(problem.message, **problem.context) from problem
    uri = storage.public(uri)
    _check_format(uri, data)
    budget = BUDGET_FACTOR * len(data) + BUDGET_FLOOR
    seconds = SECONDS_FLOOR + (len(data) >> 20)
    command = [sys.executable, "-I", pickle_child.__file__, str(len(data)), str(budget), str(seconds)]
    child = subprocess.run(command, input=data, capture_output=True, check=False)
    if child.returncode == 0:
        return pickle_child.PlainUnpickler(io.BytesIO(child.stdout)).load()
    raise _error(uri, child.returncode, child.stderr)


def _check_format(uri: str, data: bytes) -> None:
    head = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:64]
    found = next(((what, todo) for magic, what, todo in _FORMATS if head.startswith(magic)), None)
    if data[257:262] == b"ustar":
        found = ("a tar archive", _UNPACK)
    if not head:
        found = ("empty", _FROM_PUBLISHER)
    if found:
        raise DataError(f"{uri} must be a pickle, but is {found[0]}. {found[1]}", uri=uri)


def _error(uri: str, code: int, answer: bytes) -> DataError:
    """Return the error for a pickle that the child could not read."""
    if code not in (pickle_child.REFUSED, pickle_child.DAMAGED):
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        ended += ", as it took too long" if code in (-signal.SIGXCPU, -signal.SIGKILL) else ""
        found: dict[str, Any] = {"found": f"the process that read it ended with {ended}"}
    else:
        found = json.loads(answer.splitlines()[-1])  # numpy may have written lines before it
    if code == pickle_child.DAMAGED:
        return DataError(
            f"{uri} must be a valid pickle, but cannot be read: {found['found']}. Check that it was copied in full.",
            uri=uri,
        )
    return DataError(
        f"{uri} must be a pickle of plain data and numpy arrays, but {found['found']}. No code that it names was run. "
        f"{_remedy(found['found'], found.get('name') or '')}",
        uri=uri,
        name=found.get("name"),
    )


def _remedy(found: str, name: str) -> str:
    if name.startswith("torch"):
        return _SAVE_AS_NUMPY
    return _ONE_OBJECT if "more bytes follow" in found else _FROM_PUBLISHER
