"""What may be varied, how it is written, and what is refused before any work."""

import json
from pathlib import Path

import pytest

from ada2i import presets
from ada2i.config import BALANCE_METHODS
from ada2i.errors import ConfigError, NotFoundError
from ada2i.search.records import Choice, LogUniform, Space, Uniform, Whole
from ada2i.search.space import check_space, default_space, given_space, params_of, read_space

RATE = "training.learning_rate"


def check(space: Space, preset: str = "corrected", settings: str = "demo") -> None:
    check_space(space, preset=preset, settings=settings, overrides={})


@pytest.mark.parametrize("preset", list(presets.PRESETS))
@pytest.mark.parametrize("settings", list(presets.SETTINGS))
def test_every_default_space_resolves(preset: str, settings: str) -> None:
    config = presets.resolve(preset=preset, settings=settings, overrides={})
    space = default_space(config, ())
    check(space, preset, settings)
    assert set(params_of(config, space)) == set(space.fields)


@pytest.mark.parametrize("method", sorted({*BALANCE_METHODS} - {"umt"}))  # which needs teachers
def test_every_methods_space_resolves(method: str) -> None:
    chosen = {"balance.method": method}
    config = presets.resolve(preset="corrected", settings="meld", overrides=chosen)
    space = default_space(config, chosen)
    check_space(space, preset="corrected", settings="meld", overrides=chosen)
    assert set(params_of(config, space)) == set(space.fields)
    own = {field for field in space.fields if field.startswith("balance.")}
    assert bool(own) == (method != "none")


def test_the_default_space_leaves_alone_what_is_given() -> None:
    config = presets.resolve(preset="corrected", settings="meld", overrides={})
    assert RATE in default_space(config, ()).fields
    assert RATE not in default_space(config, {RATE}).fields


@pytest.mark.parametrize(
    ("kind", "read", "unread"),
    [
        ("relational", "model.encoder.dialogue_decay", "model.encoder.inertia"),
        ("context", "model.encoder.inertia", "model.encoder.dialogue_decay"),
        ("lstm", "model.encoder.dropout", "model.encoder.input_dropout"),
    ],
)
def test_the_default_space_varies_what_the_encoder_reads(kind: str, read: str, unread: str) -> None:
    config = presets.resolve(preset="corrected", settings="mosi", overrides={"model.encoder.kind": kind})
    fields = default_space(config, ()).fields
    assert read in fields
    assert unread not in fields


def test_vary_and_file_say_the_same(tmp_path: Path) -> None:
    toml = tmp_path / "space.toml"
    toml.write_text(
        '"training.learning_rate" = {kind = "loguniform", low = 1e-4, high = 1e-3}\n'
        '[model.encoder]\ndropout = {kind = "uniform", low = 0.1, high = 0.5}\n'
        '[training.batch_dialogues]\nkind = "int"\nlow = 4\nhigh = 8\n'
    )
    given = given_space(read_space(toml), ["model.amw.scale=5,10.5", "balance.ratio=linear,votes"])
    assert given == Space(
        fields={
            RATE: LogUniform(low=1e-4, high=1e-3),
            "model.encoder.dropout": Uniform(low=0.1, high=0.5),
            "training.batch_dialogues": Whole(low=4, high=8),
            "model.amw.scale": Choice(values=(5, 10.5)),
            "balance.ratio": Choice(values=("linear", "votes")),
        }
    )
    again = tmp_path / "space.json"
    again.write_text(json.dumps({name: kind.model_dump() for name, kind in given.fields.items()}))
    assert given_space(read_space(again), ()) == given
    assert given_space(read_space(again), [f"{RATE}=uniform:0.001:0.002"]).fields[RATE] == Uniform(  # type: ignore[union-attr]
        low=0.001, high=0.002
    )
    assert given_space({}, ()) is None


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["training.learning_rate"], "`--vary` takes FIELD=V1,V2 or FIELD=KIND:LOW:HIGH"),
        (["training.learning_rate=uniform:1"], "`--vary` takes FIELD=V1,V2 or FIELD=KIND:LOW:HIGH"),
        ([f"{RATE}=uniform:2:1"], "`low` must be less than `high`, but they are 2 and 1"),
        ([f"{RATE}=loguniform:0:1"], r"`training\.learning_rate\.loguniform\.low`: .* greater than 0"),
        (["training.batch_dialogues=int:1.5:4"], r"`training\.batch_dialogues\.int\.low`: .* valid integer"),
        (["model.amw.scale=5"], r"`model\.amw\.scale\.choice\.values`: .* at least 2 items"),
        (["model.amw.scale=5,5"], "`values` must differ from one another"),
    ],
)
def test_what_is_no_space(vary: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        given_space({}, vary)


def test_all_mistakes_are_named_at_once() -> None:
    tree = {RATE: {"kind": "uniform", "low": 2, "high": 1}, "model.amw.scale": {"kind": "wide"}, "x": {"low": 1}}
    with pytest.raises(ConfigError, match="The search space has mistakes") as raised:
        given_space(tree, ())
    assert [name in raised.value.message for name in (RATE, "model.amw.scale", "x")] == [True] * 3
    with pytest.raises(ConfigError, match=r"`training\.learning_rate\.uniform\.step`: Extra inputs are not permitted"):
        given_space({RATE: {"kind": "uniform", "low": 1, "high": 2, "step": 1}}, ())


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("training.learning_rat=uniform:0.1:1", r"`training\.learning_rat` is not a config field; did you mean"),
        ("model.encoder.dropout=uniform:0.1:1.5", r"`model\.encoder\.dropout`: Input should be less than 1"),
        ("training.batch_dialogues=uniform:4:8", r"`training\.batch_dialogues`: .* valid integer"),
        ("model.encoder.kind=context,gru", r"`model\.encoder\.kind`: .*'gru'"),
        (
            "model.encoder.attend_to_padding=false,true",
            "need `encoder.attend_to_padding` and `afw.average_padding` false",
        ),
        ("training.seeds=1,2", "`training.seeds` cannot be varied: trials and finals have seeds of their own"),
        ("training.epochs=int:1:4", "`training.epochs` cannot be varied: trials are compared epoch by epoch"),
        ("resources.workers=int:1:4", "`resources.workers` cannot be varied"),
    ],
)
def test_every_config_must_resolve(vary: str, message: str) -> None:
    space = given_space({}, [vary])
    assert space is not None
    with pytest.raises(ConfigError, match=message):
        check(space)


def test_a_field_is_varied_or_given() -> None:
    space = Space(fields={RATE: Uniform(low=0.1, high=0.2)})
    with pytest.raises(ConfigError, match=f"`{RATE}` is varied, but has a value already"):
        check_space(space, preset="corrected", settings="demo", overrides={RATE: 0.1})


def test_files_that_hold_no_space(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="must be a file with a search space"):
        read_space(tmp_path / "none.json")
    with pytest.raises(ConfigError, match=r"must name a \.json or \.toml file"):
        read_space(tmp_path / "space.yaml")
    for name, text, message in (
        ("a.json", "{", "must be JSON, but"),
        ("a.toml", "[", "must be TOML, but"),
        ("b.json", "[]", "must hold one object"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_space(tmp_path / name)


def test_options_and_names_of_own_classes_are_varied() -> None:
    own = {"model.fusion": "lab:Mine"}
    config = presets.resolve(preset="corrected", settings="demo", overrides=own)
    space = given_space({}, ["model.fusion_options.size=int:4:16", "model.encoder=relational,lab:Mine"])
    assert space is not None
    check_space(space, preset="corrected", settings="demo", overrides=own)
    assert params_of(config, space) == {"model.fusion_options.size": "default", "model.encoder.kind": "relational"}
    chosen = presets.resolve(preset="corrected", settings="demo", overrides={**own, "model.fusion_options.size": 4})
    assert params_of(chosen, space)["model.fusion_options.size"] == 4


def test_the_default_space_of_own_classes_has_no_field_that_they_do_not_read() -> None:
    own = {"model.fusion": "lab:Mine", "model.encoder": "lab:Mine", "balance.method": "lab:Mine"}
    fields = default_space(presets.resolve(preset="corrected", settings="demo", overrides=own), own).fields
    assert not {"model.amw.scale", "model.encoder.dialogue_decay", "model.encoder.inertia"} & fields.keys()
    assert {"model.encoder.dropout", "training.learning_rate"} <= fields.keys()
