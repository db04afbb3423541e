"""The only names that a pickle may use, and what stands in for them: plain functions of checked values."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from ada2i.importers.pickle_arrays import Charge, Dtype, Pending, finish, make_array, scalar
from ada2i.importers.pickle_machine import KEY_TYPES, Machine, Refused, expect


class Name:
    """A name that is known, and what calling it does; ``make`` takes the budget first."""

    __slots__ = ("make", "title")

    def __init__(self, title: str, make: Callable[..., Any]) -> None:
        self.title = title
        self.make = make

    def __str__(self) -> str:
        return f"the name `{self.title}`"


# --- opcodes ---


def push_global(machine: Machine, words: str) -> None:
    """Push a name that is known."""
    module, _, name = words.partition(" ")
    machine.push(_resolve(module, name))


def push_stack_global(machine: Machine, _: Any) -> None:
    """Push a name that is known, from module and name on the stack."""
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.push(_resolve(expect(module, str), expect(name, str)))


def refuse_instance(_: Machine, words: str) -> None:
    """Refuse to make an object of any class."""
    module, _space, name = words.partition(" ")
    _refuse_name(module, name)


def _resolve(module: str, name: str) -> Name:
    found = NAMES.get((module, name))
    return found if found is not None else _refuse_name(module, name)


def _refuse_name(module: str, name: str) -> NoReturn:
    full = f"{module}.{name}"[:200]
    remedy = "Do not open it with anything else: get the file from its publisher again."
    if module.partition(".")[0] == "torch":
        remedy = "Where you trust the file, save its tensors as numpy arrays."
    raise Refused(f"names `{full}`, which no published feature file needs", name=full, remedy=remedy)


def reduce(machine: Machine, _: Any) -> None:
    """Call a name."""
    arguments, name = machine.stack.pop(), machine.stack.pop()
    if not isinstance(name, Name):
        raise Refused(f"calls a {type(name).__name__}")
    machine.push(name.make(machine.charge, *expect(arguments, tuple)))


def build(machine: Machine, _: Any) -> None:
    """Give an array or its type what it was made for."""
    state, target = machine.stack.pop(), machine.stack[-1]
    if isinstance(target, Dtype):
        target.build(state)
    elif isinstance(target, Pending):
        made = finish(machine.charge, state)
        machine.stack[-1] = made
        for place in target.places:  # whoever meets it from now on meets the array
            machine.memo[place] = made
    else:
        raise Refused(f"sets the state of a {type(target).__name__}")


# --- what calling a name does ---


def _reconstruct(charge: Charge, kind: Any, *_: Any) -> Pending:
    if kind is not NAMES["numpy", "ndarray"]:
        raise Refused("makes an array of a class of its own")
    charge(64)
    return Pending()


def _from_buffer(charge: Charge, content: Any, kind: Any, shape: Any, order: Any) -> Any:
    return make_array(charge, content, kind, shape, order)


def _make_dtype(charge: Charge, code: Any, *_: Any) -> Dtype:
    charge(128)
    return Dtype(code)


def _encode(charge: Charge, text: Any, encoding: Any = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"encodes a {type(text).__name__} as {str(encoding)[:50]!r}; only text as Latin-1 is allowed")
    charge(len(text))
    return text.encode("latin-1")


def _set(charge: Charge, items: Any = ()) -> set[Any]:
    listed = _sequence(items)
    charge(104 * len(listed))
    if not all(type(item) in KEY_TYPES for item in listed):
        raise Refused("holds a set of something other than text or numbers")
    return set(listed)


def _list(charge: Charge, items: Any = ()) -> list[Any]:
    listed = _sequence(items)
    charge(8 * len(listed))
    return list(listed)


def _ordered_dict(charge: Charge, items: Any = ()) -> dict[Any, Any]:
    listed = _sequence(items)
    charge(200 * len(listed))
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 and type(pair[0]) in KEY_TYPES for pair in listed):
        raise Refused("holds an OrderedDict of something other than keys and values; keys are text or numbers")
    return OrderedDict(listed)


def _sequence(items: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(items, list | tuple):
        raise TypeError(f"a list is due where a {type(items).__name__} is")
    return items


def _not_callable(title: str) -> Callable[..., NoReturn]:
    def refuse(_: Charge, *arguments: Any) -> NoReturn:  # noqa: ARG001
        raise Refused(f"calls `{title}`", name=title)

    return refuse


def _names() -> dict[tuple[str, str], Name]:
    cores: Mapping[tuple[str, str], Callable[..., Any]] = {
        ("multiarray", "_reconstruct"): _reconstruct,
        ("multiarray", "scalar"): scalar,
        ("numeric", "_frombuffer"): _from_buffer,
    }
    makers: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): _not_callable("numpy.ndarray"),
        ("numpy", "dtype"): _make_dtype,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): _ordered_dict,
    }
    for core in ("numpy.core", "numpy._core"):
        makers |= {(f"{core}.{module}", name): make for (module, name), make in cores.items()}
    for module in ("builtins", "__builtin__"):
        makers |= {(module, "set"): _set, (module, "list"): _list}
    return {key: Name(".".join(key), make) for key, make in makers.items()}


NAMES: Mapping[tuple[str, str], Name] = _names()
