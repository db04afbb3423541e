"""Imports the published pickles of features: those of Ada2I, of DialogueRNN, MMGCN and COSMIC, and of MMSA.

Released splits are kept. If a pickle has no dev, MELD's official one is recovered by its size, and any other is
cut from train by this project's fixed rule. Zero vectors are kept as they are, and counted.

Shape letters in this file:
    N utterances of all dialogues, concatenated     D width of a modality's vectors
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ada2i import storage
from ada2i.data import schema
from ada2i.errors import ConfigError, DataError
from ada2i.importers.datasets import Dataset
from ada2i.importers.datasets import dataset as known
from ada2i.importers.import_rows import import_rows
from ada2i.importers.layouts import Layout, Part, is_null, recognise
from ada2i.importers.mmsa import is_mmsa, mmsa_rows
from ada2i.importers.pickles import load_pickle
from ada2i.importers.rows import File, Rows
from ada2i.importers.transcripts import repaired
from ada2i.modalities import MODALITIES, Modality

Place = tuple[str, Any, int]  # split, dialogue and index of an utterance


def import_pickle(
    source: str, root: str, *, dataset: str, labels: tuple[str, ...] | None = None, layout: str | None = None
) -> str:
    """Import a published pickle without executing code in it.

    Args:
        source: A path, or any URI that fsspec opens.
        root: The storage root.
        dataset: A name of ``datasets``; it determines the classes and, if a pickle holds several tasks, the task.
        labels: Class names by index; by default the dataset's.
        layout: ``mmsa``: the pickle must have MMSA's layout; by default the layout is recognised.

    Returns:
        The URI of the set.

    Raises:
        DataError: The pickle is hostile or damaged, its layout is unknown, or a value is invalid. Nothing was
            written.
    """
    if layout not in (None, "mmsa"):
        raise ConfigError(f"`--layout` must be mmsa, but is {layout!r}. Omit it for other layouts.", field="layout")
    corpus, found, source = known(dataset), load_pickle(source), storage.public(source)
    encoders: dict[Modality, str]
    if layout == "mmsa" or is_mmsa(found):
        rows, changed = mmsa_rows(found, corpus, source)
        title, encoders = "MMSA's layout", dict.fromkeys(MODALITIES, "as published, mean of frames")
    else:
        parts = _with_official_dev(recognise(found, corpus, source), corpus)
        rows, changed = _rows(parts, source)
        title, encoders = parts.title, {m: _encoder(len(layers)) for m, layers in parts.vectors.items()}
    return import_rows(
        rows,
        root,
        dataset=corpus.name,
        labels=labels or corpus.labels,
        source=f"pickle {source}, {title}; {changed}",
        encoders=encoders,
    )


def _encoder(layers: int) -> str:
    return "as published" if layers == 1 else f"mean of {layers} layers, as published"


def _with_official_dev(layout: Layout, corpus: Dataset) -> Layout:
    """Split train into the official train and dev if both were renumbered and concatenated, as in MELD's pickles."""
    train, dialogues = corpus.sizes.get("train"), layout.splits["train"]
    dev = corpus.sizes.get("dev")
    if "dev" in layout.splits or train is None or dev is None or not all(str(name).isdecimal() for name in dialogues):
        return layout
    ordered = sorted(dialogues, key=int)
    parts = {"train": ordered[: train.dialogues], "dev": ordered[train.dialogues :]}
    found = {split: (len(part), sum(len(layout.labels[name]) for name in part)) for split, part in parts.items()}
    if found != {"train": (train.dialogues, train.utterances), "dev": (dev.dialogues, dev.utterances)}:
        return layout
    title = f"{layout.title}, official dev recognised by its size"
    return replace(layout, title=title, splits={**layout.splits, **parts})


def _places(layout: Layout, uri: str) -> Iterator[Place]:
    """Yield every utterance of every split; all parts must have the same number of utterances."""
    parts: dict[str, Part] = {m: part for m, group in layout.vectors.items() for part in group}
    parts |= {"speakers": layout.speakers, "sentences": layout.sentences, "ids": layout.ids}
    for split, dialogues in layout.splits.items():
        for dialogue in sorted(dialogues, key=str):
            number = _length(layout.labels, dialogue, "labels", uri)
            for name, part in parts.items():
                if part and (found := _length(part, dialogue, name, uri)) != number:
                    raise _bad(uri, f"have {number} utterances, as its labels do", f"has {found}", name, dialogue)
            yield from ((split, dialogue, index) for index in range(number))


def _length(part: Part, dialogue: Any, name: str, uri: str) -> int:
    value = part[dialogue]
    if not isinstance(value, list | tuple) and not (isinstance(value, np.ndarray) and value.ndim):
        raise _bad(uri, "be a list or an array", f"is a {type(value).__name__}", name, dialogue)
    return len(value)


def _rows(layout: Layout, uri: str) -> tuple[Rows, str]:
    """Return the rows of a pickle, and what was changed, as text for people."""
    places = list(_places(layout, uri))
    written = [_text(layout.sentences, place, uri) for place in places]
    texts = [text if text is None else repaired(text) for text in written]
    data: dict[str, Any] = {
        "dialogue_id": pa.array([repaired(str(dialogue)) for _, dialogue, _ in places], pa.string()),
        "utterance_index": pa.array([index for *_, index in places], pa.int64()),
        "utterance_id": pa.array([_id(layout.ids, place) for place in places], pa.string()),
        "speaker": pa.array([_speaker(layout.speakers, place, uri) for place in places], pa.string()),
        "text": pa.array(texts, pa.string()),
        "label": pa.array([_label(layout.labels, place, uri) for place in places], pa.float64()),
        "split": pa.array([split for split, *_ in places], pa.string()),
    }
    names = {name: name for name in data}
    for modality, parts in layout.vectors.items():
        column = schema.vector_column(modality)
        names[column] = modality
        data[column] = schema.list_vectors([_vector(parts, place, modality, uri) for place in places])
    columns = pa.table(data)
    if not columns.num_rows:
        raise DataError(f"{uri} must hold at least one utterance, but holds none. Check what wrote it.", uri=uri)
    changed = sum(old != new for old, new in zip(written, texts, strict=True))
    return Rows(uri, (File(uri, columns, names, {}),), columns), f"texts repaired: {changed}"


# --- values ---


def _id(part: Part, place: Place) -> str | None:
    _, dialogue, index = place
    if not part:
        return None
    value = part[dialogue][index]
    return repaired(value) if isinstance(value, str) else f"{dialogue}_{value}"


def _text(part: Part, place: Place, uri: str) -> str | None:
    _, dialogue, index = place
    value = part[dialogue][index] if part else None
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if value is not None and not isinstance(value, str):
        raise _bad(uri, "hold text", f"holds a {type(value).__name__}", "sentences", dialogue, index)
    return value


def _speaker(part: Part, place: Place, uri: str) -> str | None:
    """Return a speaker's name, or its number if the pickle has numbers or one-hot vectors."""
    _, dialogue, index = place
    value = part[dialogue][index] if part else None
    if value is None or isinstance(value, str):
        return value if value is None else repaired(value)
    found = _numbers(value)
    if found is None or found.ndim > 1 or not found.size:
        raise _bad(uri, "hold names, numbers or a 1 among zeros", f"holds {value!r}", "speakers", dialogue, index)
    if found.ndim:
        return str(int(np.argmax(found))) if found.any() else None
    return str(found.item())


def _label(part: Part, place: Place, uri: str) -> float | None:
    """Return the number of a class; None for None or NaN, which mean that there is no label."""
    _, dialogue, index = place
    if is_null(part[dialogue][index]):
        return None
    found = _numbers(part[dialogue][index])
    if found is None or found.size != 1:
        raise _bad(uri, "hold numbers of classes", f"holds {part[dialogue][index]!r}", "labels", dialogue, index)
    return float(found.reshape(()))


def _numbers(value: Any) -> "NDArray[Any] | None":
    try:
        found = np.asarray(value)
    except ValueError:  # lists of different lengths
        return None
    return found if found.dtype.kind in "biuf" else None


def _vector(parts: Sequence[Part], place: Place, name: str, uri: str) -> NDArray[np.float32] | None:
    """Return one utterance's ``(D,)`` vector, the mean if there are several layers, or None if it is missing."""
    _, dialogue, index = place
    values = [part[dialogue][index] for part in parts]
    if any(value is None for value in values):
        return None
    try:
        with np.errstate(over="ignore"):  # a number that is too large becomes infinite, and is refused later
            layers = np.array([np.asarray(value, np.float32) for value in values], np.float32)
            vector: NDArray[np.float32] = layers[0] if len(parts) == 1 else layers.mean(axis=0)
    except (ValueError, TypeError) as problem:
        raise _bad(uri, "hold vectors of numbers", f"does not ({problem})", name, dialogue, index) from problem
    if vector.ndim != 1:
        raise _bad(uri, "hold one vector per utterance", f"holds shape {vector.shape}", name, dialogue, index)
    return vector


def _bad(  # noqa: PLR0917
    uri: str, must: str, found: str, name: str, dialogue: Any, index: int | None = None
) -> DataError:
    where = f"dialogue {dialogue!r}" + (f", utterance {index}" if index is not None else "")
    return DataError(
        f"Part `{name}` of {uri} must {must}, but in {where} {found[:200]}. Correct the file, or download it again.",
        uri=uri,
        field=name,
    )
