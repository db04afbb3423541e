"""A version that answers: its model, its encoders, and the answers of both. Does not depend on Ray.

Shape letters in this file:
    N turns of all dialogues, laid end to end     D dialogues     W width of a modality's vectors     K sums
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ada2i.inference.models import load_model
from ada2i.inference.predict import Dialogues, Inference, Ints, infer
from ada2i.inference.sums import Floats, dialogue_sums
from ada2i.inference.versions import load_config, open_version
from ada2i.jobs import code
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I
from ada2i.prediction.output import columns_of
from ada2i.prediction.request import BATCH, attends_to_padding, encoders_of
from ada2i.registry.versions import Version
from ada2i.serving.encoding import Encoders
from ada2i.serving.turns import Vectors

Answer = dict[str, Any]
"""What is predicted for a turn, with the names of a prediction's columns; see ``prediction.output``."""


@dataclass(frozen=True)
class Served:
    """A version that is loaded.

    Attributes:
        version: Its manifest.
        model: Its model, in eval mode, on the CPU.
        encoders: The encoders of its features; None if they are unknown, so that requests must hold features.
        pads: Whether its predictions depend on padding, so that each dialogue is padded to its own length.
        least: A turn whose largest probability is below it gets no label.
    """

    version: Version
    model: Ada2I
    encoders: Encoders | None
    pads: bool
    least: float = 0.0

    @property
    def widths(self) -> Mapping[Modality, int]:
        """The width of the vectors that it reads, by modality."""
        return {modality: self.version.features.widths[modality] for modality in self.model.modalities}


def load_served(
    root: str,
    reference: str,
    *,
    own_code: Mapping[str, str],
    allowed: Sequence[str],
    like: Served | None = None,
    least: float = 0.0,
) -> Served:
    """Load a version and its encoders; every byte is checked.

    Args:
        root: The storage root.
        reference: See ``open_version``.
        own_code: SHA-256 of classes that its model may name, by name.
        allowed: package.module:Class that it may name as encoders.
        like: A version that is loaded; its encoders are used again if they are the same.
        least: See ``Served``.

    Raises:
        ConfigError: It names code that the caller did not name, or an encoder whose package is not installed.
        NotFoundError: There is no such version.
        IntegrityError: A file differs from the registered one.
    """
    torch.set_num_threads(1)  # as prediction: with more threads, the last bits of results vary
    uri, version = open_version(root, reference)
    config = load_config(uri, version)
    with code.named(own_code):
        model = load_model(uri, version)
    encoders = None
    if version.features.recipe is not None:
        whole = encoders_of(version, config.model.modalities, allowed)
        chosen = whole.model_copy(update={"encoders": {m: whole.encoders[m] for m in config.model.modalities}})
        same = like is not None and like.encoders is not None and like.encoders.config == chosen
        encoders = like.encoders if like is not None and same else Encoders(chosen)
    return Served(version, model, encoders, attends_to_padding(config), least)


def answer(
    served: Served, dialogues: Sequence[Sequence[Vectors]], count: Callable[[Iterable[Floats]], None] | None = None
) -> list[list[Answer]]:
    """Predict dialogues together; return the answers of each one's turns.

    Args:
        served: The version.
        dialogues: The turns of each.
        count: Gets the sums of each dialogue, ``(K,)``; see ``inference.sums.Columns``.
    """
    inputs = inputs_of(served, dialogues)
    inference = infer(served.model, inputs, batch=BATCH, device=torch.device("cpu"))
    if count is not None:
        count(dialogue_sums(served.model, inputs, inference))
    rows = iter(rows_of(served, inference))
    return [[next(rows) for _ in dialogue] for dialogue in dialogues]


def rows_of(served: Served, inference: Inference) -> list[Answer]:
    """Return the answers of turns, in order."""
    columns = columns_of(inference, served.version.features.labels, served.model.modalities, served.least)
    answers: list[Answer] = pa.table(columns).to_pylist()
    return answers


def inputs_of(served: Served, dialogues: Sequence[Sequence[Vectors]]) -> Dialogues:
    """Return dialogues as the model reads them."""
    turns = [turn for dialogue in dialogues for turn in dialogue]
    lengths: Ints = np.array([len(dialogue) for dialogue in dialogues], np.int64)
    speakers = [number for dialogue in dialogues for number in _speakers(dialogue)]
    features = {modality: np.zeros((len(turns), width), np.float32) for modality, width in served.widths.items()}
    present = {modality: np.zeros(len(turns), np.bool_) for modality in features}
    for place, turn in enumerate(turns):
        for modality, vector in turn.features.items():
            if vector is not None:
                features[modality][place], present[modality][place] = vector, True
    return Dialogues(features, present, np.array(speakers, np.int64), lengths, lengths if served.pads else None)


def _speakers(dialogue: Sequence[Vectors]) -> list[int]:
    """Return who speaks each turn, numbered from 0 by first appearance."""
    numbers: dict[str | None, int] = {}
    return [numbers.setdefault(turn.speaker, len(numbers)) for turn in dialogue]
