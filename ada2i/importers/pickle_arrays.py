"""Arrays in a pickle: what describes one is checked to the byte before it is made.

Shape letters in this file:
    N numbers of an array, in any shape
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ada2i.importers.pickle_machine import Refused

Charge = Callable[[int], None]  # takes bytes from the budget

_MAX_DIMENSIONS = 4
_EMPTY_SIDE = 2**16  # longest side of an array without numbers


class Pending:
    """An array between its first mention and its content."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        self.places: list[int] = []  # in the memo

    def __str__(self) -> str:
        return "an array without content"


class Dtype:
    """A type of array elements: ``f4`` and the like, and their byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]|O8?|[US][1-9]\d{0,8}", code):
            raise Refused(f"holds an array of type {str(code)[:50]!r}; numbers, booleans, text and objects are allowed")
        self.dtype: np.dtype[Any] = np.dtype(code)

    def __str__(self) -> str:
        return f"the array type {self.dtype}"

    def build(self, state: Any) -> None:
        """Set the byte order; no fields, no sub-arrays."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise ValueError("an array type has no byte order")
        if any(part is not None for part in state[2:5]):
            raise Refused("holds an array of records; numbers, booleans, text and objects are allowed")
        self.dtype = self.dtype.newbyteorder(state[1])


def finish(charge: Charge, state: Any) -> Any:
    """Return the array that a state describes: ``(version, shape, type, Fortran order, content)``."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("an array has no shape, type and content")
    _, shape, kind, fortran, content = state
    return make_array(charge, content, kind, shape, "F" if fortran else "C")


def make_array(charge: Charge, content: Any, kind: Any, shape: Any, order: Any) -> Any:
    """Return ``N`` numbers as a read-only view of their bytes, or text or objects as a list.

    Nothing is made before shape and type account for the content to the byte.
    """
    dtype, number = _dtype(kind), _number(shape)
    if dtype.kind == "O":
        return _objects(charge, content, shape)
    data = _bytes(charge, content)
    if number * dtype.itemsize != len(data):
        raise Refused(
            f"declares an array of shape {_shown(shape)} and type {dtype}, which is {number * dtype.itemsize} bytes, "
            f"but holds {len(data)} for it"
        )
    if max(shape, default=0) > max(len(data), _EMPTY_SIDE):
        raise Refused(f"declares an array of shape {_shown(shape)} without content")
    charge(128)
    flat = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
    if dtype.kind in "US":
        charge(64 * number + len(data))
        return _texts(flat, shape)
    if dtype.kind == "b":  # a byte may be anything; a boolean may not
        charge(len(data))
        flat = flat.view(np.uint8) != 0
    array = flat.reshape(shape, order="F" if order == "F" else "C")
    array.flags.writeable = False
    return array


def _texts(flat: "np.ndarray[Any, np.dtype[Any]]", shape: tuple[int, ...]) -> list[Any]:
    if len(shape) != 1:
        raise Refused(f"holds text in an array of shape {_shown(shape)}; one dimension is allowed")
    if flat.dtype.kind == "U" and (flat.view(np.dtype("u4").newbyteorder(flat.dtype.byteorder)) > 0x10FFFF).any():
        raise ValueError("an array of text holds numbers that are no characters")
    found: list[Any] = flat.tolist()
    return found


def _objects(charge: Charge, content: Any, shape: tuple[int, ...]) -> list[Any]:
    if len(shape) != 1 or not isinstance(content, list) or len(content) != shape[0]:
        raise Refused(f"holds objects in an array of shape {_shown(shape)}; a list of them is allowed")
    charge(8 * len(content))
    return list(content)


def _dtype(kind: Any) -> "np.dtype[Any]":
    if not isinstance(kind, Dtype):
        raise TypeError("an array has no type")
    return kind.dtype


def _number(shape: Any) -> int:
    """Return ``N`` as a Python integer, which does not overflow."""
    sides = shape if isinstance(shape, tuple) else ()
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in sides):
        raise ValueError("an array has no shape")
    if len(sides) > _MAX_DIMENSIONS:
        raise Refused(f"declares an array of {len(sides)} dimensions; {_MAX_DIMENSIONS} are allowed")
    return math.prod(sides)


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "()"


def _bytes(charge: Charge, content: Any) -> bytes:
    if isinstance(content, str):  # of Python 2
        charge(len(content))
        return content.encode("latin-1")
    if not isinstance(content, bytes | bytearray):
        raise TypeError(f"bytes are due where a {type(content).__name__} is")
    if isinstance(content, bytes):
        return content
    charge(len(content))
    return bytes(content)


def scalar(charge: Charge, kind: Any, content: Any) -> Any:
    """Return one number or text as Python's own."""
    dtype = _dtype(kind)
    data = _bytes(charge, content)
    if dtype.kind == "O" or len(data) != dtype.itemsize:
        raise Refused(f"declares a number of type {dtype}, {dtype.itemsize} bytes, but holds {len(data)} for it")
    return make_array(charge, data, kind, (1,), "C")[0] if dtype.kind in "US" else np.frombuffer(data, dtype)[0].item()
