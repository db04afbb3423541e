"""The example losses, worked out by hand; votes and probabilities are those of ``test_by_hand``."""

from dataclasses import replace

import pytest
import torch

from ada2i.batch import DialogueBatch, Layout
from ada2i.config import OwnBalance
from examples.methods.losses import LabelSmoothing, SupervisedContrast
from tests.unit.balance.test_by_hand import batch_of, losses, predicted, started

CONFIG = OwnBalance(method="examples.methods.losses:LabelSmoothing")
# Of the votes: text (-ln 0.8 - ln 0.6) / 2 = 0.36698, audio (-ln 0.5 - ln 0.4) / 2 = 0.80472.
UNIMODAL = 0.36698 + 0.80472


def test_label_smoothing() -> None:
    balancer = LabelSmoothing(CONFIG, smoothing=0.1)
    started(balancer)
    # Both modalities: 0.8 0.2 | 0.5 0.5. To all classes alike: (-ln 0.8 - ln 0.2) / 2 = 0.91629 in place of
    # -ln 0.8 = 0.22314, and no difference at 0.5 0.5: a mean of 0.69315 / 2.
    found = losses(balancer, predicted(), batch_of())
    assert found["unimodal_loss"] == pytest.approx(0.5 * UNIMODAL, abs=2e-5)
    assert found["smoothing_loss"] == pytest.approx(0.1 * 0.346574, abs=1e-6)


def test_label_smoothing_of_unlabelled_utterances_is_nothing() -> None:
    balancer = LabelSmoothing(CONFIG, unimodal=0.0, smoothing=0.1)
    started(balancer)
    batch = replace(batch_of(), labels=torch.tensor([0, -1]))
    assert losses(balancer, predicted(), batch)["smoothing_loss"] == pytest.approx(0.1 * 0.69315, abs=1e-5)


def three(lengths: tuple[int, ...]) -> DialogueBatch:
    return replace(
        batch_of(),
        features={m: torch.zeros(3, 1) for m in ("text", "audio")},
        present={m: torch.ones(3, dtype=torch.bool) for m in ("text", "audio")},
        labels=torch.tensor([0, 0, 1]),
        speakers=torch.zeros(3, dtype=torch.int64),
        layout=Layout(lengths, max(lengths)),
        global_utterances=3,
    )


@pytest.mark.parametrize(("lengths", "expected"), [((3,), 0.0208841), ((2, 1), 0.0), ((1, 1, 1), 0.0)])
def test_supervised_contrast_is_within_a_dialogue(lengths: tuple[int, ...], expected: float) -> None:
    balancer = SupervisedContrast(CONFIG, unimodal=0.0, weight=0.1, temperature=1.0)
    started(balancer)
    # Cosines: 1 between the first two, which have one label, and 0 to the third. -ln(e / (e + 1)) = 0.31326 twice,
    # nothing for the third, which is the only one of its label: 0.62652 / 3.
    encoded = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    votes = torch.zeros(2, 3, 2)
    both = predicted({"text": encoded, "audio": torch.zeros(3, 2)})
    prediction = replace(both, votes=votes, logits=votes.sum(dim=0))
    assert losses(balancer, prediction, three(lengths))["contrast_loss"] == pytest.approx(expected, abs=1e-6)
    (gradient,) = torch.autograd.grad(balancer.term(prediction, three(lengths)), encoded)
    assert gradient.isfinite().all()
