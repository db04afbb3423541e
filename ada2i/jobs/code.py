"""Imports classes and functions of the caller's own, which are named ``package.module:name``.

Only the caller of this process names code. A name that was read from storage is refused unless the caller named it as
well: encoders of features by a list, methods of training by ``named``. A job takes names from its request, whose digest
the caller submitted.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, get_type_hints

from ada2i.config import OWN, OWN_NAME
from ada2i.errors import ConfigError, InputError, IntegrityError
from ada2i.jobs.cluster import CODE

_named: dict[str, str] = {}  # what this process may import as a method: digests by name
_imported: dict[str, str] = {}  # what it has imported


@contextmanager
def named(code: Mapping[str, str]) -> Iterator[None]:
    """Let this process import classes within the block; the caller, or its digest-checked request, named them.

    Args:
        code: SHA-256 of the sources by name; see ``digests``.
    """
    before = dict(_named)
    _named.update(code)
    try:
        yield
    finally:
        _named.clear()
        _named.update(before)


def digests(names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the sources of classes that the caller named, without importing them.

    Raises:
        ConfigError: Python finds no source for a name.
    """
    return {name: _digest(name) for name in names}


def check_here(code: Mapping[str, str]) -> None:
    """Check that this machine has the sources that the caller has.

    Raises:
        ConfigError: Python finds no source for a name.
        IntegrityError: A source here is another one.
    """
    for name, digest in code.items():
        _compare(name, _digest(name), digest, "This job")


def check_stored(names: Iterable[str], stored: Mapping[str, str], what: str) -> dict[str, str]:
    """Return the digests of the classes that a stored config names, after comparing them with what was ``named``.

    Args:
        names: The classes.
        stored: The digests that are stored with the config, by name.
        what: What the config belongs to, for messages.

    Raises:
        ConfigError: The caller did not name a class.
        IntegrityError: The source here is not the one that was trained with.
    """
    found = {}
    for name in names:
        _check_named(name, f"{what} was trained with")
        _compare(name, _named[name], stored.get(name, "unknown"), what)
        found[name] = _named[name]
    return found


def method(name: str, what: str) -> Any:
    """Import a class of the caller's own for training or its model, after comparing its source with the digest.

    Args:
        name: The class, which must have been ``named``.
        what: What it is, for messages.

    Raises:
        ConfigError: The caller did not name it, or Python cannot import it.
        IntegrityError: Its source here is not the caller's.
    """
    _check_named(name, f"{what} is")
    digest = _digest(name)
    _compare(name, digest, _named[name], "This job")
    found = imported(name, f"{what} {name}", OWN, ConfigError, code=name)
    if _imported.setdefault(name, digest) != digest:
        raise ConfigError(
            f"{name} must have the source that this process imported, but it was changed since. Start a new process.",
            code=name,
        )
    return found


def build(name: str, what: str, numbers: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return an object of a class of the caller's own; see ``method``.

    Args:
        name: The class.
        what: What it is, for messages.
        numbers: Arguments that it gets as far as its constructor names them.
        options: The caller's own arguments, which it must take.

    Raises:
        ConfigError: It is no class, or does not take the options.
    """
    kind = method(name, what)
    if not inspect.isclass(kind):
        raise ConfigError(f"{what} {name} must be a class, but is a {type(kind).__name__}. Name a class.", code=name)
    taken = inspect.signature(kind).parameters
    whole = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    given = {**{key: value for key, value in numbers.items() if whole or key in taken}, **options}
    try:
        inspect.signature(kind).bind(**given)
    except TypeError as problem:
        raise ConfigError(
            f"{what} {name} must take its options and some of {', '.join(numbers)} by name, but: {problem}. Correct "
            "its `__init__`, or set its options.",
            code=name,
        ) from problem
    return kind(**given)


def imported(name: str, what: str, form: str, error: type[InputError], **context: str) -> Any:
    """Import ``package.module:name`` without calling it.

    Args:
        name: The name.
        what: What it names, for messages.
        form: How it must be written, for messages.
        error: The class of the error.
        context: Facts for the error.

    Raises:
        InputError: It is no such name, or Python cannot import it.
    """
    must = f"{what} must be {form} that Python can import, also on every worker, but"
    if not OWN_NAME.fullmatch(name):
        raise error(f"{must} is not of that form. Correct the name.", **context)
    module, _, attribute = name.partition(":")
    _add_own_folder()
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as problem:  # a module may raise anything when it is imported
        reason = f"{type(problem).__name__}: {problem}"
        raise error(f"{must}: {reason}. Install it there, or correct the name.", **context) from problem


def returned(function: Any) -> Any:
    """Return what a function is annotated to return; None if it has no such annotation."""
    try:
        hints = get_type_hints(function if inspect.isroutine(function) else type(function).__call__)
    except (NameError, TypeError):
        return None
    found = hints.get("return")
    return getattr(found, "__origin__", found)  # the class of a generic one


def _add_own_folder() -> None:
    own = os.environ.get(CODE, os.getcwd())
    if own not in sys.path:
        sys.path.append(own)  # last: a file there must not replace a module that is installed
    importlib.invalidate_caches()


def _check_named(name: str, what: str) -> None:
    if name not in _named:
        raise ConfigError(
            f"{what} {name}, code that would run here, so the caller must name it, but did not. If you know and trust "
            f"that code, add `--code {name}`.",
            code=name,
        )


def _compare(name: str, found: str, stored: str, what: str) -> None:
    if found != stored:
        raise IntegrityError(
            f"{what} needs {name} with the source of SHA-256 {stored[:16]}, but the source here has {found[:16]}. "
            "Restore that source, here and on every worker, or train again with the new one.",
            code=name,
        )


def _digest(name: str) -> str:
    """Return the SHA-256 of the module's file, or of every Python file of the package that it belongs to."""
    _add_own_folder()
    top = name.partition(":")[0].partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    files = dict(sorted(_files(spec))) if spec else {}
    if not files:
        raise ConfigError(
            f"{name} must be {OWN} that Python can import, also on every worker, but there is no source of a module "
            f"`{top}`. Run the command in the folder that holds it, add that folder to PYTHONPATH, or install it.",
            code=name,
        )
    whole = hashlib.sha256()
    for place, file in files.items():
        data = file.read_bytes()
        whole.update(f"{place}\0{len(data)}\0".encode() + data)
    return whole.hexdigest()


def _files(spec: ModuleSpec) -> Iterator[tuple[str, Path]]:
    if spec.submodule_search_locations is None:
        if spec.origin and Path(spec.origin).is_file():
            yield Path(spec.origin).name, Path(spec.origin)
        return
    for folder in map(Path, spec.submodule_search_locations):
        yield from ((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*.py"))
