"""Reads the pickles that MMSA publishes for MOSI, MOSEI and CH-SIMS: a dict of each split's arrays, aligned or not.

Names of a split: ``id`` (``video$_$clip``), ``raw_text``, ``text``, ``audio`` and ``vision`` (``(N, T, D)``),
``audio_lengths`` and ``vision_lengths``, ``text_bert`` (whose second row marks the words), ``annotations`` and
``regression_labels``, which become ``target``. A video is a dialogue; a vector is the mean of the frames of an
utterance.

Shape letters in this file:
    N utterances of a split     T frames of an utterance     D width of a modality's vectors
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ada2i.data import schema
from ada2i.data.splits import normalise_split
from ada2i.errors import DataError
from ada2i.importers.datasets import MMSA_DATASETS, Dataset, sentiment
from ada2i.importers.layouts import is_null
from ada2i.importers.rows import File, Rows
from ada2i.importers.transcripts import repaired
from ada2i.modalities import Modality

_NAMES: Mapping[Modality, str] = {"text": "text", "audio": "audio", "visual": "vision"}
_ID = re.compile(r"(.+?)\$_\$(\d+)|(.+)[_\[](\d+)\]?")
_READ = {"id", "raw_text", "text", "audio", "vision", "text_bert", "audio_lengths", "vision_lengths", "annotations"}
_TARGETS = "regression_labels"


def is_mmsa(found: object) -> bool:
    """Return whether a pickle's contents have MMSA's layout."""
    parts = found.values() if isinstance(found, Mapping) else ()
    return any(isinstance(part, Mapping) and "id" in part and _NAMES.values() & part.keys() for part in parts)


@dataclass
class _Counts:
    """What the import changed, as numbers for people."""

    renumbered: int = 0  # videos
    infinite: int = 0  # numbers that are not finite


def mmsa_rows(found: object, dataset: Dataset, uri: str) -> tuple[Rows, str]:
    """Return the rows of a pickle, and what was changed, as text for people.

    Args:
        found: Contents of the pickle.
        dataset: Decides the classes: three by ``annotations``, two by the sign of ``regression_labels``, or seven by
            their rounded value.
        uri: Location of the pickle, for messages.

    Raises:
        DataError: A part is missing, has another length, or holds a wrong value.
    """
    if not isinstance(found, Mapping) or not is_mmsa(found):
        raise _bad(uri, "hold MMSA's layout, a dict of train, valid and test with `id`, `text`...", "does not")
    splits = {split: part for name, part in found.items() if (split := normalise_split(str(name)))}
    if wrong := next((split for split, part in splits.items() if not isinstance(part, Mapping)), None):
        raise _bad(uri, "hold a dict for each split", f"holds {type(splits[wrong]).__name__} for {wrong}")
    counts = _Counts()
    held = [m for m in _NAMES if any(_NAMES[m] in part for part in splits.values())]
    tables = [_Split(uri, split, part, dataset, counts).table(held) for split, part in splits.items()]
    names = {name: name for name in tables[0].column_names if not name.endswith("_feat")}
    names |= {schema.vector_column(m): _NAMES[m] for m in held} | {schema.TARGET.name: _TARGETS}
    unused = {
        str(name): "not of this layout" for part in splits.values() for name in part if name not in {*_READ, _TARGETS}
    }
    files = tuple(File(uri, table, names, {}, unused=unused) for table in tables)
    changed = f"videos renumbered for missing clips: {counts.renumbered}; infinite numbers set to 0: {counts.infinite}"
    return Rows(uri, files, pa.concat_tables([file.columns for file in files])), changed


@dataclass(frozen=True)
class _Split:
    uri: str
    name: str
    part: Mapping[str, Any]
    dataset: Dataset
    counts: _Counts

    def table(self, modalities: Sequence[Modality]) -> pa.Table:
        """Return its rows, in the order of the file."""
        keys = [self._key(row, value) for row, value in enumerate(self._values("id", None))]
        number = len(keys)
        places = self._places(keys)
        texts = self._values("raw_text", number) if "raw_text" in self.part else [None] * number
        data: dict[str, Any] = {
            "dialogue_id": pa.array([video for video, _ in keys], pa.string()),
            "utterance_index": pa.array([places[key] for key in keys], pa.int64()),
            "utterance_id": pa.array([f"{video}_{clip}" for video, clip in keys], pa.string()),
            "speaker": pa.nulls(number, pa.string()),
            "text": pa.array([None if t is None else repaired(str(t)) for t in texts], pa.string()),
            "label": pa.array(self._labels(number), pa.float64()),
            "split": pa.array([self.name] * number, pa.string()),
            schema.TARGET.name: self._targets(number),
        }
        data |= {schema.vector_column(m): self._vectors(_NAMES[m], number) for m in modalities}
        return pa.table(data)

    def _values(self, name: str, number: int | None) -> Sequence[Any]:
        values = self.part.get(name)
        if not isinstance(values, list | tuple | np.ndarray):
            raise _bad(self.uri, f"hold `{name}` in {self.name}", f"holds {type(values).__name__} there", name)
        if number is not None and len(values) != number:
            raise _bad(self.uri, f"hold {number} values in `{name}` of {self.name}", f"holds {len(values)}", name)
        return values  # type: ignore[return-value]  # an array of numpy

    def _key(self, row: int, value: Any) -> tuple[str, int]:
        match = _ID.fullmatch(str(value))
        if match is None:
            must = f"hold ids such as `video$_$3` in {self.name}"
            raise _bad(self.uri, must, f"holds {str(value)[:60]!r} in row {row}", "id")
        return repaired(match[1] or match[3]), int(match[2] or match[4])

    def _places(self, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return each utterance's index in its video, in the order of clips."""
        videos: dict[str, set[int]] = defaultdict(set)
        for video, clip in keys:
            if clip in videos[video]:
                raise _bad(self.uri, f"hold each id once in {self.name}", f"repeats {video}$_${clip}", "id")
            videos[video].add(clip)
        places: dict[tuple[str, int], int] = {}
        for video, clips in videos.items():
            ordered = sorted(clips)
            self.counts.renumbered += ordered[-1] - ordered[0] >= len(ordered)
            places |= {(video, clip): place for place, clip in enumerate(ordered)}
        return places

    # --- labels ---

    def _labels(self, number: int) -> list[float | None]:
        classes = [name.lower() for name in self.dataset.labels]
        if len(classes) == 3 and "annotations" in self.part:
            names = [None if is_null(v) else str(v).strip().lower() for v in self._values("annotations", number)]
            if wrong := next((name for name in names if name is not None and name not in classes), None):
                must = f"hold {', '.join(self.dataset.labels)} in `annotations` of {self.name}"
                raise _bad(self.uri, must, f"holds {wrong!r}", "annotations")
            return [None if name is None else float(classes.index(name)) for name in names]
        if missing := {sentiment(score, len(classes)).lower() for score in (-1.0, 1.0)} - set(classes):
            must = f"be imported as the dataset that it is: {', '.join(MMSA_DATASETS)}, cmu-mosi-2, cmu-mosei-7..."
            found = f"is to become {self.dataset.name}, which has no class {min(missing)}"
            raise _bad(self.uri, must, found, "dataset")
        scores = self._scores(number)
        names = [None if np.isnan(score) else sentiment(float(score), len(classes)).lower() for score in scores]
        return [None if name is None else float(classes.index(name)) for name in names]

    def _scores(self, number: int) -> NDArray[np.float32]:
        return self._one_each(_TARGETS, number)

    def _targets(self, number: int) -> "pa.Array[Any]":
        """Return the scores of sentiment, null without one."""
        if _TARGETS not in self.part:
            return pa.nulls(number, pa.float64())
        scores = self._scores(number)
        return pa.array(scores.astype(np.float64), mask=np.isnan(scores))

    def _one_each(self, name: str, number: int) -> NDArray[np.float32]:
        """Return a field with one number for each utterance, ``(number,)``."""
        found = self._numbers(self._values(name, number), name)
        if found.size != number:
            must = f"hold one number for each utterance in `{name}` of {self.name}"
            raise _bad(self.uri, must, f"holds an array of shape {found.shape}", name)
        return found.reshape(number)

    def _numbers(self, value: Any, name: str) -> NDArray[np.float32]:
        try:
            with np.errstate(over="ignore"):  # becomes infinite, which is counted
                return np.asarray(value, np.float32)
        except (TypeError, ValueError) as problem:
            raise _bad(self.uri, f"hold numbers in `{name}` of {self.name}", f"does not ({problem})", name) from problem

    # --- vectors ---

    def _vectors(self, name: str, number: int) -> "pa.Array[Any]":
        """Return the mean of the valid frames of each utterance, null without one."""
        values, lengths = self._values(name, number), self._lengths(name, number)
        return schema.list_vectors(
            [
                self._mean(self._numbers(value, name), None if lengths is None else lengths[row], name)
                for row, value in enumerate(values)
            ]
        )

    def _lengths(self, name: str, number: int) -> NDArray[np.int64] | None:
        if f"{name}_lengths" in self.part:
            return np.maximum(self._one_each(f"{name}_lengths", number), 0).astype(np.int64)
        bert = self.part.get("text_bert")
        if name == "text" and isinstance(bert, np.ndarray) and bert.ndim == 3 and bert.shape[:2] == (number, 3):
            return np.asarray((bert[:, 1] > 0).sum(axis=1), dtype=np.int64)
        return None

    def _mean(self, frames: NDArray[np.float32], length: int | None, name: str) -> NDArray[np.float32] | None:
        if frames.ndim not in (1, 2):
            must = f"hold a vector or frames for each utterance in `{name}` of {self.name}"
            raise _bad(self.uri, must, f"holds shape {frames.shape}", name)
        finite = np.isfinite(frames)
        self.counts.infinite += int(frames.size - np.count_nonzero(finite))
        frames = np.where(finite, frames, np.float32(0))  # as MMSA's own loader does
        if frames.ndim == 1:
            return frames
        filled = np.flatnonzero(frames.any(axis=1))
        begin, end = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
        if length is not None:
            rest = max(0, len(frames) - length)
            padded_in_front = begin >= rest and end > length
            begin, end = (rest, len(frames)) if padded_in_front else (0, length)
        if not len(valid := frames[begin:end]):
            return None
        mean: NDArray[np.float32] = valid.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean


def _bad(uri: str, must: str, found: str, field: str | None = None) -> DataError:
    return DataError(
        f"{uri} must {must}, but {found}. Check that MMSA published it, or write it as a table and import that.",
        uri=uri,
        field=field,
    )
