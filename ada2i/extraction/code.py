"""Imports encoders and readers of the caller's own, which are named ``package.module:name``.

Only the caller of an extraction names code. What is read from storage never reaches this file: a version's recipe is
checked against the built-in encoders and the caller's list first, and a job's request against the caller's digest.
"""

import importlib
import inspect
import os
import re
import sys
from typing import Any, get_type_hints

from ada2i.errors import InputError
from ada2i.jobs.cluster import CODE

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


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
    if not _NAME.fullmatch(name):
        raise error(f"{must} is not of that form. Correct the name.", **context)
    module, _, attribute = name.partition(":")
    own = os.environ.get(CODE, os.getcwd())
    if own not in sys.path:
        sys.path.append(own)  # last: a file there must not replace a module that is installed
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as problem:
        raise error(f"{must}: {problem}. Install it there, or correct the name.", **context) from problem


def returned(function: Any) -> Any:
    """Return what a function is annotated to return; None if it has no such annotation."""
    try:
        hints = get_type_hints(function if inspect.isroutine(function) else type(function).__call__)
    except (NameError, TypeError):
        return None
    found = hints.get("return")
    return getattr(found, "__origin__", found)  # the class of a generic one
