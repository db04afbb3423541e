"""Folders of small files to read."""

from collections.abc import Mapping
from pathlib import Path

import fsspec

from ada2i.extraction.utterance import Corpus, Utterance


def planted(folder: Path, files: Mapping[str, str], *, encoding: str = "utf-8") -> str:
    """Write files below a folder, by path; return the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode(encoding))
    return str(folder)


def in_memory(name: str, files: Mapping[str, str]) -> str:
    """Write files to a store that is no folder; return its URI."""
    store = fsspec.filesystem("memory")
    for path, content in files.items():
        store.pipe_file(f"/{name}/{path}", content.encode())
    return f"memory://{name}"


def by_id(corpus: Corpus) -> dict[tuple[str, str], Utterance]:
    """Utterances by split and name."""
    return {(item.split, item.utterance_id): item for item in corpus.utterances}


def ends(uri: str | None) -> str | None:
    """The last two parts of a URI."""
    return None if uri is None else "/".join(uri.split("/")[-2:])
