"""Opens the field's pickles without running them.

A pickle is a program. It is read here by a small machine of our own, never by ``pickle.load``: it knows the opcodes
that build plain data, and answers a handful of names itself.

- Names: numpy's ``_reconstruct``, ``ndarray``, ``dtype``, ``scalar`` and ``_frombuffer`` (under the module paths of
  numpy 1 and 2), ``_codecs.encode``, ``set``, ``list`` and ``OrderedDict``. Any other name ends the reading and is
  named in the error; nothing is ever imported or called.
- Arrays: the shape and type must account for the bytes that are there, to the byte, before an array is made; it is then
  a view of these bytes. Numbers, booleans and text only; a one-dimensional array of objects becomes a list.
- Memory: whatever an opcode makes is charged to a budget of ``BUDGET_FACTOR`` times the file's size plus
  ``BUDGET_FLOOR``, before or as it is made: a small file cannot make a large object, however it repeats itself.
- Structure: integers of 64 bits, keys that are text or numbers, ``MAX_DEPTH`` levels, and written out in full no more
  than about as many values as the file has bytes: no structure that explodes when it is walked, and no cycles.
- Text of Python 2 is read as Latin-1, as the whole field does. Tensors of torch are refused by name.
"""

from types import NoneType
from typing import Any

import numpy as np

from ada2i import storage
from ada2i.errors import DataError, NotFoundError
from ada2i.importers.pickle_machine import Machine, Refused
from ada2i.importers.pickle_opcodes import run

BUDGET_FACTOR = 16
BUDGET_FLOOR = 64 * 2**20
MAX_DEPTH = 32

_LEAVES = frozenset({str, bytes, bytearray, int, float, bool, NoneType, np.ndarray})
_SLACK = 1_000_000  # values that a small file may hold through sharing
_DAMAGE = (ValueError, IndexError, KeyError, TypeError, OverflowError)  # what readers raise on bytes that are no pickle


def load_pickle(uri: str) -> object:
    """Read a pickle of plain data and numpy arrays.

    Args:
        uri: A path, or any URI that fsspec opens.

    Returns:
        Dicts, lists, tuples, sets, text, numbers and read-only arrays.

    Raises:
        DataError: There is no such file, it is no pickle, or it asks for anything that the policy above refuses.
            Nothing in it was run.
    """
    try:
        data = storage.read_source(uri)
    except NotFoundError as problem:
        raise DataError(problem.message, **problem.context) from problem
    machine = Machine(data, budget=BUDGET_FACTOR * len(data) + BUDGET_FLOOR)
    try:
        found = run(machine)
        _check_structure(found, limit=2 * len(data) + _SLACK)
    except Refused as problem:
        raise DataError(
            f"{uri} must be a pickle of plain data and numpy arrays, but {problem} (byte {machine.position} of "
            f"{len(data)}). Nothing in it was run. {problem.remedy}",
            uri=uri,
            byte=machine.position,
            name=problem.name,
        ) from None
    except _DAMAGE as problem:
        raise DataError(
            f"{uri} must be a sound pickle, but cannot be read at byte {machine.position} of {len(data)}: "
            f"{str(problem).rstrip('.') or type(problem).__name__}. Check that it was copied in full.",
            uri=uri,
            byte=machine.position,
        ) from problem
    return found


def _check_structure(root: object, *, limit: int) -> None:
    """Refuse what is nested too deep, is larger than the file when written out, or holds a name as a value."""
    todo: list[tuple[Any, int]] = [(root, 1)]
    values = 0
    while todo:
        value, depth = todo.pop()
        if type(value) in _LEAVES:
            continue
        if not isinstance(value, dict | list | tuple | set):
            raise Refused(f"holds {value} as a value, which is no data")
        if depth > MAX_DEPTH:
            raise Refused(f"nests values more than {MAX_DEPTH} deep")
        values += len(value)
        if values > limit:
            raise Refused(f"repeats itself into more than {limit} values")
        inner = value.values() if isinstance(value, dict) else value
        todo += [(child, depth + 1) for child in inner if type(child) not in _LEAVES]
