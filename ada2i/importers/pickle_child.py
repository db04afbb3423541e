"""Read a pickle of plain data and numpy arrays without executing code that it names: the child process.

``pickles.load_pickle`` runs this file as a script, with the pickle on standard input. It is a separate script that
imports nothing of the package, so that it starts fast and holds no secrets. It is hand-written because
no library offers an unpickler with an allow-list, a memory limit and a result of plain data.

- Names: ``Unpickler.find_class`` allows the few functions that build numpy arrays and plain containers. Any other name
  stops the reading; nothing is imported for it.
- Memory and time: ``RLIMIT_AS`` and ``RLIMIT_CPU`` of this process.
- Result: dicts, lists, tuples, sets, text, numbers and arrays, pickled again for the parent. A structure is refused if
  it expands to much more than the file's size, is nested deeper than ``MAX_DEPTH`` or contains itself.
"""

import collections
import importlib
import json
import pickle
import resource
import sys
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

import numpy as np

MAX_DEPTH = 32
MAX_DIMENSIONS = 4
MAX_BITS = 64  # of an integer
SLACK = 1_000_000  # values that a small file may expand to through shared references

KEY_TYPES = (str, bytes, int, float, bool, NoneType)
DAMAGE = (
    pickle.UnpicklingError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    AttributeError,
    EOFError,
    RecursionError,
    SystemError,  # raised by numpy
)

REFUSED, DAMAGED = 3, 4  # exit codes


class Refused(Exception):  # noqa: N818 - becomes a DataError in the parent
    """The pickle needs something that is not allowed.

    Attributes:
        name: The name that it uses, if that is the reason.
    """

    def __init__(self, found: str, name: str | None = None) -> None:
        super().__init__(found)
        self.name = name


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    """Replace ``_codecs.encode``, by which Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"encodes a {type(text).__name__} as {str(encoding)[:50]!r}; only text as Latin-1 is allowed")
    return text.encode("latin-1")


def _allowed() -> dict[tuple[str, str], Any]:
    core: Any = importlib.import_module("numpy._core")
    multiarray, numeric = core.multiarray, core.numeric
    found: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): collections.OrderedDict,
    }
    for name in ("numpy.core", "numpy._core"):
        found[f"{name}.multiarray", "_reconstruct"] = multiarray._reconstruct
        found[f"{name}.multiarray", "scalar"] = multiarray.scalar
        found[f"{name}.numeric", "_frombuffer"] = numeric._frombuffer
    for module in ("builtins", "__builtin__"):
        found |= {(module, "set"): set, (module, "list"): list}
    return found


ALLOWED = _allowed()


class PlainUnpickler(pickle.Unpickler):
    """An unpickler that allows only the names in ``ALLOWED``; text of Python 2 is read as Latin-1."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed function or class; never import.

        Raises:
            Refused: The name is not allowed.
        """
        if (module, name) not in ALLOWED:
            full = f"{module}.{name}"[:200]
            raise Refused(f"names `{full}`, which no published feature file needs", full)
        return ALLOWED[module, name]


def read(file: BinaryIO, *, size: int) -> object:
    """Return the plain data of a pickle.

    Args:
        file: Open for reading; must end where the pickle ends.
        size: Its length in bytes.

    Raises:
        Refused: The pickle needs something that is not allowed.
        Exception: One of ``DAMAGE``: the bytes are not a pickle.
    """
    found = PlainUnpickler(file).load()
    if file.read(1):
        raise Refused("more bytes follow where the pickle ends")
    return _Plain(limit=2 * size + SLACK).convert(found, 1)[0]


class _Plain:
    """Converts values to plain data. Values that occur several times are converted once and counted each time."""

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        self.done: dict[int, tuple[Any, int]] = {}  # by id: the plain value, and how many values it holds

    def convert(self, value: Any, depth: int) -> tuple[Any, int]:
        if depth > MAX_DEPTH:
            raise Refused(f"nests values more than {MAX_DEPTH} deep")
        if isinstance(value, np.generic):
            value = value.item()
        if type(value) is int and value.bit_length() > MAX_BITS:
            raise Refused(f"holds an integer of {value.bit_length()} bits")
        if type(value) in (*KEY_TYPES, bytearray):
            return value, 1
        if id(value) not in self.done:
            self.done[id(value)] = self._container(value, depth)
        size = self.done[id(value)][1]
        if size > self.limit:
            raise Refused(f"repeats itself into more than {self.limit} values")
        return self.done[id(value)]

    def _container(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, np.ndarray):
            return self._array(value, depth)
        if isinstance(value, dict):
            keys = [self._key(key) for key in value]
            values, size = self._all(value.values(), depth)
            pairs = zip(keys, values, strict=True)
            return (collections.OrderedDict(pairs) if type(value) is collections.OrderedDict else dict(pairs)), size
        if type(value) in (list, tuple):
            values, size = self._all(value, depth)
            return type(value)(values), size
        if type(value) is set:
            return {self._key(item) for item in value}, len(value)
        raise Refused(f"holds {self._name(value)} as a value, which is not data")

    def _all(self, values: Any, depth: int) -> tuple[list[Any], int]:
        found = [self.convert(value, depth + 1) for value in values]
        return [value for value, _ in found], 1 + sum(size for _, size in found)

    def _array(self, array: "np.ndarray[Any, Any]", depth: int) -> tuple[Any, int]:
        if array.ndim > MAX_DIMENSIONS:
            raise Refused(f"declares an array of {array.ndim} dimensions; {MAX_DIMENSIONS} are allowed")
        if array.dtype.kind in "biuf":
            return np.array(array, dtype=array.dtype, order="K"), 1
        if array.dtype.kind not in "OUS":
            raise Refused(f"holds an array of type {array.dtype}; numbers, booleans, text and objects are allowed")
        if array.ndim != 1:
            shape = " x ".join(map(str, array.shape)) or "()"
            raise Refused(f"holds text or objects in an array of shape {shape}; one dimension is allowed")
        return self._all(array.tolist(), depth)

    def _key(self, key: Any) -> Any:
        key = key.item() if isinstance(key, np.generic) else key
        if type(key) not in KEY_TYPES:
            raise Refused(f"uses a {type(key).__name__} as a key; keys are text or numbers")
        return key

    @staticmethod
    def _name(value: Any) -> str:
        names = (".".join(name) for name, found in ALLOWED.items() if found is value)
        return next((f"the name `{name}`" for name in names), f"a {type(value).__name__}")


def _limit(budget: int, seconds: int) -> None:
    """Limit this process to ``budget`` bytes beyond its current mappings, and to ``seconds`` of CPU time."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = mapped + budget if hard == resource.RLIM_INFINITY else min(mapped + budget, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds,) * 2)


def main() -> int:
    """Read ``argv[1]`` bytes from standard input; write plain data to standard output.

    ``argv[2]`` limits the memory, in bytes, and ``argv[3]`` the CPU time, in seconds.
    """
    size, budget, seconds = map(int, sys.argv[1:4])
    _limit(budget, seconds)
    try:
        pickle.dump(read(sys.stdin.buffer, size=size), sys.stdout.buffer, protocol=5)
    except Refused as problem:
        found, code = {"found": str(problem), "name": problem.name}, REFUSED
    except MemoryError:
        found, code = (
            {"found": f"takes more than {budget >> 20} MiB of memory, far more than its size explains"},
            REFUSED,
        )
    except DAMAGE as problem:
        found, code = {"found": str(problem).rstrip(".") or type(problem).__name__}, DAMAGED
    else:
        return 0
    sys.stderr.write(json.dumps(found))
    return code


if __name__ == "__main__":
    sys.exit(main())
