"""What a model says of dialogues: what is batched with what changes rounding only, and votes add up."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ada2i.batch import DialogueBatch
from ada2i.inference.predict import Dialogues, Inference, batches, infer, slots_on
from ada2i.modalities import Modality
from ada2i.model.ada2i import Ada2I
from ada2i.model.amw import SkillFusion
from ada2i.model.build import build_model
from tests.unit.training.small import tiny_config

WIDTHS: Mapping[Modality, int] = {"text": 6, "audio": 5, "visual": 4}
LENGTHS = np.array([3, 1, 7, 2, 2, 5, 1, 12])


def model_of(preset: str) -> Ada2I:
    torch.manual_seed(1)
    model = build_model(tiny_config(preset), widths=WIDTHS, classes=4).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    if isinstance(model.fusion, SkillFusion):
        model.fusion.weights.copy_(torch.tensor([1.0, 0.5, 0.25]))
    return model


def dialogues(padded: Any = None) -> Dialogues:
    random, rows = np.random.RandomState(4), int(LENGTHS.sum())
    present = {m: random.uniform(size=rows) > 0.2 for m in WIDTHS}
    features = {
        m: random.standard_normal((rows, w)).astype(np.float32) * present[m][:, None] for m, w in WIDTHS.items()
    }
    speakers = np.concatenate([np.arange(length) % 2 for length in LENGTHS])
    return Dialogues(features, present, speakers, LENGTHS, padded)


def said(model: Ada2I, given: Dialogues, batch: int) -> Inference:
    return infer(model, given, batch=batch, device=torch.device("cpu"))


@pytest.mark.parametrize("preset", ["corrected", "paper"])
@pytest.mark.parametrize("batch", [1, 5, 24, 10_000])
def test_batches_change_rounding_only(preset: str, batch: int) -> None:
    model = model_of(preset)
    one, other = said(model, dialogues(), 3), said(model, dialogues(), batch)
    assert (one.probabilities.argmax(1) == other.probabilities.argmax(1)).all()
    for field in ("probabilities", "contributions", "votes"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-5, atol=2e-6)


def test_the_order_of_dialogues_changes_rounding_only() -> None:
    model, given = model_of("corrected"), dialogues()
    order = np.array([5, 0, 7, 2, 1, 6, 4, 3])
    starts = np.cumsum(LENGTHS) - LENGTHS
    rows = np.concatenate([np.arange(starts[d], starts[d] + LENGTHS[d]) for d in order])
    moved = Dialogues(
        {m: x[rows] for m, x in given.features.items()},
        {m: x[rows] for m, x in given.present.items()},
        given.speakers[rows],
        LENGTHS[order],
        None,
    )
    plain, other = said(model, given, 24).probabilities[rows], said(model, moved, 24).probabilities
    np.testing.assert_allclose(plain, other, atol=1e-6)


class Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often the encoders' matrices are converted to another type."""

    def __init__(self, model: Ada2I) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        linear = (part for part in model.encoders.modules() if isinstance(part, torch.nn.Linear))
        self.counts = {part.weight.data_ptr(): 0 for part in linear}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.counts:
            self.counts[args[0].data_ptr()] += 1
        return func(*args, **kwargs or {})


def test_bfloat16_rounds_weights_once_for_all_batches() -> None:
    torch.manual_seed(1)
    config = tiny_config("corrected", **{"model.precision": "bfloat16"})
    model = build_model(config, widths=WIDTHS, classes=4).eval()
    with Rounded(model) as rounded:
        said(model, dialogues(), 5)
    assert set(rounded.counts.values()) == {1}


@pytest.mark.parametrize("preset", ["corrected", "paper", "reference"])
def test_contributions_and_bias_sum_to_the_votes(preset: str) -> None:
    model, given = model_of(preset), dialogues(np.full(len(LENGTHS), 12) if preset == "reference" else None)
    found = said(model, given, 10_000)
    with torch.inference_mode():
        prediction = model(given.batch(np.arange(len(LENGTHS)))[1])
    label = prediction.logits.argmax(dim=-1)
    assert (found.probabilities.argmax(1) == label.numpy()).all()
    bias = dict(model.named_parameters()).get("fusion.classifier.bias")
    rest = torch.zeros(len(label)) if bias is None else bias.detach()[label]
    np.testing.assert_allclose(found.contributions.sum(axis=1) + rest.numpy(), found.votes, atol=1e-5)
    np.testing.assert_allclose(found.votes, prediction.fused.gather(1, label[:, None])[:, 0], atol=1e-5)
    if preset != "paper":  # whose logits an MLP makes of the votes
        top = prediction.logits.gather(1, label[:, None])[:, 0]
        np.testing.assert_allclose(found.votes, top, atol=1e-5)


def test_a_missing_modality_contributes_nothing() -> None:
    given = dialogues()
    found = said(model_of("corrected"), given, 64)
    for place, modality in enumerate(WIDTHS):
        assert (found.contributions[~given.present[modality], place] == 0).all()
        assert (found.contributions[given.present[modality], place] != 0).any()


def test_padding_that_a_model_attends_to_is_the_callers_not_the_batchs() -> None:
    model = model_of("reference")
    padded = np.array([7, 7, 7, 12, 12, 12, 12, 12])
    alone, together = said(model, dialogues(padded), 1), said(model, dialogues(padded), 10_000)
    np.testing.assert_allclose(alone.probabilities, together.probabilities, atol=1e-6)
    other = said(model, dialogues(np.full(len(LENGTHS), 12)), 10_000)
    assert np.abs(other.probabilities[:3] - together.probabilities[:3]).max() > 1e-3


def test_a_batch_has_at_most_the_given_slots() -> None:
    found = list(batches(LENGTHS, None, 12))
    assert sorted(np.concatenate(found).tolist()) == list(range(len(LENGTHS)))
    assert all(len(chosen) * LENGTHS[chosen].max() <= 12 for chosen in found)
    assert len(list(batches(LENGTHS, None, 10_000))) == 1
    assert [len(chosen) for chosen in batches(LENGTHS, None, 1)] == [1] * len(LENGTHS)
    padded = np.array([7, 7, 7, 12, 12, 12, 12, 12])
    assert {tuple(np.unique(padded[chosen])) for chosen in batches(LENGTHS, padded, 10_000)} == {(7,), (12,)}


def test_a_batch_is_what_the_model_takes() -> None:
    rows, batch = dialogues().batch(np.array([2, 0]))
    assert isinstance(batch, DialogueBatch)
    assert batch.layout.lengths == (7, 3)
    assert rows.tolist() == [*range(4, 11), *range(3)]


def test_a_gpu_gets_as_many_slots_as_its_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert slots_on(cpu, 512) == 512
    for gib, share, slots in [(16, 1.0, 16_384), (16, 0.25, 4096), (139, 1.0, 65_536), (0, 1.0, 512)]:
        monkeypatch.setattr("ada2i.inference.predict.memory_of", lambda _, held=gib << 30: held)
        assert slots_on(cpu, 512, share=share) == slots
