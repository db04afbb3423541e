"""The whole network: published sizes, every subset of modalities, ablations, and what it must not see."""

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import pytest
import torch

from ada2i.errors import ConfigError
from ada2i.modalities import MODALITIES, Modality
from ada2i.model.build import build_model
from ada2i.presets import resolve
from tests.unit.model.batches import CLASSES, MASKED, build, make_batch, reorder, take

SUBSETS = [subset for size in (1, 2, 3) for subset in permutations(MODALITIES, size)]
LENGTHS = (3, 1, 6)


@pytest.mark.parametrize(
    ("settings", "widths", "classes", "parameters"),
    [
        ("iemocap", (768, 512, 1024), 6, 35_670_850),
        ("meld", (768, 300, 342), 7, 18_564_043),
        ("mosei", (768, 512, 1024), 7, 37_222_727),
        ("mosei", (768, 512, 1024), 2, 37_215_222),
    ],
)
def test_published_parameter_counts(settings: str, widths: tuple[int, int, int], classes: int, parameters: int) -> None:
    config = resolve(preset="reference", settings=settings, overrides={})
    with torch.device("meta"):
        model = build_model(config, widths=dict(zip(MODALITIES, widths, strict=True)), classes=classes)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
@pytest.mark.parametrize("kind", ["transformer", "lstm"])
@pytest.mark.parametrize("padding", [True, False])
def test_every_subset_runs_and_back_propagates(modalities: tuple[Modality, ...], kind: str, *, padding: bool) -> None:
    overrides = {"model.modalities": list(modalities), "model.encoder.kind": kind, **({} if padding else MASKED)}
    model = build(overrides).train()
    prediction = model(make_batch(LENGTHS))
    assert prediction.logits.shape == (10, CLASSES)
    assert prediction.unimodal_logits.shape == (len(modalities), 10, CLASSES)
    assert prediction.mapping_gap is not None
    assert prediction.mapping_gap.shape == ((18,) if padding else (10,))
    assert not prediction.unimodal_logits.requires_grad
    (prediction.logits.square().sum() + prediction.mapping_gap.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_only_the_modalities_named_are_read() -> None:
    model = build({"model.modalities": ["audio"]}).eval()
    batch = make_batch(LENGTHS)
    wanted = model(batch).logits
    batch.features["text"].fill_(float("nan"))
    batch.features["visual"].fill_(float("nan"))
    assert torch.equal(model(batch).logits, wanted)


def parameter_names(overrides: Mapping[str, Any] | None = None) -> set[str]:
    return {name for name, _ in build(overrides).named_parameters()}


def test_ablations_change_the_parameters_as_meant() -> None:
    full = parameter_names()
    afw = {name for name in full if name.startswith("afw.")}
    assert len(afw) == 2 * 3 * 3 * 2  # layers, maps, modalities, weight and bias
    assert parameter_names({"ablations.no_afw": True}) == full - afw
    assert parameter_names({"ablations.no_amw": True}) == full
    assert parameter_names({"ablations.no_modulation": True}) == full


def test_ablations_change_the_outputs_as_meant() -> None:
    batch = make_batch(LENGTHS)
    full, no_amw = build().eval(), build({"ablations.no_amw": True}).eval()
    no_amw.load_state_dict(full.state_dict())
    assert torch.equal(full(batch).unimodal_logits, no_amw(batch).unimodal_logits)
    assert not torch.allclose(full(batch).logits, no_amw(batch).logits)
    assert build({"ablations.no_afw": True}).train()(batch).mapping_gap is None


def test_reference_is_blind_to_the_order_of_utterances() -> None:
    model, batch = build().eval(), make_batch((5, 5), seed=3)
    order = torch.tensor([2, 0, 4, 1, 3, 6, 9, 5, 8, 7])
    shuffled = model(reorder(batch, order, (5, 5))).logits
    torch.testing.assert_close(shuffled, model(batch).logits[order], atol=1e-6, rtol=0)


def test_without_padding_all_four_ways_agree() -> None:
    batch = make_batch((5, 5), seed=3)
    wanted = build().eval()(batch).logits
    for encoder in (True, False):
        for afw in (True, False):
            overrides = {"model.encoder.attend_to_padding": encoder, "model.afw.average_padding": afw}
            torch.testing.assert_close(build(overrides).eval()(batch).logits, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_masked_logits_do_not_depend_on_mates(kind: str) -> None:
    model, batch = build({**MASKED, "model.encoder.kind": kind}).eval(), make_batch(LENGTHS, padded_length=9)
    alone = torch.cat([model(take(batch, d)).logits for d in range(len(LENGTHS))])
    torch.testing.assert_close(model(batch).logits, alone, atol=1e-6, rtol=0)


def test_reference_logits_do_depend_on_mates() -> None:
    model, batch = build().eval(), make_batch(LENGTHS)
    assert (model(batch).logits[:3] - model(take(batch, 0)).logits).abs().max() > 1e-4


def test_dialogues_may_come_in_any_order() -> None:
    model, batch = build().eval(), make_batch(LENGTHS)
    order = torch.tensor([4, 5, 6, 7, 8, 9, 0, 1, 2, 3])
    swapped = model(reorder(batch, order, (6, 3, 1))).logits
    torch.testing.assert_close(swapped, model(batch).logits[order], atol=1e-6, rtol=0)


def test_features_without_a_modality_are_refused() -> None:
    config = resolve(preset="reference", settings="default", overrides={})
    with pytest.raises(ConfigError, match=r"names audio, visual, but the features hold text\."):
        build_model(config, widths={"text": 8}, classes=2)
