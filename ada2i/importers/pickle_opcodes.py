"""A pickle's opcodes as functions of the machine that they work on, and the loop that runs them.

They build plain data only; the policy is in ``pickles``.
"""

import codecs
import pickletools
import re
from collections.abc import Callable, Mapping
from typing import IO, Any

from ada2i.importers import pickle_names as names
from ada2i.importers.pickle_arrays import Pending
from ada2i.importers.pickle_machine import KEY_TYPES, Machine, Refused, expect

_ENTRY = 104  # bytes of an entry of a dict or a set

_ESCAPED = re.compile(rb"""([^\\]|\\[\\'"abfnrtv]|\\x[0-9a-f]{2})*""")

Handler = Callable[[Machine, Any], None]
Reader = Callable[[IO[bytes]], Any]


def run(machine: Machine) -> object:
    """Return what the machine's pickle holds.

    Raises:
        Refused: It asks for something that is not allowed.
        ValueError: Or IndexError, KeyError, TypeError, OverflowError: the bytes are no pickle.
    """
    file = machine.file
    while True:
        machine.position = file.tell()
        code = file.read(1)
        if code == b".":
            break
        if code not in _OPCODES:
            raise ValueError(f"{code!r} is no opcode" if code else "the file ends before the pickle does")
        reader, handler = _OPCODES[code]
        handler(machine, reader(file) if reader else None)
    if len(machine.stack) != 1 or machine.outer:
        raise ValueError(f"{len(machine.stack)} values are left where the pickle ends")
    if file.read(1):
        raise Refused("more bytes follow where the pickle ends", remedy="Write one object into one file.")
    return machine.stack.pop()


def _push(machine: Machine, value: Any) -> None:
    machine.push(value)


def _constant(value: Any) -> Handler:
    return lambda machine, _: machine.push(value)


def _push_int(machine: Machine, value: int) -> None:
    if value.bit_length() > 64:
        raise Refused(f"holds an integer of {value.bit_length()} bits")
    machine.push(value)


def _skip(machine: Machine, _: Any) -> None:
    """Pass over what only says how the pickle was written."""


# --- stack and memo ---


def _mark(machine: Machine, _: Any) -> None:
    machine.charge(64)
    machine.outer.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine, _: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_to_mark()


def _pop_mark(machine: Machine, _: Any) -> None:
    machine.pop_to_mark()


def _again(machine: Machine, _: Any) -> None:
    machine.push_again(machine.stack[-1])


def _get(machine: Machine, place: int) -> None:
    machine.push_again(machine.memo[place])


def _put(machine: Machine, place: int) -> None:
    machine.charge(_ENTRY)
    value = machine.stack[-1]
    machine.memo[place] = value
    if isinstance(value, Pending):
        value.places.append(place)


def _memoize(machine: Machine, _: Any) -> None:
    _put(machine, len(machine.memo))


# --- containers ---


def _tuple(machine: Machine, _: Any) -> None:
    items = tuple(machine.pop_to_mark())
    machine.push(items)


def _tuple_of(number: int) -> Handler:
    def make(machine: Machine, _: Any) -> None:
        if len(machine.stack) < number:
            raise IndexError("values are missing")
        items = tuple(machine.stack[-number:])
        del machine.stack[-number:]
        machine.push(items)

    return make


def _list(machine: Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    machine.push(items)


def _dict(machine: Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    machine.push({})
    _fill(machine, machine.stack[-1], items)


def _append(machine: Machine, _: Any) -> None:
    value = machine.stack.pop()
    expect(machine.stack[-1], list).append(value)


def _appends(machine: Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    expect(machine.stack[-1], list).extend(items)


def _set_item(machine: Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _fill(machine, machine.stack[-1], [key, value])


def _set_items(machine: Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    _fill(machine, machine.stack[-1], items)


def _add_items(machine: Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    machine.charge(_ENTRY * len(items))
    expect(machine.stack[-1], set).update(_keys(items))


def _fill(machine: Machine, target: Any, items: list[Any]) -> None:
    machine.charge(_ENTRY * (len(items) // 2))
    expect(target, dict).update(zip(_keys(items[::2]), items[1::2], strict=True))


def _keys(items: list[Any]) -> list[Any]:
    for item in items:
        if type(item) not in KEY_TYPES:
            raise Refused(f"uses a {type(item).__name__} as a key; keys are text or numbers")
    return items


def _refused(name: str) -> Handler:
    def refuse(_machine: Machine, _: Any) -> None:
        raise Refused(f"holds the opcode {name}, which no published feature file needs")

    return refuse


# --- opcodes ---


def _read_string(file: IO[bytes]) -> str:
    """Read the quoted text of protocol 0."""
    quoted = file.readline().rstrip(b"\r\n")
    if len(quoted) < 2 or quoted[:1] != quoted[-1:] or quoted[:1] not in (b"'", b'"'):
        raise ValueError("text is not quoted")
    if not _ESCAPED.fullmatch(quoted[1:-1]):
        raise ValueError("text holds an escape that Python 2 never writes")
    return codecs.escape_decode(quoted[1:-1])[0].decode("latin-1")


def _read_words(file: IO[bytes]) -> str:
    """Read a module and a name, a line each, as ``module name``."""
    return " ".join(file.readline().rstrip(b"\r\n").decode("ascii") for _ in range(2))


# In place of pickletools' own, which warn of odd escapes and refuse text beyond ASCII.
_READERS: Mapping[str, Reader] = {"STRING": _read_string, "GLOBAL": _read_words, "INST": _read_words}
_INTS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_VALUES = (
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(_INTS, _push_int),
    **dict.fromkeys(_VALUES, _push),
    **{"NONE": _constant(None), "NEWTRUE": _constant(True), "NEWFALSE": _constant(False), "EMPTY_TUPLE": _constant(())},
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    **{"LIST": _list, "DICT": _dict, "TUPLE": _tuple, "APPEND": _append, "APPENDS": _appends},
    **{"TUPLE1": _tuple_of(1), "TUPLE2": _tuple_of(2), "TUPLE3": _tuple_of(3)},
    **{"SETITEM": _set_item, "SETITEMS": _set_items, "ADDITEMS": _add_items},
    **{"MARK": _mark, "POP": _pop, "POP_MARK": _pop_mark, "DUP": _again, "MEMOIZE": _memoize},
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("PROTO", "FRAME"), _skip),
    **{
        "GLOBAL": names.push_global,
        "STACK_GLOBAL": names.push_stack_global,
        "INST": names.refuse_instance,
        "REDUCE": names.reduce,
        "BUILD": names.build,
    },
}


def _opcode(info: pickletools.OpcodeInfo) -> tuple[Reader | None, Handler]:
    if info.name not in _HANDLERS:
        return None, _refused(info.name)
    reader = info.arg.reader if info.arg is not None else None
    return _READERS.get(info.name, reader), _HANDLERS[info.name]


_OPCODES = {info.code.encode("latin-1"): _opcode(info) for info in pickletools.opcodes}
