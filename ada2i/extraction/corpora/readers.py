"""Readers of corpora, by name.

Your own reader is a function from a location to a ``Corpus``, in a module that Python can import; name it
``package.module:function`` in place of a built-in reader.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from ada2i.errors import DataError
from ada2i.extraction.corpora.folder import read_folder
from ada2i.extraction.corpora.iemocap import read_iemocap
from ada2i.extraction.corpora.meld import read_meld
from ada2i.extraction.corpora.mosei import read_mosei
from ada2i.extraction.utterance import Corpus

Reader: TypeAlias = Callable[[str], Corpus]

CORPORA: Mapping[str, Reader] = {
    "folder": read_folder,
    "meld": read_meld,
    **{name: partial(read_iemocap, dataset=name) for name in ("iemocap", "iemocap-4")},
    **{name: partial(read_mosei, dataset=name) for name in ("cmu-mosei-2", "cmu-mosei-7", "cmu-mosi-2", "cmu-mosi-7")},
}


def read_corpus(kind: str, location: str) -> Corpus:
    """Read a corpus without opening any sound or picture.

    Args:
        kind: A name of ``CORPORA``: a published dataset, or ``folder`` for your own table; or
            ``package.module:function`` for your own reader.
        location: A path, or any URI that fsspec opens.

    Raises:
        DataError: There is no such kind, or the location holds no such corpus.
    """
    reader = _own(kind) if ":" in kind else CORPORA.get(kind)
    if reader is None:
        raise DataError(
            f"`corpus` must be one of {', '.join(CORPORA)}, but is {kind!r}. Choose one of these; `folder` reads a "
            "table of your own, and package.module:function is a reader of your own.",
            field="corpus",
        )
    return reader(location)


def _own(kind: str) -> Reader:
    module, _, name = kind.partition(":")
    try:
        reader: Reader = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as problem:
        raise DataError(
            f"The reader {kind} must be package.module:function that Python can import, also on every worker, but: "
            f"{problem}. Install it there, or correct the name.",
            field="corpus",
        ) from problem
    return reader
