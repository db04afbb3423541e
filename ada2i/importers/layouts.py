"""Recognises the layout of a published pickle: the contents of each of its parts.

A dict names its parts. A tuple or list does not: its ids, speakers, labels, vectors, sentences and splits are
recognised by their values, and similar parts by their order: text before audio before visual, train before
test before dev. Four successive vectors of equal width are four layers of one text encoder.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np

from ada2i.errors import DataError
from ada2i.importers.datasets import Dataset
from ada2i.modalities import MODALITIES, Modality

Part = Mapping[Any, Any]  # by dialogue, a sequence of one value per utterance

_TEXT_LAYERS = 4
_TASK_WORDS: Mapping[str, int] = {"binary": 2, "two": 2, "seven": 7}
_MOST_CLASSES = 10
_MOST_PARTS = 100  # of a sequence; published ones have at most 13
_SAMPLE = 2000  # values checked to recognise a part


@dataclass(frozen=True)
class Layout:
    """The parts of a published pickle.

    Attributes:
        title: Name of the layout, for people.
        splits: The dialogues by canonical split name; dev may be absent.
        vectors: By modality, the parts that are averaged to its vectors: one part, or several layers.
    """

    title: str
    splits: Mapping[str, Collection[Any]]
    labels: Part
    vectors: Mapping[Modality, Sequence[Part]]
    speakers: Part = field(default_factory=dict)
    sentences: Part = field(default_factory=dict)
    ids: Part = field(default_factory=dict)


def recognise(found: object, dataset: Dataset, uri: str) -> Layout:
    """Return the layout of a pickle's contents.

    Raises:
        DataError: It is none of the published layouts.
    """
    try:
        if isinstance(found, Mapping):
            return _of_names(found, dataset, uri)
        if isinstance(found, tuple | list):
            return _of_parts(list(found), dataset, uri)
    except (TypeError, ValueError) as problem:
        raise _unknown(uri, f"values that fit none ({problem})") from problem
    raise _unknown(uri, f"a {type(found).__name__}")


# --- a dict, whose keys name its parts ---


def _of_names(found: Mapping[Any, Any], dataset: Dataset, uri: str) -> Layout:
    parts = {str(name).lower(): value for name, value in found.items()}

    def part(*names: str, required: bool = True) -> Any:
        for name in names:
            if name in parts:
                return parts[name]
        if required:
            raise _unknown(uri, f"a dict without `{names[0]}`, only {', '.join(map(str, found)) or 'empty'}")
        return {}

    splits = {"train": part("trainvid"), "test": part("testvid")}
    if dev := part("valvid", "validvid", "devvid", required=False):
        splits["dev"] = dev
    vectors = {m: part(m, required=False) for m in MODALITIES}
    layout = Layout(
        title="the Ada2I layout",
        splits=splits,
        labels=_labels_of_task(part("label", "labels"), _dialogues(splits), dataset, uri),
        vectors={m: [value] for m, value in vectors.items() if value},
        speakers=part("speaker", "speakers", required=False),
        sentences=part("sentence", "sentences", required=False),
    )
    return _checked(layout, uri)


def _labels_of_task(labels: Any, dialogues: Collection[Any], dataset: Dataset, uri: str) -> Part:
    """Return the labels by dialogue, which may be nested under the name of a task, such as ``7class``."""
    if not isinstance(labels, Mapping) or all(dialogue in labels for dialogue in dialogues):
        return labels  # type: ignore[no-any-return]  # its type is checked with the other parts
    tasks = [task for task in labels if _classes_of(task) == len(dataset.labels)]
    if len(tasks) != 1:
        shown = ", ".join(map(repr, islice(labels, 5)))
        raise _unknown(uri, f"labels of {shown}, none of which is the task with {len(dataset.labels)} classes")
    return labels[tasks[0]]  # type: ignore[no-any-return]


def _classes_of(task: Any) -> int | None:
    name = str(task).lower()
    if digits := re.search(r"\d+", name):
        return int(digits[0][:3])
    return next((number for word, number in _TASK_WORDS.items() if word in name), None)


# --- a tuple or list: its parts are recognised by their values ---


def _of_parts(parts: list[Any], dataset: Dataset, uri: str) -> Layout:
    if len(parts) > _MOST_PARTS:
        raise _unknown(uri, f"a sequence of {len(parts)} parts")
    kinds = [_kind(part) for part in parts]
    of = {kind: [part for part, its in zip(parts, kinds, strict=True) if its == kind] for kind in set(kinds)}
    shown = f"a {len(parts)}-part sequence of {', '.join(kinds)}"
    splits = dict(zip(("train", "test", "dev"), of.get("split", []), strict=False))
    if not 2 <= len(of.get("split", [])) <= 3 or not of.get("labels"):
        raise _unknown(uri, f"{shown}: two or three splits and labels are expected")
    layout = Layout(
        title=f"the {len(parts)}-part layout",
        splits=splits,
        labels=_emotions(of["labels"], dataset, uri),
        vectors=_modalities(of.get("vectors", []), uri, shown),
        **{kind: of[kind][0] for kind in ("speakers", "sentences", "ids") if kind in of},
    )
    if len(splits["train"]) < len(splits["test"]):
        raise _unknown(uri, f"{shown}: train is expected before test, but has fewer dialogues")
    return _checked(layout, uri)


def _kind(part: Any) -> str:
    """Return what a part of a sequence holds."""
    if not isinstance(part, Mapping):
        plain = isinstance(part, list | tuple | set) and all(isinstance(name, str | int) for name in part)
        return "split" if plain and len(part) else "something else"
    sample = [list(value) for value in islice(part.values(), _SAMPLE) if isinstance(value, Sequence | np.ndarray)]
    values = list(islice((value for dialogue in sample for value in dialogue if value is not None), _SAMPLE))
    return _kind_of_values(sample, values) if values else "something else"


def _kind_of_values(sample: list[list[Any]], values: list[Any]) -> str:
    if all(isinstance(value, str) for value in values):
        if 2 * sum(" " in value.strip() for value in values) > len(values):
            return "sentences"
        return "ids" if all(len(set(dialogue)) == len(dialogue) for dialogue in sample) else "speakers"
    if all(isinstance(value, Sequence | np.ndarray) and np.ndim(value) == 1 for value in values):
        return "speakers" if all(_one_hot(value) for value in values) else "vectors"
    if all(isinstance(value, int | float | np.number) for value in values):
        known = ([value for value in dialogue if not is_null(value)] for dialogue in sample)
        rising = [a < b for dialogue in known for a, b in pairwise(dialogue)]
        return "ids" if rising and all(rising) and max(values) > _MOST_CLASSES else "labels"  # ids increase
    return "something else"


def _one_hot(value: Any) -> bool:
    return len(value) <= 32 and sorted(value)[-1] == 1 and sum(value) == 1 and min(value) == 0  # else a vector


def _emotions(parts: list[Part], dataset: Dataset, uri: str) -> Part:
    """Return the labels with the dataset's classes: MELD's pickles also hold those of sentiment."""
    if len(parts) == 1:
        return parts[0]
    fitting = [part for part in parts if set(_scalars(part)) == set(range(len(dataset.labels)))]
    if len(fitting) != 1:
        raise _unknown(
            uri, f"{len(parts)} parts of labels, {len(fitting)} of them with the {len(dataset.labels)} classes"
        )
    return fitting[0]


def _scalars(part: Part) -> Iterator[float]:
    return (float(value) for dialogue in part.values() for value in dialogue if not is_null(value))


def is_null(value: Any) -> bool:
    """Return whether a value is None or NaN: absent."""
    return value is None or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _modalities(parts: list[Part], uri: str, shown: str) -> dict[Modality, Sequence[Part]]:
    widths = [_width(part) for part in parts]
    layered = len(parts) >= _TEXT_LAYERS and len(set(widths[:_TEXT_LAYERS])) == 1
    groups = [parts[:_TEXT_LAYERS], *([part] for part in parts[_TEXT_LAYERS:])] if layered else [[p] for p in parts]
    if not 1 <= len(groups) <= len(MODALITIES):
        raise _unknown(uri, f"{shown}: vectors of {', '.join(MODALITIES)} are expected, but widths are {widths}")
    return dict(zip(MODALITIES, groups, strict=False))


def _width(part: Part) -> int:
    return next((len(value) for dialogue in part.values() for value in dialogue if value is not None), 0)


# --- checks of all layouts ---


def _checked(layout: Layout, uri: str) -> Layout:
    if not layout.vectors:
        raise _unknown(uri, f"{layout.title} without vectors")
    parts: dict[str, Part] = {"labels": layout.labels, **{m: p for m, group in layout.vectors.items() for p in group}}
    optional = {"speakers": layout.speakers, "sentences": layout.sentences, "ids": layout.ids}
    parts |= {name: part for name, part in optional.items() if part}
    for name, part in parts.items():
        if not isinstance(part, Mapping):
            raise _unknown(uri, f"{layout.title}; its {name} are a {type(part).__name__}, not a dict by dialogue")
        if missing := [dialogue for dialogue in _dialogues(layout.splits) if dialogue not in part]:
            raise _unknown(uri, f"{layout.title}; its {name} lack dialogue {missing[0]!r} of a split")
    _check_splits(layout, uri)
    return layout


def _check_splits(layout: Layout, uri: str) -> None:
    seen: set[Any] = set()
    for split, dialogues in layout.splits.items():
        if twice := [dialogue for dialogue in dialogues if dialogue in seen]:
            raise _unknown(uri, f"{layout.title}; its {split} repeats dialogue {twice[0]!r} of another split")
        seen |= set(dialogues)


def _dialogues(splits: Mapping[str, Collection[Any]]) -> list[Any]:
    return [dialogue for dialogues in splits.values() for dialogue in dialogues]


def _unknown(uri: str, found: str) -> DataError:
    return DataError(
        f"{uri} must hold a published layout: a dict of trainVid, testVid, label, text, audio, visual..., or a tuple "
        f"of dicts by dialogue and two or three splits; but holds {found}. Check that it is a feature file, or "
        "write it as a table and import that.",
        uri=uri,
    )
