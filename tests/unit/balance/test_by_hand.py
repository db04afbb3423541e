"""Every method on two utterances, worked out by hand.

Two classes; the true ones are 0 and 1. The votes are logarithms of probabilities, so that softmax gives these back:

    text   0.8 0.2 | 0.4 0.6    true class: 0.8, 0.6    s = 1.4, mean 0.7
    audio  0.5 0.5 | 0.6 0.4    true class: 0.5, 0.4    s = 0.9, mean 0.45
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from ada2i.balance import make_balancer
from ada2i.balance.agm import AgmBalancer
from ada2i.balance.arl import ArlBalancer
from ada2i.balance.base import StepInfo
from ada2i.balance.dgl import DglBalancer
from ada2i.balance.disparity import lead
from ada2i.balance.mmpareto import MmParetoBalancer
from ada2i.balance.none import NoBalancer
from ada2i.balance.ogm_ge import OgmGeBalancer
from ada2i.balance.opm import OpmBalancer, keep
from ada2i.balance.pmr import PmrBalancer
from ada2i.balance.spcl import SpclBalancer, imbalances
from ada2i.balance.tcmax import TcMaxBalancer
from ada2i.balance.umt import UmtBalancer
from ada2i.balance.unimodal import UnimodalBalancer
from ada2i.batch import DialogueBatch, Layout
from ada2i.config import (
    AgmBalance,
    ArlBalance,
    DglBalance,
    MmParetoBalance,
    OgmGeBalance,
    OpmBalance,
    PmrBalance,
    SpclBalance,
    TcMaxBalance,
    UmtBalance,
    UnimodalBalance,
)
from ada2i.modalities import Modality
from ada2i.model.ada2i import Prediction
from ada2i.model.amw import Fusion, linear_vote
from ada2i.presets import resolve
from tests.unit.model.batches import random_rows

TEXT = [[0.8, 0.2], [0.4, 0.6]]
AUDIO = [[0.5, 0.5], [0.6, 0.4]]
NAMES: tuple[Modality, ...] = ("text", "audio")


def near(*values: float) -> Any:
    return pytest.approx(list(values), abs=2e-5)


def batch_of(lengths: Sequence[int] = (1, 1), audio: Sequence[bool] = (True, True)) -> DialogueBatch:
    return DialogueBatch(
        features={m: torch.zeros(2, 1) for m in NAMES},
        present={"text": torch.ones(2, dtype=torch.bool), "audio": torch.tensor(audio)},
        labels=torch.tensor([0, 1]),
        speakers=torch.zeros(2, dtype=torch.int64),
        layout=Layout(tuple(lengths), max(lengths)),
        global_utterances=2,
        global_dialogues=len(lengths),
    )


def predicted(encoded: Mapping[Modality, Tensor] | None = None) -> Prediction:
    votes = torch.tensor([TEXT, AUDIO]).log()
    fused = votes.sum(dim=0)
    return Prediction(
        logits=fused,
        votes=votes,
        fused=fused,
        unimodal_logits=votes,
        mapping_gap=None,
        gate_share=torch.zeros(2),
        encoded=dict(encoded or {}),
    )


def started(balancer: NoBalancer, epoch: int = 1, step: int = 0) -> StepInfo:
    """Let a method start a step of a model whose classifier is the identity for both modalities."""
    fusion = Fusion(modalities=NAMES, hidden_dim=2, classes=2, vote=linear_vote, bias=False)
    fusion.classifier.weight.data.copy_(torch.eye(2).repeat(1, 2))
    info = StepInfo(
        cast("Any", SimpleNamespace(modalities=NAMES, fusion=fusion, parameters=fusion.parameters)), seed=1, step=step
    )
    balancer.set_epoch(epoch)
    balancer.start_step(info)
    return info


def losses(balancer: NoBalancer, prediction: Prediction, batch: DialogueBatch) -> dict[str, float]:
    totals = {name: value.double() for name, value in balancer.totals(batch, lambda: prediction).items()}
    return {name: loss.item() for name, loss in balancer.extra_losses(prediction, batch, totals).items()}


def coefficient(balancer: NoBalancer, prediction: Prediction | None = None) -> list[float]:
    found = balancer.scales(balancer.statistics(prediction or predicted(), batch_of()))
    values: list[float] = found.metrics["coefficient"].tolist()
    return values


def test_ogm_ge() -> None:
    balancer = OgmGeBalancer(OgmGeBalance(start_epoch=1))
    started(balancer)
    # Text leads by 0.7 / 0.45 = 1.55556: 1 - tanh(0.3 * 1.55556) = 1 - 0.43550. Audio is behind: 1.
    assert coefficient(balancer) == near(0.564498, 1.0)
    scales = balancer.scales(balancer.statistics(predicted(), batch_of()))
    assert scales.gradient is not None
    assert scales.gradient_noise is not None
    assert scales.gradient_noise.tolist() == [1.0, 1.0]


def test_a_lead_is_over_the_mean_of_the_others() -> None:
    scores = torch.tensor([1.4, 0.9, 0.6])
    # Means 0.7, 0.45, 0.3: 0.7 / 0.375, 0.45 / 0.5, 0.3 / 0.575.
    assert lead(scores, torch.full((3,), 2.0)).tolist() == near(1.866667, 0.9, 0.521739)
    assert lead(scores, torch.tensor([2.0, 2.0, 0.0])).tolist() == near(1.555556, 0.642857, 1.0)
    assert lead(scores, torch.tensor([2.0, 0.0, 0.0])).tolist() == [1.0, 1.0, 1.0]


def test_unimodal_losses() -> None:
    balancer = UnimodalBalancer(UnimodalBalance())
    started(balancer)
    # Text: (-ln 0.8 - ln 0.6) / 2 = 0.36698. Audio: -ln 0.5 = 0.69315 over the one utterance that has it.
    found = losses(balancer, predicted(), batch_of(audio=(True, False)))
    assert found["unimodal_loss"] == pytest.approx(0.5 * (0.36698 + 0.69315), abs=1e-5)


def test_umt() -> None:
    balancer = UmtBalancer(UmtBalance(weight=2.0))
    started(balancer)
    encoded: dict[Modality, Tensor] = {"text": torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "audio": torch.ones(2, 2)}
    taught = torch.tensor([[[1.0, 0.0], [9.0, 9.0]], [[1.0, 1.0], [3.0, 2.0]]])  # (N, M, H)
    batch = replace(batch_of(audio=(False, True)), taught_encodings=taught, labels=torch.tensor([-1, 1]))
    # Text: means of (0, 4) and (1, 0), 2 and 0.5, over two utterances, labelled or not: 1.25.
    # Audio: the mean of (4, 1), 2.5, over the one utterance that has it.
    assert losses(balancer, predicted(encoded), batch) == {"umt_loss": pytest.approx(2.0 * (1.25 + 2.5))}


def test_tcmax() -> None:
    balancer = TcMaxBalancer(TcMaxBalance())
    started(balancer)
    # exp f: 0.4 0.1 | 0.24 0.24, so the cross-entropy normalises by ln 0.5 and ln 0.48.
    # Means of exp v: text 0.6 0.4, audio 0.55 0.45; recombined: ln(0.6 * 0.55 + 0.4 * 0.45) = ln 0.51.
    # ln 0.51 - (ln 0.5 + ln 0.48) / 2 = -0.673345 + 0.713558
    assert losses(balancer, predicted(), batch_of())["tcmax_loss"] == pytest.approx(0.040213, abs=1e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_tcmaxs_loss_and_gradient_are_those_of_all_recombined_utterances(parts: int) -> None:
    balancer = TcMaxBalancer(TcMaxBalance())
    started(balancer)
    votes = torch.stack([random_rows(2, 2, seed=i) for i in range(2)]).requires_grad_()
    batch = batch_of()
    cube = votes[0][:, None] + votes[1][None]  # both utterances of text with both of audio
    wanted = cube.exp().mean(dim=(0, 1)).sum().log() - votes.sum(dim=0).logsumexp(dim=-1).mean()
    (gradient,) = torch.autograd.grad(wanted, votes)
    rows = [slice(0, 2)] if parts == 1 else [slice(0, 1), slice(1, 2)]
    shares = []
    for own in rows:
        alone = votes[:, own]
        fused = alone.sum(dim=0)
        share = Prediction(fused, alone, fused, alone.detach(), None, torch.zeros(2))
        layout = Layout((len(fused),), len(fused))
        features = {m: torch.zeros(len(fused), 1) for m in NAMES}
        there = {m: torch.ones(len(fused), dtype=torch.bool) for m in NAMES}
        speakers = torch.zeros(len(fused), dtype=torch.int64)
        shares.append((share, DialogueBatch(features, there, batch.labels[own], speakers, layout, 2, 1)))
    sums: dict[str, Tensor] = {}
    for share, part in shares:
        for name, value in balancer.totals(part, lambda share=share: share).items():  # type: ignore[misc]
            sums[name] = sums.get(name, 0.0) + value.double()
    total = torch.stack([balancer.extra_losses(share, part, sums)["tcmax_loss"] for share, part in shares]).sum()
    assert total.item() == pytest.approx(wanted.item(), abs=1e-6)
    (found,) = torch.autograd.grad(total, votes)
    torch.testing.assert_close(found, gradient, atol=1e-6, rtol=0)


def test_dgl() -> None:
    balancer = DglBalancer(DglBalance())
    info = started(balancer)
    own = torch.eye(2).requires_grad_()
    encoded: dict[Modality, Tensor] = {"text": own, "audio": torch.zeros(2, 2)}
    batch = batch_of(audio=(False, False))
    totals = balancer.totals(batch, predicted)
    loss = balancer.extra_losses(predicted(encoded), batch, totals)["unimodal_loss"]
    # The votes are the encodings 1 0 | 0 1: -ln(e / (e + 1)) = 0.313262 for each utterance; audio has none.
    assert loss.item() == pytest.approx(0.313262, abs=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    # (p - 1) / 2 and p / 2 with p = 0.731059 and 0.268941
    assert own.grad is not None
    assert own.grad.tolist() == [near(-0.134471, 0.134471), near(0.134471, -0.134471)]
    assert info.model.fusion.get_parameter("classifier.weight").grad is None
    for joint in (0.0, 0.25, 1.0):
        passed, _ = DglBalancer(DglBalance(joint=joint)).adapt({"text": own}, batch, {})
        assert torch.equal(passed["text"], own)
        (gradient,) = torch.autograd.grad((passed["text"] + 0 * own).sum(), own)
        assert gradient.tolist() == [[joint, joint]] * 2


def test_mmpareto() -> None:
    balancer = MmParetoBalancer(MmParetoBalance())
    joint, own = [torch.tensor([1.0]), torch.tensor([0.0])], [torch.tensor([-1.0]), torch.tensor([1.0])]
    balancer.blend(joint, own)
    # Opposed (product -1, squared norms 1 and 2): weight of the joint one (2 + 1) / (1 + 2 + 2) = 0.6.
    # 1.2 (1, 0) + 0.8 (-1, 1) = (0.4, 0.8), of norm 0.894427; the plain sum (0, 1) has norm 1: times 1.118034 and 1.5.
    assert [x.item() for x in joint] == near(0.670820, 1.341641)
    joint, own = [torch.tensor([1.0]), torch.tensor([0.0])], [torch.tensor([1.0]), torch.tensor([1.0])]
    balancer.blend(joint, own)
    # Not opposed: the plain sum (2, 1), times 1.5.
    assert [x.item() for x in joint] == near(3.0, 1.5)


def test_mmparetos_losses_train_encoder_and_classifier_apart() -> None:
    balancer = MmParetoBalancer(MmParetoBalance(weight=2.0))
    info = started(balancer)
    own = torch.eye(2).requires_grad_()
    prediction, batch = predicted({"text": own, "audio": torch.zeros(2, 2)}), batch_of()
    totals = balancer.totals(batch, predicted)
    # As for DGL; audio's votes 0 0 | 0 0 cost ln 2.
    extra = balancer.extra_losses(prediction, batch, totals)["unimodal_loss"]
    assert extra.item() == pytest.approx(2 * (0.313262 + 0.693147), abs=1e-5)
    other = balancer.encoder_loss(prediction, batch, totals)
    assert other is not None
    assert other.item() == pytest.approx(extra.item())
    assert torch.autograd.grad(extra, [own], allow_unused=True)[0] is None
    assert (
        torch.autograd.grad(other, [info.model.fusion.get_parameter("classifier.weight")], allow_unused=True)[0] is None
    )


def test_agm() -> None:
    balancer = AgmBalancer(AgmBalance())
    started(balancer)
    # Cross-entropies: text 0.36698, audio (-ln 0.5 - ln 0.4) / 2 = 0.80472. There is no step before this one.
    assert coefficient(balancer) == [1.0, 1.0]
    found = {"scores": torch.ones(2), "counts": torch.full((2,), 2.0), "entropies": torch.tensor([0.4, 1.8])}
    # Before: r = exp(2 (0.58585 - S)) = 1.54922, 0.64548. Now S = 0.2, 0.9: r = exp(0.7), exp(-0.7) = 2.01375, 0.49659.
    # exp(1.54922 - 2.01375), exp(0.64548 - 0.49659)
    assert balancer.scales(found).metrics["coefficient"].tolist() == near(0.628429, 1.160555)
    # The running means of both steps: (0.36698 + 0.2) / 2, (0.80472 + 0.9) / 2.
    assert balancer.state()["means"].tolist() == near(0.283492, 0.852360)


def test_agm_skips_a_modality_that_a_batch_lacks() -> None:
    balancer = AgmBalancer(AgmBalance())
    started(balancer)
    coefficient(balancer)
    lacking = {"scores": torch.ones(2), "counts": torch.tensor([2.0, 0.0]), "entropies": torch.tensor([0.4, 0.0])}
    assert balancer.scales(lacking).metrics["coefficient"].tolist() == [1.0, 1.0]
    assert balancer.state()["means"].tolist() == near(0.283492, 0.804719)
    assert balancer.state()["steps"].tolist() == [2.0, 1.0]


def test_arl() -> None:
    balancer = ArlBalancer(ArlBalance(start_epoch=1))
    started(balancer)
    # Entropies: text (0.50040 + 0.67301) / 2 = 0.58671, audio (0.69315 + 0.67301) / 2 = 0.68308:
    # shares 0.46205, 0.53795; shares of their inverses 0.53795, 0.46205.
    # Mean of absolute votes: text (0.91629 + 0.71356) / 2 = 0.81493, audio
    # (0.69315 + 0.71356) / 2 = 0.70335: shares 0.53674, 0.46326.
    # 8 * 0.53795 * 0.46326 = 1.99368, 8 * 0.46205 * 0.53674 = 1.98400; softmax 0.50242, 0.49758.
    assert coefficient(balancer) == pytest.approx([1.50242, 1.49758], abs=1e-4)
    # -ln 0.8 - ln 0.6 - ln 0.5 - ln 0.4, over 2
    assert losses(balancer, predicted(), batch_of())["unimodal_loss"] == pytest.approx(0.36698 + 0.80472, abs=1e-5)


def test_spcl() -> None:
    balancer = SpclBalancer(SpclBalance(threshold=0.175, growth=1.1))
    weights = []
    for epoch in (1, 2, 3):
        started(balancer, epoch)
        found = balancer.row_weights(predicted(), batch_of())
        weights.append(None if found is None else found.tolist())
        balancer.scales(balancer.statistics(predicted(), batch_of()))
    # Two dialogues of one utterance: deviations (0.8 - 0.5) / 2 = 0.15 and 0.1. Losses: -ln 0.8 = 0.22314 and ln 2.
    # 2 * 0.15 * 0.22314 / 0.37314 = 0.17940, 2 * 0.1 * 0.69315 / 0.79315 = 0.17478; thresholds 0.175 and 0.1925.
    assert weights == [None, [0.0, 1.0], [1.0, 1.0]]


def test_spcls_imbalance_is_a_mean_over_a_dialogue() -> None:
    batch = batch_of(lengths=(2,))
    votes, everywhere = predicted().votes, torch.ones(2, 2, dtype=torch.bool)
    assert imbalances(votes, everywhere, batch).tolist() == near(0.125)  # (0.7 - 0.45) / 2
    lacking = torch.tensor([[True, True], [True, False]])
    assert imbalances(votes, lacking, batch).tolist() == near(0.1)  # (0.7 - 0.5) / 2
    assert imbalances(votes, torch.tensor([[True, True], [False, False]]), batch).tolist() == [0.0]


def test_pmr() -> None:
    balancer = PmrBalancer(PmrBalance())
    first: dict[Modality, Tensor] = {"text": torch.tensor([[0.0, 0.0], [2.0, 0.0]]), "audio": torch.ones(2, 2)}
    later: dict[Modality, Tensor] = {**first, "text": torch.tensor([[0.5, 0.0], [2.0, 0.0]])}
    started(balancer)
    assert losses(balancer, predicted(first), batch_of()) == {}
    balancer.scales(balancer.statistics(predicted(first), batch_of()))
    started(balancer, epoch=2, step=1)
    # Prototypes: text (0, 0) and (2, 0), audio twice (1, 1). Text's distances 0.5 1.5 | 2 0: chances of the true class
    # 1 / (1 + 1/e) = 0.73106, 1 / (1 + 1/e^2) = 0.88080; audio's 0.5, 0.5. Audio is slow by 1.61186 / 1 - 1 = 0.61186:
    # 0.6 * 0.61186 * ln 2. Text is fast by the same; entropies (0.58220 + 0.36533) / 2 = 0.47377.
    found = losses(balancer, predicted(later), batch_of())
    assert found["prototype_loss"] == pytest.approx(0.254466, abs=1e-5)
    assert found["prototype_entropy"] == pytest.approx(-0.01 * 0.61186 * 0.47377, abs=1e-6)
    balancer.scales(balancer.statistics(predicted(later), batch_of()))
    started(balancer, epoch=3, step=2)
    assert balancer.state()["prototypes"][0].tolist() == [
        [0.25, 0.0],
        [2.0, 0.0],
    ]  # half old, half new


def test_opms_rates() -> None:
    balancer = OpmBalancer(OpmBalance(rate=0.1, batches=1.0))
    started(balancer)
    assert balancer._rates(2).tolist() == near(0.1, 0.1)  # nothing is measured before the first step
    balancer.scales(balancer.statistics(predicted(), batch_of()))
    # Text leads by 1.55556: 0.4 (1 + 0.5 tanh 0.55556) = 0.4 * 1.252330 in addition.
    assert balancer._rates(2).tolist() == near(0.600932, 0.1)


def test_what_stays_is_drawn_among_what_is_present() -> None:
    present = torch.tensor([[True, True, True], [True, False, True]])
    numbers = torch.tensor([[0.3, 0.4, 0.3], [0.1, 0.9, 0.5]])
    # First utterance: both are below their rates 0.5 and 0.2; audio by less, so it stays. Second: text is all it has.
    found = keep(present, torch.tensor([0.5, 0.2]), numbers)
    assert found.tolist() == [[False, True, False], [True, False, True]]


def test_modality_dropout_leaves_no_utterance_without_any() -> None:
    rows = 4000
    batch = DialogueBatch(
        features={m: torch.zeros(rows, 1) for m in NAMES},
        present={"text": torch.ones(rows, dtype=torch.bool), "audio": torch.arange(rows) >= rows // 2},
        labels=torch.zeros(rows, dtype=torch.int64),
        speakers=torch.zeros(rows, dtype=torch.int64),
        layout=Layout((rows,), rows),
        global_utterances=rows,
        global_dialogues=1,
    )
    balancer = OpmBalancer(OpmBalance(rate=0.3, base=0.0))
    started(balancer)
    encoded: dict[Modality, Tensor] = {m: torch.ones(rows, 2) for m in NAMES}
    features, present = balancer.adapt(encoded, batch, dict(batch.present))
    text, audio = (features[m][:, 0] > 0 for m in NAMES)
    assert text[: rows // 2].all()  # text alone: nothing else could stay
    assert (text | audio).all()
    for m, own in zip(NAMES, (text, audio), strict=True):
        assert present[m] is not None
        assert torch.equal(cast("Tensor", present[m]), own)
        assert own[rows // 2 :].float().mean().item() == pytest.approx(0.7 + 0.09 / 2, abs=0.03)


def test_the_draws_of_an_utterance_do_not_depend_on_its_batch() -> None:
    balancer = OpmBalancer(OpmBalance(rate=0.3))
    started(balancer)
    whole, part = (
        DialogueBatch(
            features={m: torch.zeros(sum(lengths), 1) for m in NAMES},
            present={m: torch.ones(sum(lengths), dtype=torch.bool) for m in NAMES},
            labels=torch.zeros(sum(lengths), dtype=torch.int64),
            speakers=torch.zeros(sum(lengths), dtype=torch.int64),
            layout=Layout(lengths, 4),
            global_utterances=7,
            global_dialogues=2,
            dialogues=dialogues,
        )
        for lengths, dialogues in (((4, 3), (8, 5)), ((3,), (5,)))
    )
    assert torch.equal(balancer._numbers(whole, 2)[:, 4:], balancer._numbers(part, 2))
    before = balancer._numbers(part, 2)
    started(balancer, step=1)
    assert not torch.equal(before, balancer._numbers(part, 2))


def test_a_dataset_gives_its_alpha_to_ada2i_alone() -> None:
    def alpha(method: str) -> float:
        balance = resolve(preset="corrected", settings="meld", overrides={"balance.method": method}).balance
        return cast("float", balance.model_dump()["alpha"])

    assert [alpha(m) for m in ("ada2i", "ogm-ge", "agm")] == [0.42, 0.3, 1.0]
    config = resolve(preset="corrected", settings="meld", overrides={"balance.method": "ogm-ge"})
    assert isinstance(make_balancer(config), OgmGeBalancer)
    assert config.balance.model_dump()["acts_on"] == "update"
