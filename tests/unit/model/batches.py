"""Small batches and models to test with."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ada2i.batch import DialogueBatch, Layout
from ada2i.modalities import MODALITIES, Modality
from ada2i.model import afw
from ada2i.model.ada2i import Ada2I
from ada2i.model.afw import AfwLayer
from ada2i.model.build import build_model
from ada2i.presets import resolve

WIDTHS: Mapping[Modality, int] = {"text": 10, "audio": 12, "visual": 7}
CLASSES = 4

SMALL: Mapping[str, Any] = {
    "model.hidden_dim": 6,
    "model.afw.rank": 3,
    "model.encoder.feedforward_dim": 8,
    "model.encoder.dropout": 0.0,
    "model.afw.dropout": 0.0,
}
MASKED: Mapping[str, Any] = {"model.encoder.attend_to_padding": False, "model.afw.average_padding": False}


def build(overrides: Mapping[str, Any] | None = None, seed: int = 0) -> Ada2I:
    """Return a small `reference` model without dropout; overrides are dotted fields."""
    torch.manual_seed(seed)
    config = resolve(preset="reference", settings="default", overrides={**SMALL, **(overrides or {})})
    return build_model(config, widths=WIDTHS, classes=CLASSES)


def afw_layer(**options: Any) -> AfwLayer:
    """Return a weighting layer of the released code, without dropout; options replace its parts."""
    modalities: tuple[Modality, ...] = options.pop("modalities", MODALITIES)
    released = {
        "dropout": 0.0,
        "cyclic": False,
        "key_dim": None,
        "normalise": False,
        "learns_attention": False,
        "mean_gap": True,
    }
    return AfwLayer(modalities=modalities, **{**released, **options})


class Stage(NamedTuple):
    """The result of feature weighting, with features by modality."""

    features: dict[Modality, Tensor]
    mapping_gap: Tensor | None
    gate_share: Tensor


def weigh(
    stage: afw.FeatureWeighting, features: Mapping[Modality, Tensor], layout: Layout, present: Tensor | None = None
) -> Stage:
    """Weight features by modality; ``present`` is ``(M, N)``."""
    found = stage(torch.stack(list(features.values())), layout, present)
    return Stage(dict(zip(features, found.features, strict=True)), found.mapping_gap, found.gate_share)


def weigh_once(
    layer: AfwLayer, features: Mapping[Modality, Tensor], layout: Layout, present: Tensor | None = None
) -> Stage:
    """Weight features by one layer."""
    stage = afw.AdaptiveFeatureWeighting([layer], afw.DialogueAverage).train(layer.training)
    return weigh(stage, features, layout, present)


def random_rows(rows: int, width: int, seed: int) -> Tensor:
    """Return ``(rows, width)`` normal numbers."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def make_batch(lengths: Sequence[int], seed: int = 0, padded_length: int | None = None) -> DialogueBatch:
    """Return a batch of dialogues of the given lengths, all modalities present."""
    rows = sum(lengths)
    return DialogueBatch(
        features={m: random_rows(rows, width, seed + i) for i, (m, width) in enumerate(WIDTHS.items())},
        present={m: torch.ones(rows, dtype=torch.bool) for m in WIDTHS},
        labels=torch.randint(CLASSES, (rows,), generator=torch.Generator().manual_seed(seed + 99)),
        speakers=torch.tensor([place % 2 for length in lengths for place in range(length)]),
        layout=Layout(tuple(lengths), padded_length or max(lengths)),
        global_utterances=rows,
        global_dialogues=len(lengths),
    )


def take(batch: DialogueBatch, dialogue: int) -> DialogueBatch:
    """Return one dialogue of a batch, alone and unpadded."""
    rows = (batch.layout.dialogue == dialogue).nonzero().flatten()
    return reorder(batch, rows, (batch.layout.lengths[dialogue],))


def reorder(batch: DialogueBatch, rows: Tensor, lengths: Sequence[int]) -> DialogueBatch:
    """Return some rows of a batch as dialogues of the given lengths."""
    return DialogueBatch(
        features={m: x[rows] for m, x in batch.features.items()},
        present={m: x[rows] for m, x in batch.present.items()},
        labels=batch.labels[rows],
        speakers=batch.speakers[rows],
        layout=Layout(tuple(lengths), max(lengths)),
        global_utterances=len(rows),
        global_dialogues=len(lengths),
    )
