"""What a pickle's opcodes work on: a stack, a memo, and a budget of memory."""

import io
import sys
from types import NoneType
from typing import Any

KEY_TYPES = frozenset({str, bytes, int, float, bool, NoneType})

_REFERENCE = 8  # bytes of a place in a list


class Refused(Exception):  # noqa: N818  # becomes a DataError where file and place are known
    """A pickle asks for something that is not allowed."""

    def __init__(self, found: str, *, name: str | None = None, remedy: str = "Get the file from its publisher again."):
        super().__init__(found)
        self.name = name
        self.remedy = remedy


class Machine:
    """One reading of one pickle."""

    def __init__(self, data: bytes, *, budget: int) -> None:
        self.file = io.BytesIO(data)
        self.budget = budget
        self.limit = budget
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.position = 0  # of the opcode at work

    def charge(self, size: int) -> None:
        """Take bytes from the budget."""
        self.budget -= size
        if self.budget < 0:
            raise Refused(f"would take more than {self.limit >> 20} MiB of memory, far more than its size explains")

    def push(self, value: Any) -> None:
        """Push a new value, which costs what Python says that it takes."""
        cheap = type(value) is int and -6 < value < 257  # shared by all of Python
        self.charge(_REFERENCE if cheap else _REFERENCE + sys.getsizeof(value))
        self.stack.append(value)

    def pop_to_mark(self) -> list[Any]:
        """Return the values above the newest mark, which goes."""
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def push_again(self, value: Any) -> None:
        """Push a value that exists already."""
        self.charge(_REFERENCE)
        self.stack.append(value)


def expect(value: Any, kind: type) -> Any:
    """Return a value that must be of a kind."""
    if not isinstance(value, kind):
        raise TypeError(f"a {kind.__name__} is due where a {type(value).__name__} is")
    return value
