"""Fusions and encoders of a user's own: the examples, and how the network calls them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ada2i.batch import Layout
from ada2i.jobs import code
from ada2i.modalities import Modality
from ada2i.model.build import build_model
from ada2i.model.own import FusionHolder
from ada2i.model.relational import relation_means
from ada2i.presets import resolve
from examples.methods.decaying_attention import DecayingAttention
from examples.methods.late_fusion import LateFusion
from examples.methods.tensor_fusion import TensorFusion
from tests.own import examples, write_examples
from tests.unit.model.batches import CLASSES, SMALL, WIDTHS, make_batch, take

NAMES: tuple[Modality, ...] = ("text", "audio")
LAYOUT = Layout((2,), 2)


class Sum(nn.Module):
    """Adds the encodings, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, encoded: dict[str, Tensor], present: dict[str, Tensor], layout: Layout) -> Tensor:
        total: Tensor = self.weight * torch.stack(list(encoded.values())).sum(dim=0)
        return total


def encoded() -> dict[str, Tensor]:
    return {"text": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "audio": torch.tensor([[10.0, 20.0], [30.0, 40.0]])}


def test_examples_are_short() -> None:
    assert len(examples()) == 3
    assert all(len(text.splitlines()) <= 30 for text in examples())


def test_late_fusion_is_the_mean_of_the_votes_that_there_are() -> None:
    fusion = LateFusion(NAMES, hidden_dim=2, classes=3)
    present = {"text": torch.tensor([True, True]), "audio": torch.tensor([True, False])}
    logits, votes = fusion(encoded(), present, LAYOUT)
    text, audio = (fusion.heads[m](x) for m, x in encoded().items())
    torch.testing.assert_close(votes, torch.stack([text, torch.stack([audio[0], torch.zeros(3)])]))
    torch.testing.assert_close(logits, torch.stack([(text[0] + audio[0]) / 2, text[1]]))


def test_tensor_fusion_multiplies_all_and_keeps_what_is_alone() -> None:
    fusion = TensorFusion(NAMES, hidden_dim=2, classes=3, dropout=0.0, size=2).eval()
    present = {m: torch.tensor([True, m == "text"]) for m in NAMES}
    seen: list[Tensor] = []
    fusion.predict.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert fusion(encoded(), present, LAYOUT).shape == (2, 3)
    text, audio = (torch.relu(fusion.reduce[m](x)) for m, x in encoded().items())
    both = torch.outer(torch.cat([text[0], torch.ones(1)]), torch.cat([audio[0], torch.ones(1)]))
    torch.testing.assert_close(seen[0][0], both.flatten())
    lone = torch.outer(torch.cat([text[1], torch.ones(1)]), torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(seen[0][1], lone.flatten())


def attention(**options: bool) -> tuple[DecayingAttention, list[Tensor]]:
    """Return decaying attention without effect of content, and the inputs that its hidden layer will get."""
    torch.manual_seed(0)
    encoder = DecayingAttention(width=4, hidden_dim=3, feedforward_dim=5, dropout=0.0, input_dropout=0.0, **options)
    torch.nn.init.zeros_(encoder.query.weight)
    torch.nn.init.zeros_(encoder.query.bias)
    seen: list[Tensor] = []
    encoder.stages.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    return encoder.eval(), seen


@pytest.mark.parametrize("causal", [False, True])
def test_decaying_attention_starts_as_decayed_means(causal: bool) -> None:
    encoder, seen = attention(causal=causal)
    x, who = torch.randn(9, 4), torch.tensor([0, 1, 0, 0, 1, 0, 1, 0, 0])
    layout, present = Layout((5, 3, 1), 5), torch.ones(9, dtype=torch.bool)
    assert encoder(x, layout, who, present).shape == (9, 3)
    means = relation_means(x, layout, who, None, decays=[3.0], dialogue_decay=15.0, causal=causal)
    means = torch.unflatten(means, 1, (-1, 4))
    found = torch.unflatten(seen[0], 1, (-1, 4))[:, 1:]  # without the own vector
    heads = [0, 1, 4] if causal else [0, 1, 2, 3, 4]
    for relation, head in enumerate(heads):
        there = means[:, relation].abs().sum(dim=1) > 0  # with no such neighbour the head is not a mean of that kind
        assert there.any()
        torch.testing.assert_close(found[there, head], means[there, relation], atol=0.03, rtol=0.03)


def test_decaying_attention_reads_its_dialogue_and_present_vectors_only() -> None:
    encoder, _ = attention(causal=True)
    x, who, present = torch.randn(5, 4), torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.bool)
    before = encoder(x, Layout((3, 2), 3), who, present)
    changed = x.clone()
    changed[2] += 1.0  # the last of the first dialogue
    after = encoder(changed, Layout((3, 2), 3), who, present)
    torch.testing.assert_close(after[[0, 1, 3, 4]], before[[0, 1, 3, 4]])
    assert not torch.equal(after[2], before[2])
    absent = torch.tensor([False, True, True, True, True])
    changed[0] = 0.0
    one = encoder(changed, Layout((3, 2), 3), who, absent)[2]
    alone = encoder(changed[1:], Layout((2, 2), 2), who[1:], present[1:])[1]
    torch.testing.assert_close(one, alone)


def test_without_votes_a_modality_votes_by_its_prediction_alone() -> None:
    holder = FusionHolder(Sum(), classes=2, modalities=NAMES)
    present = torch.tensor([[True, True], [True, False]])
    votes, logits = holder.predict(torch.stack(list(encoded().values())), present, LAYOUT)
    assert logits.tolist() == [[22.0, 44.0], [6.0, 8.0]]  # the second utterance has no audio
    assert votes.tolist() == [[[2.0, 4.0], [6.0, 8.0]], [[20.0, 40.0], [0.0, 0.0]]]


@pytest.mark.parametrize("train_head", [True, False])
def test_votes_alone_pass_gradients_as_requested(train_head: bool) -> None:
    holder, rows = FusionHolder(Sum(), classes=2, modalities=NAMES), encoded()
    rows["text"].requires_grad_()
    votes = holder.alone(torch.stack(list(rows.values())), LAYOUT, train_head=train_head)
    weight = holder.get_parameter("own.weight")
    found = torch.autograd.grad(votes.sum(), [rows["text"], weight], allow_unused=True)
    assert found[0] is not None
    assert found[0].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert (found[1] is not None) == train_head


@pytest.mark.parametrize("preset", ["corrected", "reference", "paper"])
def test_a_network_of_own_parts_predicts_a_dialogue_alike_in_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    write_examples(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    fields = {**SMALL, "model.encoder": "doc_encoder:Gru", "model.fusion": "doc_fusion:Concat"}
    config = resolve(preset=preset, settings="default", overrides=fields)
    with code.named(code.digests(config.own_code)):
        model = build_model(config, widths=WIDTHS, classes=CLASSES).eval()
    batch = make_batch((3, 5, 2))
    with torch.no_grad():
        whole, alone = model(batch), model(take(batch, 1))
    assert whole.votes.shape == (3, 10, CLASSES)
    assert whole.fused is whole.logits
    torch.testing.assert_close(whole.logits[3:8], alone.logits)
    torch.testing.assert_close(whole.votes[:, 3:8], alone.votes)
