"""Readers of corpora, by name.

Your own reader is a function from a location to a ``Corpus``, in a module that Python can import; name it
``package.module:function`` in place of a built-in reader.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from ada2i.errors import DataError
from ada2i.extraction.corpora.folder import read_folder
from ada2i.extraction.corpora.iemocap import read_iemocap
from ada2i.extraction.corpora.meld import read_meld
from ada2i.extraction.corpora.mosei import read_mosei
from ada2i.extraction.utterance import Corpus
from ada2i.jobs.code import imported, returned

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
    corpus = reader(location)
    if not isinstance(corpus, Corpus):
        raise _unfit(kind, f"returns {type(corpus).__name__}")
    return corpus


def _own(kind: str) -> Reader:
    """Import a reader; refuse what is no Python function, or is annotated to return no corpus, before it is called."""
    reader: Reader = imported(kind, f"The reader {kind[:200]}", "package.module:function", DataError, field="corpus")
    made = returned(reader)
    if not callable(reader) or inspect.isbuiltin(reader) or inspect.isclass(reader):
        raise _unfit(kind, "is not a Python function")
    if made is not None and not (inspect.isclass(made) and issubclass(made, Corpus)):
        raise _unfit(kind, f"is annotated to return {getattr(made, '__name__', made)}")
    return reader


def _unfit(kind: str, found: str) -> DataError:
    return DataError(
        f"The reader {kind} must be a function from a location to an ada2i.extraction.utterance.Corpus, but {found}. "
        "Correct it.",
        field="corpus",
    )
