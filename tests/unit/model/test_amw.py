"""Adaptive modality weighting against its formula, written out number by number."""

import math

import pytest
import torch
from torch import Tensor

from ada2i.modalities import MODALITIES, Modality
from ada2i.model.amw import CosineVote, Fusion, SkillFusion, linear_vote
from tests.unit.model.batches import random_rows

ROWS, HIDDEN, CLASSES = 4, 5, 3


def fusion(*, normalised: bool, modalities: tuple[Modality, ...] = MODALITIES) -> Fusion:
    torch.manual_seed(0)
    vote = CosineVote(dim=0) if normalised else linear_vote
    return Fusion(modalities=modalities, hidden_dim=HIDDEN, classes=CLASSES, vote=vote)


def fused(module: Fusion, features: dict[Modality, Tensor]) -> Tensor:
    votes: Tensor = module(torch.stack([features[m] for m in module.modalities]), None)
    return module.fuse(votes)


def inputs() -> dict[Modality, Tensor]:
    return {m: random_rows(ROWS, HIDDEN, seed=i) for i, m in enumerate(MODALITIES)}


def stacked(features: dict[Modality, Tensor]) -> Tensor:
    return torch.stack(list(features.values()))


def column(module: Fusion, index: int, c: int, h: int) -> float:
    """The classifier's number for a modality (by its place), class and channel."""
    return float(module.classifier.weight.detach()[c, index * HIDDEN + h])


def naive_vote(module: Fusion, index: int, feature: Tensor, c: int) -> float:
    """Feature over its length, times weights of class c over the length of each channel's row of classes."""
    length = math.sqrt(sum(float(x) ** 2 for x in feature))
    total = 0.0
    for h in range(HIDDEN):
        over_classes = math.sqrt(sum(column(module, index, k, h) ** 2 for k in range(CLASSES)))
        total += float(feature[h]) / length * column(module, index, c, h) / over_classes
    return total


@pytest.mark.parametrize("modalities", [("text", "audio", "visual"), ("visual", "text"), ("audio",)])
def test_normalised_equals_the_formula(modalities: tuple[Modality, ...]) -> None:
    module, features = fusion(normalised=True, modalities=modalities), inputs()
    logits = fused(module, features)
    assert logits.shape == (ROWS, CLASSES)
    for n in range(ROWS):
        for c in range(CLASSES):
            votes = sum(naive_vote(module, i, features[m][n], c) for i, m in enumerate(modalities))
            assert logits[n, c].item() == pytest.approx(votes + module.classifier.bias[c].item(), abs=1e-5)


def test_plain_is_one_linear_layer() -> None:
    module, features = fusion(normalised=False), inputs()
    logits = fused(module, features)
    for n in range(ROWS):
        for c in range(CLASSES):
            total = module.classifier.bias[c].item()
            for i, m in enumerate(MODALITIES):
                total += sum(float(features[m][n, h]) * column(module, i, c, h) for h in range(HIDDEN))
            assert logits[n, c].item() == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_unimodal_votes_are_plain_and_share_the_bias(*, normalised: bool) -> None:
    module, features = fusion(normalised=normalised), inputs()
    alone = module.unimodal(stacked(features))
    assert alone.shape == (3, ROWS, CLASSES)
    for i, m in enumerate(MODALITIES):
        for c in range(CLASSES):
            total = sum(float(features[m][1, h]) * column(module, i, c, h) for h in range(HIDDEN))
            assert alone[i, 1, c].item() == pytest.approx(total + module.classifier.bias[c].item() / 3, abs=1e-5)
    torch.testing.assert_close(alone.sum(0), fused(fusion(normalised=False), features), rtol=1e-5, atol=1e-5)


def test_a_modality_votes_by_direction_not_length() -> None:
    features = inputs()
    louder = features | {"text": 100 * features["text"]}
    torch.testing.assert_close(fused(fusion(normalised=True), louder), fused(fusion(normalised=True), features))
    assert not torch.allclose(
        fused(fusion(normalised=False), louder), fused(fusion(normalised=False), features), rtol=0.1
    )


def test_an_absent_modality_has_no_vote_and_breaks_nothing() -> None:
    features = inputs() | {"visual": torch.zeros(ROWS, HIDDEN)}
    module = fusion(normalised=True)
    logits = fused(module, features)
    two = sum(naive_vote(module, i, features[m][0], 0) for i, m in enumerate(MODALITIES[:2]))
    assert logits[0, 0].item() == pytest.approx(two + module.classifier.bias[0].item(), abs=1e-5)
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert module.classifier.weight.grad is not None
    assert module.classifier.weight.grad.isfinite().all()


def test_votes_weigh_by_their_log_odds_against_chance() -> None:
    torch.manual_seed(0)
    module = SkillFusion(modalities=MODALITIES, hidden_dim=HIDDEN, classes=CLASSES, vote=CosineVote(dim=1))
    module.weigh({"text": 0.7, "audio": 0.5, "visual": 0.2}, CLASSES)
    text, audio = math.log(2 * 0.7 / 0.3), math.log(2 * 0.5 / 0.5)
    assert module.weights.tolist() == pytest.approx([1.0, audio / text, 0.1])  # below chance: a tenth
    votes = module(stacked(inputs()), None)
    torch.testing.assert_close(
        module.fuse(votes), votes[0] + audio / text * votes[1] + 0.1 * votes[2] + module.classifier.bias
    )
    assert "weights" in module.state_dict()


def test_all_votes_weigh_the_same_if_no_modality_beats_chance() -> None:
    module = SkillFusion(modalities=MODALITIES, hidden_dim=HIDDEN, classes=2, vote=CosineVote(dim=1))
    module.weigh(dict.fromkeys(MODALITIES, 0.3), 2)
    assert module.weights.tolist() == [1.0, 1.0, 1.0]
