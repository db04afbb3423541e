"""Each difference between the presets does what its config field says; the fidelity ledger names these tests."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ada2i.batch import DialogueBatch, Layout
from ada2i.modalities import MODALITIES
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.model.afw import AfwLayer, Features, contraction_order
from ada2i.model.amw import CosineVote, Fusion
from ada2i.model.build import build_model
from ada2i.model.inputs import Standardise
from ada2i.presets import resolve
from tests.unit.model.batches import CLASSES, SMALL, WIDTHS, afw_layer, make_batch, random_rows, take, weigh_once

LENGTHS = (3, 1, 5)


def model(preset: str, **overrides: Any) -> Ada2I:
    torch.manual_seed(1)
    fields = {**SMALL, **{name.replace("__", "."): value for name, value in overrides.items()}}
    built = build_model(resolve(preset=preset, settings="default", overrides=fields), widths=WIDTHS, classes=CLASSES)
    for parameter in built.parameters():  # as initialised, attention is nearly dead and would hide mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    return built.eval()


def predict(network: Ada2I, batch: DialogueBatch) -> Prediction:
    with torch.no_grad():
        found: Prediction = network(batch)
    return found


def with_features(batch: DialogueBatch, rows: Tensor, value: float) -> DialogueBatch:
    """Return the batch with some rows of all features replaced."""
    changed = {m: x.clone() for m, x in batch.features.items()}
    for features in changed.values():
        features[rows] = value
    return replace(batch, features=changed)


@pytest.mark.parametrize("preset", ["paper", "corrected"])
def test_a_dialogues_result_does_not_depend_on_its_batch(preset: str) -> None:
    network, batch = model(preset), make_batch(LENGTHS, padded_length=8)
    together = predict(network, batch).logits.softmax(dim=-1).split(LENGTHS)  # type: ignore[no-untyped-call]
    for dialogue in range(len(LENGTHS)):
        alone = predict(network, take(batch, dialogue)).logits.softmax(dim=-1)
        torch.testing.assert_close(alone, together[dialogue], rtol=0, atol=1e-6)


def test_reference_lets_padding_in() -> None:
    network, batch = model("reference"), make_batch(LENGTHS, padded_length=8)
    together = predict(network, batch).logits.split(LENGTHS)  # type: ignore[no-untyped-call]
    assert not torch.allclose(predict(network, take(batch, 1)).logits, together[1], atol=1e-3)


@pytest.mark.parametrize("preset", ["paper", "corrected"])
def test_causal_changing_the_future_changes_nothing(preset: str) -> None:
    network = model(preset, model__encoder__causal=True)
    batch = make_batch((6,))
    before = predict(network, batch).logits
    after = predict(network, with_features(batch, torch.tensor([4, 5]), 7.0)).logits
    assert torch.equal(before[:4], after[:4])
    assert not torch.allclose(before[4:], after[4:])
    not_causal = predict(model(preset), with_features(batch, torch.tensor([4, 5]), 7.0)).logits
    assert not torch.allclose(predict(model(preset), batch).logits[:4], not_causal[:4])


def test_causal_sees_the_past() -> None:
    network, batch = model("corrected", model__encoder__causal=True), make_batch((6,))
    after = predict(network, with_features(batch, torch.tensor([0]), 7.0)).logits
    assert not torch.allclose(predict(network, batch).logits[3:], after[3:])


def layer(**options: Any) -> AfwLayer:
    torch.manual_seed(0)
    built = afw_layer(hidden_dim=4, rank=2, beta=0.3, **options)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return built


def attend(built: AfwLayer, hidden: int = 4) -> dict[Any, Tensor]:
    """Return Att_m, recovered from the weighted features."""
    features = {m: random_rows(5, hidden, seed=i) for i, m in enumerate(MODALITIES)}
    weighted = weigh_once(built, features, Layout((5,), 5)).features
    return {m: (weighted[m] - built.beta * features[m]) / features[m] for m in MODALITIES}


def test_theta_is_divided_by_the_root_of_key_dim() -> None:
    plain, scaled = attend(layer()), attend(layer(key_dim=4))
    bias = {m: layer().get_parameter(f"attention.{m}.bias") for m in MODALITIES}
    for m in MODALITIES:  # Theta and the means of two others: three factors of one half
        torch.testing.assert_close(scaled[m] - bias[m], (plain[m] - bias[m]) / 8, rtol=1e-3, atol=1e-4)


def test_cyclic_order_starts_behind_the_modality_itself() -> None:
    built = layer(cyclic=True)
    assert MODALITIES == ("text", "audio", "visual")
    assert contraction_order(3, cyclic=True) == (1, 2, 0, 2, 0, 1)  # audio, the second: visual, then text
    assert contraction_order(3, cyclic=False) == (1, 0, 0, 2, 2, 1)  # audio: text, then visual
    listed, cyclic = attend(layer()), attend(built)
    torch.testing.assert_close(listed["text"], cyclic["text"])
    assert not torch.allclose(listed["audio"], cyclic["audio"], atol=1e-4)


def test_mapping_target_is_the_attention_or_the_weighted_feature() -> None:
    features = {m: random_rows(5, 4, seed=i) for i, m in enumerate(MODALITIES)}
    for paper, divisor in ((True, 1), (False, 3)):
        built = layer(learns_attention=paper, mean_gap=not paper).train()
        attention, expected = attend(built), torch.zeros(5)
        for m in MODALITIES:
            target = attention[m] if paper else attention[m] * features[m] + built.beta * features[m]
            expected += (built.mapping[m](features[m]) - target).abs().mean(dim=-1)
        found = weigh_once(built, features, Layout((5,), 5)).mapping_gap
        torch.testing.assert_close(found, expected / divisor, rtol=1e-3, atol=1e-4)


def test_normalised_inputs_bring_the_gate_to_life() -> None:
    torch.manual_seed(0)
    features = {m: 0.3 * random_rows(40, 200, seed=i) for i, m in enumerate(MODALITIES)}
    dead, alive = (
        weigh_once(afw_layer(hidden_dim=200, rank=6, beta=0.5, normalise=norm), features, Layout((40,), 40))
        for norm in (False, True)
    )
    assert dead.gate_share.max() < 0.001
    assert alive.gate_share.min() > 0.03  # of attention plus beta


def test_votes_are_scaled_cosines() -> None:
    features = {m: random_rows(4, 5, seed=i) for i, m in enumerate(MODALITIES)}
    fusion = Fusion(modalities=MODALITIES, hidden_dim=5, classes=3, vote=CosineVote(dim=1, scale=10.0), bias=False)
    votes = fusion(torch.stack(list(features.values())), None)
    for i, m in enumerate(MODALITIES):
        part = fusion.classifier.weight[:, 5 * i : 5 * (i + 1)]
        cosines = F.cosine_similarity(features[m][:, None], part[None], dim=-1)
        torch.testing.assert_close(votes[i], 10 * cosines)
    torch.testing.assert_close(fusion.fuse(votes), votes.sum(dim=0))


def test_an_mlp_predicts_from_the_fused_votes() -> None:
    network, batch = model("paper"), make_batch(LENGTHS)
    found = predict(network, batch)
    torch.testing.assert_close(found.logits, network.head(found.fused).detach())
    assert predict(model("reference"), batch).logits.equal(predict(model("reference"), batch).fused)


def test_the_ratio_reads_votes_or_the_plain_classifier() -> None:
    batch = make_batch(LENGTHS)
    votes = predict(model("corrected"), batch).unimodal_logits
    assert votes.abs().max() <= 20 + 1e-5  # cosines times the scale
    plain = predict(model("corrected", balance__ratio="linear"), batch).unimodal_logits
    assert not torch.allclose(votes, plain)


def test_what_is_missing_has_no_influence() -> None:
    network, batch = model("corrected"), make_batch(LENGTHS)
    there = batch.present["audio"].clone()
    there[[0, 3, 5]] = False  # one utterance, a whole dialogue, one utterance
    present = {**batch.present, "audio": there}
    audio = batch.features["audio"].clone()
    audio[~there] = 99.0
    zeros, junk = (
        predict(network, replace(batch, present=present, features={**batch.features, "audio": x})).logits
        for x in (batch.features["audio"] * there[:, None], audio)
    )
    assert torch.equal(zeros, junk)
    assert zeros.isfinite().all()
    assert not torch.allclose(zeros, predict(network, batch).logits)


def test_rows_without_a_modality_are_in_neither_its_mapping_gap_nor_its_gate_share() -> None:
    there = torch.tensor([True, True, False, True, False])
    layer = afw_layer(hidden_dim=6, rank=3, beta=0.1, learns_attention=True, mean_gap=False).train()
    features: Features = {m: random_rows(5, 6, seed=i) for i, m in enumerate(MODALITIES)}
    present = torch.stack([there if m == "audio" else torch.ones_like(there) for m in MODALITIES])
    found = weigh_once(layer, features, Layout((5,), 5), present)
    changed = {**features, "audio": features["audio"] + 7 * (~there)[:, None]}
    other = weigh_once(layer, changed, Layout((5,), 5), present)
    torch.testing.assert_close(other.mapping_gap, found.mapping_gap)
    torch.testing.assert_close(other.gate_share, found.gate_share)


def test_nothing_at_all_present_gives_a_flat_answer() -> None:
    network, batch = model("corrected"), make_batch((4,))
    gone = {m: torch.zeros(4, dtype=torch.bool) for m in MODALITIES}
    logits = predict(network, replace(batch, present=gone)).logits
    assert torch.equal(logits, torch.zeros_like(logits))


def test_positions_and_speakers_tell_utterances_apart() -> None:
    off = {"model__encoder__kind": "context", "model__encoder__positions": False, "model__encoder__speakers": False}
    batch = make_batch((4,))
    order = torch.tensor([2, 0, 3, 1])
    shuffled = replace(batch, features={m: x[order] for m, x in batch.features.items()})
    blind = model("corrected", **off)
    torch.testing.assert_close(predict(blind, shuffled).logits, predict(blind, batch).logits[order], rtol=0, atol=1e-4)
    placed = model("corrected", **off | {"model__encoder__positions": True})
    assert not torch.allclose(predict(placed, shuffled).logits, predict(placed, batch).logits[order], atol=1e-3)
    knowing = model("corrected", **off | {"model__encoder__speakers": True})
    other = replace(batch, speakers=torch.zeros_like(batch.speakers))
    assert not torch.allclose(predict(knowing, batch).logits, predict(knowing, other).logits, atol=1e-3)
    assert predict(blind, batch).logits.equal(predict(blind, other).logits)


def test_standardised_features_are_centred_and_missing_ones_stay_zero() -> None:
    network = model("corrected", model__normalise="train")
    module = network.standardise["text"]
    mean, deviation = torch.full((WIDTHS["text"],), 2.0), torch.full((WIDTHS["text"],), 4.0)
    deviation[0] = 0.0  # a constant feature
    assert isinstance(module, Standardise)
    module.set(mean, deviation)
    rows = torch.full((2, WIDTHS["text"]), 6.0)
    scaled = module(rows, torch.tensor([True, False]))
    assert scaled[0, 0].item() == 4.0
    assert scaled[0, 1:].tolist() == pytest.approx([1.0] * (WIDTHS["text"] - 1))
    assert scaled[1].tolist() == [0.0] * WIDTHS["text"]
    assert "standardise.text.mean" in network.state_dict()
    assert math.isfinite(predict(network, make_batch(LENGTHS)).logits.sum().item())


def test_a_quiet_gate_starts_near_beta() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"hidden_dim": 200, "rank": 6, "beta": 1.0, "normalise": True}
    features = {m: random_rows(40, 200, seed=i) for i, m in enumerate(MODALITIES)}
    quiet = afw_layer(**options).eval()
    quiet.start_quietly()
    weighted = weigh_once(quiet, features, Layout((40,), 40)).features
    loud = weigh_once(afw_layer(**options).eval(), features, Layout((40,), 40)).features
    for m, x in features.items():
        assert (weighted[m] / x - 1).abs().mean() < 0.03
        assert (loud[m] / x - 1).abs().mean() > 0.06
