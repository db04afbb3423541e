"""Live dialogues: turn by turn equals one batch, at constant cost; and what the preset `causal` may not see."""

import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from ada2i.batch import DialogueBatch, Layout
from ada2i.errors import ConfigError, DataError
from ada2i.model.ada2i import Ada2I, Prediction
from ada2i.model.build import build_model
from ada2i.model.inputs import Standardise
from ada2i.model.live import LiveDialogue
from ada2i.presets import resolve
from tests.unit.model.batches import CLASSES, SMALL, WIDTHS, make_batch

if TYPE_CHECKING:
    from collections.abc import Callable


def model(preset: str = "causal", **overrides: Any) -> Ada2I:
    torch.manual_seed(3)
    fields = {**SMALL, **{name.replace("__", "."): value for name, value in overrides.items()}}
    built = build_model(resolve(preset=preset, settings="default", overrides=fields), widths=WIDTHS, classes=CLASSES)
    for parameter in built.parameters():  # as initialised, attention is nearly dead and would hide mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    for norm in built.standardise.values():
        if isinstance(norm, Standardise):
            norm.set(torch.full_like(norm.mean, 0.2), torch.full_like(norm.mean, 1.5))
    return built.eval()


def dialogue(turns: int, speakers: int, *, missing: float = 0.3) -> DialogueBatch:
    """Return one dialogue whose vectors are missing at random."""
    random = torch.Generator().manual_seed(turns)
    batch = make_batch((turns,), seed=turns)
    present = {m: torch.rand(turns, generator=random) >= missing for m in WIDTHS}
    return replace(
        batch,
        features={m: x * present[m][:, None] for m, x in batch.features.items()},
        present=present,
        speakers=torch.randint(speakers, (turns,), generator=random),
    )


def turn(live: LiveDialogue, batch: DialogueBatch, at: int) -> Prediction:
    features = {m: x[at] if batch.present[m][at] else None for m, x in batch.features.items()}
    return live.turn(features, int(batch.speakers[at]))


def outputs(found: Prediction) -> Tensor:
    """Return all outputs, ``(N, (2 M + 2) C)``, over the scale of votes, which are cosines times 20."""
    rows = [found.logits, found.fused, *found.votes, *found.unimodal_logits]
    return torch.cat(rows, dim=1) / 20


def test_a_vector_too_large_to_predict_from_leaves_the_dialogue_as_before() -> None:
    live, plain = LiveDialogue(model()), LiveDialogue(model())
    batch = dialogue(4, 2, missing=0.0)
    for at in range(3):
        assert torch.equal(turn(live, batch, at).logits, turn(plain, batch, at).logits)
        width = WIDTHS["text"]
        large = torch.tensor([3e38, -3e38] * width)[:width]
        with pytest.raises(DataError, match="small enough for the model"):
            live.turn({"text": large}, 7)
        assert live.turns == at + 1
    assert torch.equal(turn(live, batch, 3).logits, turn(plain, batch, 3).logits)


def whole(network: Ada2I, batch: DialogueBatch) -> Tensor:
    with torch.no_grad():
        return outputs(network(batch))


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"model__afw__layers": 2, "model__encoder__decays": (1.5, 6.0)},
        {"model__mask_missing": False, "model__normalise": "none"},
        {"ablations__no_afw": True, "model__encoder__layers": 0},
        {"ablations__no_amw": True, "model__prediction": "mlp"},
        {"task": "regression"},
    ],
)
def test_turns_equal_one_batch(overrides: dict[str, Any]) -> None:
    network, batch = model(**overrides), dialogue(60, speakers=4)
    live = LiveDialogue(network)
    found = torch.cat([outputs(turn(live, batch, at)) for at in range(60)])
    torch.testing.assert_close(found, whole(network, batch), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_thousand_turns_equal_one_batch_in_constant_memory() -> None:
    turns = 2000
    network, batch = model(), dialogue(turns, speakers=5)
    live, found, held = LiveDialogue(network), [], []
    shapes = {name: tensor.shape for name, tensor in live.state().items()}
    tracemalloc.start()
    for at in range(turns):
        found.append(turn(live, batch, at).logits.softmax(dim=-1))
        if at in (999, turns - 1):
            found = [torch.cat(found)]
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert {name: tensor.shape for name, tensor in live.state().items()} == shapes
    assert held[1] - held[0] < 20_000  # bytes of Python objects, for a thousand turns more
    with torch.no_grad():
        wanted = network(batch).logits.softmax(dim=-1)
    apart = (found[0] - wanted).abs().amax(dim=1)
    assert apart.max() <= 1e-5
    assert apart[-200:].max() <= apart[:200].max() + 2e-6  # rounding does not add up


def test_the_state_goes_on_in_another_dialogue() -> None:
    network, batch = model(), dialogue(30, speakers=3)
    first, second = LiveDialogue(network), LiveDialogue(network)
    for at in range(20):
        turn(first, batch, at)
    kept = first.state()
    ends = [outputs(turn(first, batch, at)) for at in range(20, 30)]
    second.restore(kept)
    assert second.turns == 20
    for at in range(20, 30):
        assert torch.equal(outputs(turn(second, batch, at)), ends[at - 20])
    assert kept["turns"] == 20  # a copy


def test_one_more_speaker_than_are_held_takes_the_place_of_the_longest_silent() -> None:
    network, batch = model(), dialogue(8, speakers=1)
    batch = replace(batch, speakers=torch.tensor([7, 8, 7, 9, 7, 9, 8, 9]))
    live = LiveDialogue(network, speakers=2)
    found = torch.cat([outputs(turn(live, batch, at)) for at in range(8)])
    # 9 takes the place of 8, whose turns stay those of another speaker; when 8 comes back, it takes that of 7.
    renamed = replace(batch, speakers=torch.tensor([0, 1, 0, 2, 0, 2, 3, 2]))
    torch.testing.assert_close(found, whole(network, renamed), rtol=0, atol=1e-5)
    assert not torch.allclose(found[6], whole(network, batch)[6], atol=1e-3)


@pytest.mark.parametrize("turns", [6, 300])  # of more turns than 256 the sums are recurrences
def test_the_preset_sees_nothing_later(turns: int) -> None:
    network, batch = model(), dialogue(turns, speakers=3)
    cut = turns // 2
    later = torch.arange(turns) >= cut
    before = whole(network, batch)
    changes: list[Callable[[DialogueBatch], DialogueBatch]] = [
        lambda b: replace(b, features={m: torch.where(later[:, None], x + 5, x) for m, x in b.features.items()}),
        lambda b: replace(b, present={m: there ^ later for m, there in b.present.items()}),
        lambda b: replace(b, speakers=torch.where(later, (b.speakers + 1) % 3, b.speakers)),
        lambda b: replace(b, labels=torch.where(later, (b.labels + 1) % CLASSES, b.labels)),
    ]
    for change in changes:
        assert torch.equal(whole(network, change(batch))[:cut], before[:cut])
    seen = replace(
        batch,
        features={m: x[:cut] for m, x in batch.features.items()},
        present={m: there[:cut] for m, there in batch.present.items()},
        labels=batch.labels[:cut],
        speakers=batch.speakers[:cut],
        layout=Layout((cut,), cut),
    )
    torch.testing.assert_close(whole(network, seen), before[:cut], rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", ["default", "iemocap", "meld", "mosi", "demo"])
def test_the_preset_is_corrected_but_causal(settings: str) -> None:
    causal, offline = (resolve(preset=preset, settings=settings, overrides={}) for preset in ("causal", "corrected"))
    assert causal.model.encoder.causal
    assert causal.model.encoder.kind == "relational"
    if settings != "mosi":  # whose encoder is `context`
        encoder = offline.model.encoder.model_copy(update={"causal": True})
        same = {"model": offline.model.model_copy(update={"encoder": encoder}), "preset": "causal"}
        assert causal == offline.model_copy(update=same)


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("corrected", {}, "`model.encoder.causal` of this one is false"),
        ("corrected", {"model__encoder__kind": "context", "model__encoder__causal": True}, "needs all earlier"),
        ("paper", {"model__encoder__causal": True}, "needs all earlier"),
        ("reference", {"model__encoder__kind": "lstm"}, "needs all earlier"),
    ],
)
def test_refuses_models_without_a_state_of_constant_size(preset: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LiveDialogue(model(preset, **overrides))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"smell": torch.zeros(3)}, "name 'smell'"),
        ({"text": torch.zeros(11)}, r"text must have 10 finite values, but has the shape \(11,\)"),
        ({"text": torch.full((10,), torch.nan)}, "values that are not finite"),
    ],
)
def test_a_refused_turn_changes_nothing(features: dict[Any, Tensor], message: str) -> None:
    live = LiveDialogue(model())
    live.turn({"text": torch.ones(10)}, 0)
    before = live.state()
    with pytest.raises(DataError, match=message):
        live.turn(features, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in live.state().items())


def test_refuses_the_state_of_another_model() -> None:
    live, state = LiveDialogue(model()), LiveDialogue(model()).state()
    with pytest.raises(DataError, match=r"`past\.0` differs"):
        live.restore(LiveDialogue(model(), speakers=3).state())
    with pytest.raises(DataError, match=r"`weighting\.1` differs"):
        live.restore(LiveDialogue(model(model__afw__layers=2)).state())
    with pytest.raises(DataError, match="`dialogue` of a live dialogue's state must be finite"):
        live.restore({**state, "dialogue": torch.full_like(state["dialogue"], torch.inf)})
