"""Loss terms against plain sums, and shares that add up however a batch is dealt out."""

import math
from dataclasses import replace

import pytest
import torch

from ada2i.balance.disparity import true_class_scores
from ada2i.batch import Layout
from ada2i.model.ada2i import Prediction
from ada2i.records import UNLABELLED
from ada2i.training.losses import Term, balanced_weights, classification_loss, distillation_loss, feature_loss
from tests.unit.model.batches import CLASSES, make_batch, random_rows, reorder


def prediction(rows: int, gap: torch.Tensor | None = None) -> Prediction:
    logits = random_rows(rows, CLASSES, seed=5)
    votes = torch.zeros(3, rows, CLASSES)
    return Prediction(logits, votes, logits, votes, gap, torch.zeros(3))


def test_classification_loss_is_the_mean_negative_log_likelihood() -> None:
    batch, found = make_batch((3, 1, 6)), prediction(10)
    total = 0.0
    for logits, label in zip(found.logits.tolist(), batch.labels.tolist(), strict=True):
        total += math.log(sum(math.exp(x) for x in logits)) - logits[label]
    term = classification_loss(found, batch)
    assert term.total.item() == pytest.approx(total, rel=1e-6)
    assert term.share().item() == pytest.approx(total / 10, rel=1e-6)


@pytest.mark.parametrize(("over_padding", "slots", "count"), [(True, 3 * 9, 27), (False, 10, 10)])
def test_feature_loss_is_the_mean_gap(*, over_padding: bool, slots: int, count: int) -> None:
    batch = make_batch((3, 1, 6), padded_length=9)
    gap = random_rows(slots, 1, seed=1).flatten().abs()
    term = feature_loss(prediction(10, gap), batch, over_padding=over_padding)
    assert term.global_count == count
    assert term.share().item() == pytest.approx(sum(gap.tolist()) / count, rel=1e-6)


def test_without_afw_there_is_no_feature_loss() -> None:
    term = feature_loss(prediction(10), make_batch((3, 1, 6)), over_padding=True)
    assert term.share().item() == 0.0


@pytest.mark.parametrize("over_padding", [True, False])
def test_shares_of_ranks_add_up(*, over_padding: bool) -> None:
    """The loss of the global batch does not depend on the ranks' shares."""
    batch, found = make_batch((3, 1, 6)), prediction(10)
    gaps = random_rows(18 if over_padding else 10, 1, seed=1).flatten().abs()
    whole = (
        classification_loss(found, batch).share()
        + feature_loss(replace(found, mapping_gap=gaps), batch, over_padding=over_padding).share()
    )
    total = torch.zeros(())
    for rows, slots, lengths in ((range(4), range(12), (3, 1)), (range(4, 10), range(12, 18), (6,))):
        own = replace(
            reorder(batch, torch.tensor(rows), lengths),
            layout=Layout(lengths, 6),
            global_utterances=10,
            global_dialogues=3,
        )
        gap = gaps[list(slots if over_padding else rows)]
        logits = found.logits[list(rows)]
        part = replace(found, logits=logits, unimodal_logits=found.unimodal_logits[:, list(rows)], mapping_gap=gap)
        total = total + classification_loss(part, own).share()
        total = total + feature_loss(part, own, over_padding=over_padding).share()
    torch.testing.assert_close(total, whole)


def test_a_share_is_divided_once() -> None:
    assert Term(torch.tensor(6.0), 4).share().item() == 1.5


def test_balanced_weights_by_hand() -> None:
    weights = balanced_weights(torch.tensor([90, 10, 0]), 0.5)
    rare = (90 / 10) ** 0.5
    assert float(weights[1] / weights[0]) == pytest.approx(rare)
    assert float(90 * weights[0] + 10 * weights[1]) == pytest.approx(100)  # the mean over train is 1
    assert float(weights[2]) == 1.0
    assert balanced_weights(torch.tensor([90, 10]), 0.0).tolist() == pytest.approx([1.0, 1.0])


def test_utterances_without_a_label_count_in_no_loss_of_labels() -> None:
    batch, found = make_batch((3, 1, 6)), prediction(10)
    unlabelled = [1, 5, 6]
    labels = batch.labels.clone()
    labels[unlabelled] = UNLABELLED
    kept = [row for row in range(10) if row not in unlabelled]
    term = classification_loss(found, replace(batch, labels=labels, labelled=7))
    expected = torch.nn.functional.cross_entropy(found.logits[kept], batch.labels[kept])
    assert term.global_count == 7
    torch.testing.assert_close(term.share(), expected)
    scores = true_class_scores(found.logits[None], labels)
    torch.testing.assert_close(scores, true_class_scores(found.logits[None, kept], batch.labels[kept]))


def test_a_batch_without_any_label_has_a_loss_of_zero() -> None:
    batch, found = make_batch((3, 1, 6)), prediction(10)
    none = replace(batch, labels=torch.full_like(batch.labels, UNLABELLED), labelled=0)
    assert classification_loss(found, none).share().item() == 0.0


def test_the_teachers_loss_by_hand() -> None:
    batch = make_batch((2,))
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.25, 0.25, 0.25, 0.25]]))
    made = replace(prediction(2), logits=logits)
    batch = replace(batch, taught=torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))
    # Nats: -(ln 1/2 + ln 1/4) / 2 and -ln 1/4; the mean of 1.5 ln 2 and 2 ln 2.
    assert distillation_loss(made, batch, 1.0).share().item() == pytest.approx(1.75 * math.log(2))
    # At T = 1/2 probabilities are squared: the student's first row is (16, 4, 1, 1) / 22, the teachers' stay.
    first = -(math.log(16 / 22) + math.log(4 / 22)) / 2
    assert distillation_loss(made, batch, 0.5).total.item() == pytest.approx((first + math.log(4)) / 4)


def test_the_teachers_loss_counts_utterances_without_a_label_but_no_padding() -> None:
    batch, made = make_batch((3, 2)), prediction(5)
    taught = random_rows(5, CLASSES, seed=2).softmax(dim=-1)
    whole = distillation_loss(made, replace(batch, taught=taught), 2.0)
    batch.labels[:] = UNLABELLED
    assert distillation_loss(made, replace(batch, taught=taught), 2.0).share() == whole.share()
    padded = torch.cat([taught[:4], torch.zeros(1, CLASSES)])
    four = replace(made, logits=made.logits[:4])
    shorter = make_batch((3, 1))
    assert distillation_loss(made, replace(batch, taught=padded), 2.0).total.item() == pytest.approx(
        distillation_loss(four, replace(shorter, taught=taught[:4]), 2.0).total.item(), rel=1e-6
    )
