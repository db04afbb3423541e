"""The published numbers, and configs resolved from them."""

from typing import Any

import pytest

from ada2i import presets
from ada2i.config import BALANCE_METHODS, OWN, Ada2IBalance, TrainConfig
from ada2i.errors import ConfigError
from ada2i.presets import PRESETS, field_names, parse_modalities, parse_override, resolve, settings_for

# Paper, section 4, and the released training script where the two differ: H, r, alpha, beta, rate, batch, epochs.
PUBLISHED = {
    "iemocap": (300, 11, 0.037, 0.012, 1.7e-4, 10, 50),
    "meld": (200, 6, 0.42, 0.55, 1.3e-4, 10, 50),
    "mosei": (500, 10, 0.4, 0.2, 1.9e-4, 32, 30),
}


def reference(**overrides: Any) -> TrainConfig:
    return resolve(preset="reference", settings="iemocap", overrides=overrides)


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_published_settings(dataset: str) -> None:
    config = resolve(preset="reference", settings=dataset, overrides={})
    model, training = config.model, config.training
    assert (
        model.hidden_dim,
        model.afw.rank,
        alpha_of(config),
        model.afw.beta,
        training.learning_rate,
        training.batch_dialogues,
        training.epochs,
    ) == PUBLISHED[dataset]


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_what_the_released_code_does_for_every_dataset(dataset: str) -> None:
    config = resolve(preset="reference", settings=dataset, overrides={})
    encoder, afw, training = config.model.encoder, config.model.afw, config.training
    assert (encoder.kind, encoder.layers, encoder.feedforward_dim, encoder.dropout) == ("transformer", 2, 2048, 0.5)
    assert (afw.layers, afw.dropout) == (2, 0.5)
    assert encoder.attend_to_padding
    assert afw.average_padding
    assert (training.weight_decay, training.clip_norm) == (1e-8, 2.0)
    assert (training.plateau_factor, training.plateau_epochs, training.early_stopping_epochs) == (0.1, 10, 20)
    assert training.seeds == (12,)
    assert isinstance(config.balance, Ada2IBalance)
    assert (config.balance.start_epoch, config.balance.noise) == (4, True)
    assert config.model.modalities == ("text", "audio", "visual")


def alpha_of(config: TrainConfig) -> float:
    assert isinstance(config.balance, Ada2IBalance)
    return config.balance.alpha


def test_overrides_come_last() -> None:
    config = reference(**{"model.hidden_dim": 7, "training.seeds": [3, 4], "ablations.no_afw": True})
    assert (config.model.hidden_dim, config.training.seeds, config.ablations.no_afw) == (7, (3, 4), True)
    assert config.model.afw.rank == 11


def test_every_field_can_be_named() -> None:
    names = list(field_names(TrainConfig))
    assert len(names) == len(set(names))
    # Left out by default.
    missing = set(names) - {"balance.options", "model.encoder.options", "model.fusion_options", "task"}
    missing -= {"loss.distillation", "loss.distillation_temperature"}
    for method in BALANCE_METHODS:
        dumped = reference(**{"balance.method": method}).model_dump()
        for name in names:
            value: Any = dumped
            for part in name.split("."):
                value = value.get(part, {})
            missing -= {name} if not isinstance(value, dict) else set()
    assert not missing


def test_all_mistakes_at_once() -> None:
    with pytest.raises(ConfigError, match="The config has mistakes") as caught:
        reference(**{"training.epoch": 3, "model.hidden_dim": 0, "model.encoder.dropout": 2, "qwzx": 1})
    lines = caught.value.message.splitlines()[1:]
    assert len(lines) == 4
    assert "`training.epoch` is not a config field; did you mean `training.epochs`?" in lines[0]
    assert "`qwzx` is not a config field; `ada2i config` lists the fields." in lines[1]
    assert "`model.hidden_dim`" in lines[2]
    assert "found 0" in lines[2]
    assert "`model.encoder.dropout`" in lines[3]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            {"training.seeds": [1, 1]},
            "`training.seeds`: Seeds must be different integers from 0 to 2**32 - 1, the most that torch takes, "
            "but found [1, 1]",
        ),
        (
            {"training.seeds": [5, 5 + 2**32]},  # torch starts with the same weights from both
            "`training.seeds`: Seeds must be different integers from 0 to 2**32 - 1, the most that torch takes, "
            f"but found [5, {5 + 2**32}]",
        ),
        (
            {"model.encoder.kind": "lstm", "model.hidden_dim": 5},
            "`model`: `hidden_dim` must be even for LSTM encoders (two directions), but is 5",
        ),
    ],
)
def test_our_own_checks_read_like_the_rest(overrides: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match="The config has mistakes") as caught:
        reference(**overrides)
    assert caught.value.message.splitlines()[1:] == [f"  - {line}"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"balance.method": "cggm"}, f"`balance`: `method` must be one of {', '.join(BALANCE_METHODS)}, or {OWN}"),
        (
            {"balance.method": "none", "balance.alpha": 1},
            "`balance.alpha`: the balance method `none` has ratio; choose another with `balance.method`",
        ),
        ({"balance.alpha": -1}, "`balance.alpha`: Input should be greater than or equal to 0, but found -1"),
    ],
)
def test_mistakes_in_balancing_name_the_field_alone(overrides: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match="The config has mistakes") as caught:
        reference(**overrides)
    assert caught.value.message.splitlines()[1:] == [f"  - {line}"]


@pytest.mark.parametrize("preset", PRESETS)
def test_another_method_does_without_the_numbers_of_the_preset(preset: str) -> None:
    config = resolve(preset=preset, settings="meld", overrides={"balance.method": "none"})
    assert config.balance.method == "none"
    assert config.balance.ratio == ("linear" if preset == "reference" else "votes")


@pytest.mark.parametrize("field", ["preset", "settings", "schema_version"])
def test_what_a_config_says_of_its_origin_cannot_be_overridden(field: str) -> None:
    with pytest.raises(ConfigError, match=f"`{field}` is not a config field"):
        reference(**{field: "meld"})


def test_a_group_of_fields_is_no_field() -> None:
    with pytest.raises(ConfigError, match=r"`model\.afw` is not a config field"):
        reference(**{"model.afw": {"rank": 1}})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"preset": "refrence", "settings": "meld"}, "`preset` must be one of reference.* but is 'refrence'"),
        ({"preset": "reference", "settings": "mell"}, "`settings` must be one of iemocap, meld, mosei.* but is 'mell'"),
    ],
)
def test_unknown_names(names: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(preset=names["preset"], settings=names["settings"], overrides={})


@pytest.mark.parametrize(
    ("dataset", "settings"),
    [
        ("meld", "meld"),
        ("MELD", "meld"),
        ("cmu-mosei", "mosei"),
        ("iemocap_6way", "iemocap"),
        ("IEMOCAP.v2", "iemocap"),
        ("synthetic-demo", "demo"),
        ("synthetic-recordings", "default"),
        ("mosi", "mosi"),
        ("cmu-mosi", "mosi"),
        ("dailydialog", "default"),
        ("melding", "default"),
        ("", "default"),
    ],
)
def test_settings_for_a_dataset(dataset: str, settings: str) -> None:
    assert settings_for(dataset) == settings


def test_letters_keep_their_order() -> None:
    assert parse_modalities("vt") == ("visual", "text")


@pytest.mark.parametrize("letters", ["", "x", "tt", "tavt", "T", "t,a"])
def test_bad_letters(letters: str) -> None:
    with pytest.raises(ConfigError, match="combination of the letters t"):
        parse_modalities(letters)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("training.epochs=5", ("training.epochs", 5)),
        ("training.seeds=[1,2]", ("training.seeds", [1, 2])),
        ("balance.noise=false", ("balance.noise", False)),
        ("model.encoder.kind=lstm", ("model.encoder.kind", "lstm")),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_override(text: str, parsed: tuple[str, Any]) -> None:
    assert parse_override(text) == parsed


@pytest.mark.parametrize("text", ["training.epochs", "=5", ""])
def test_override_without_a_value(text: str) -> None:
    with pytest.raises(ConfigError, match="takes FIELD=VALUE"):
        parse_override(text)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("iemocap", {"beta": 0.01, "alpha": 0.037, "rate": 1.7e-4, "key_dim": 11}),
        ("meld", {"beta": 0.55, "alpha": 0.4, "rate": 1.2e-4, "key_dim": 6}),
        ("mosei", {"beta": 0.2, "alpha": 0.4, "rate": 1.9e-4, "key_dim": 10}),
    ],
)
def test_the_papers_own_numbers(settings: str, expected: dict[str, float]) -> None:
    config = resolve(preset="paper", settings=settings, overrides={})
    found = {"beta": config.model.afw.beta, "alpha": alpha_of(config), "rate": config.training.learning_rate}
    assert {**found, "key_dim": config.model.afw.key_dim} == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.encoder.causal": True}, "need `encoder.attend_to_padding` and `afw.average_padding` false"),
        ({"model.mask_missing": True}, "need `encoder.attend_to_padding` and `afw.average_padding` false"),
        ({"model.encoder.positions": True}, "need `encoder.kind=context`"),
    ],
)
def test_knobs_that_exclude_each_other(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(preset="reference", settings="default", overrides=overrides)


@pytest.mark.parametrize("value", ["[" * 100_000, '{"a":' * 100_000, "9" * 5_000, f"[{'9' * 5_000}]"])
def test_json_that_python_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises(
        ConfigError, match=r"`training\.epochs` must be a value of the config, but is JSON that"
    ) as caught:
        parse_override(f"training.epochs={value}")
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("dialogues", "utterances", "width", "expected"),
    [
        (55, 1266, 384, (6, 40, 0.7)),  # 127 utterances a batch: 10 batches
        (7, 70, 20, (1, 58, 0.5)),  # a batch is one dialogue, and 400 steps are 58 epochs
        (1, 900, 100, (1, 100, 0.5)),
        (5000, 50_000, 768, (30, 40, 0.7)),
    ],
)
def test_a_dataset_without_published_numbers_is_trained_by_its_size(
    dialogues: int, utterances: int, width: int, expected: tuple[int, int, float]
) -> None:
    found = presets.sized("corrected", "default", dialogues=dialogues, utterances=utterances, width=width)
    assert tuple(found.values()) == expected
    config = presets.resolve(preset="corrected", settings="default", overrides=found)
    assert (config.training.batch_dialogues, config.training.epochs) == expected[:2]


@pytest.mark.parametrize(("preset", "settings"), [("reference", "default"), ("corrected", "meld"), ("paper", "demo")])
def test_published_numbers_do_not_depend_on_the_size(preset: str, settings: str) -> None:
    assert presets.sized(preset, settings, dialogues=7, utterances=70, width=20) == {}


@pytest.mark.parametrize(("field", "method"), [("alpha", None), ("weight", "ada2i"), ("rate", "none")])
def test_a_field_of_another_balance_method_is_explained(field: str, method: str | None) -> None:
    overrides = {f"balance.{field}": 0.1} | ({"balance.method": method} if method else {})
    with pytest.raises(ConfigError) as caught:
        resolve(preset="corrected", settings="meld", overrides=overrides)
    message = str(caught.value)
    assert f"`balance.{field}`: the balance method `{method or 'unimodal'}` has" in message
    assert "choose another with `balance.method`" in message


@pytest.mark.parametrize("settings", ["default", "mosi", "iemocap"])
@pytest.mark.parametrize("kind", ["lstm", "transformer", "context", "relational"])
def test_another_encoder_needs_no_other_field(settings: str, kind: str) -> None:
    sizes = presets.sized("corrected", settings, dialogues=50, utterances=500, width=384)
    config = resolve(preset="corrected", settings=settings, overrides={"model.encoder.kind": kind}, sizes=sizes)
    assert config.model.encoder.kind == kind
    assert bool(config.model.encoder.input_dropout) == (kind in ("context", "relational"))
