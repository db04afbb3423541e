"""Search spaces: defaults, files, `--vary`, and the check that each of their configs is valid."""

import json
import random
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ada2i import presets
from ada2i.config import ResourceConfig, TrainConfig
from ada2i.errors import ConfigError, NotFoundError
from ada2i.search.records import Dimension, LogUniform, Params, Space, Uniform, Value, Whole
from ada2i.training.request import check_teachers

_TRIED = 300  # random configs that are checked, in addition to those at the bounds

# For every preset; `corrected` and `causal` have more parts with numbers worth varying.
_PLAIN: Mapping[str, Dimension] = {
    "training.learning_rate": LogUniform(low=5e-5, high=2e-3),
    "training.batch_dialogues": Whole(low=4, high=48),
    "model.encoder.dropout": Uniform(low=0.1, high=0.7),
    "model.afw.dropout": Uniform(low=0.0, high=0.6),
}
_CORRECTED: Mapping[str, Dimension] = {
    **_PLAIN,
    "model.encoder.input_dropout": Uniform(low=0.2, high=0.85),
    "model.encoder.inertia": Uniform(low=0.0, high=0.8),
    "model.encoder.dialogue_decay": LogUniform(low=5.0, high=50.0),
    "model.amw.scale": LogUniform(low=5.0, high=60.0),
    "loss.class_balance": Uniform(low=0.0, high=1.0),
}

# In addition, by balance method.
_BALANCE: Mapping[str, Mapping[str, Dimension]] = {
    "none": {},
    "ada2i": {"alpha": Uniform(low=0.0, high=1.0)},
    "ogm-ge": {"alpha": Uniform(low=0.0, high=1.0)},
    "unimodal": {"weight": Uniform(low=0.0, high=1.5)},
    "tcmax": {"weight": Uniform(low=0.0, high=1.0)},
    "dgl": {"weight": LogUniform(low=0.2, high=4.0), "joint": Uniform(low=0.0, high=1.0)},
    "mmpareto": {"weight": LogUniform(low=0.2, high=4.0), "alpha": Uniform(low=0.5, high=3.0)},
    "agm": {"alpha": Uniform(low=0.0, high=3.0), "largest": Uniform(low=1.0, high=4.0)},
    "arl": {
        "weight": Uniform(low=0.0, high=4.0),
        "strength": Uniform(low=0.0, high=2.0),
        "temperature": LogUniform(low=1.0, high=16.0),
    },
    "spcl": {"threshold": Uniform(low=0.05, high=0.75), "growth": Uniform(low=1.05, high=1.85)},
    "pmr": {"alpha": Uniform(low=0.0, high=2.0), "momentum": Uniform(low=0.0, high=0.9)},
    "umt": {},  # refused: a search has no teachers
    "opm": {"rate": Uniform(low=0.0, high=0.4), "base": Uniform(low=0.0, high=0.6)},
}

# Fields that must be equal in everything that a search trains.
_SHARED: Mapping[str, str] = {
    "training.seeds": "trials and finals have seeds of their own",
    "training.epochs": "trials are compared epoch by epoch; set it with `--epochs`",
    "model.modalities": "the modalities decide what is compared; set them with `--modalities`",
    **{f"resources.{name}": "resources do not change results" for name in ResourceConfig.model_fields},
}

_RANGES: Mapping[str, Callable[[str], float]] = {"uniform": float, "loguniform": float, "int": int}


def default_space(config: TrainConfig, fixed: Collection[str]) -> Space:
    """Return the default space of a config: what its encoder and balance method read, except ``fixed`` fields."""
    method = "none" if config.ablations.no_modulation else config.balance.method
    own = {f"balance.{name}": kind for name, kind in _BALANCE.get(method, {}).items()}
    whole = {**(_CORRECTED if config.preset in presets.CORRECTED else _PLAIN), **own}
    kind = config.model.encoder.kind
    unread = () if config.model.fusion == "ada2i" else ("model.amw.scale",)
    taken = {*presets.written_out(dict.fromkeys(fixed)), *unread}
    return _space({f: found for f, found in whole.items() if f not in taken and presets.is_read(f, kind)})


def read_space(path: Path) -> dict[str, Any]:
    """Return the unchecked content of a search-space file.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It is neither JSON nor TOML.
    """
    readers: Mapping[str, Callable[[str], Any]] = {".json": json.loads, ".toml": tomllib.loads}
    if path.suffix not in readers:
        raise ConfigError(f"`--space` must name a .json or .toml file, but is {path}. Rename it.", field="space")
    try:
        found = readers[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise NotFoundError(f"{path} must be a file with a search space, but: {problem.strerror}.") from problem
    except ValueError as problem:  # from both parsers, and for bytes that are not UTF-8
        raise ConfigError(
            f"{path} must be {path.suffix[1:].upper()}, but: {problem}. Correct it.", field="space"
        ) from problem
    if not isinstance(found, dict):
        raise ConfigError(
            f"{path} must hold one object, by config field, but holds {found!r}. Correct it.", field="space"
        )
    return found


def given_space(tree: Mapping[str, Any], vary: Sequence[str]) -> Space | None:
    """Return the space that a file and `--vary` describe; None if they describe no space.

    Args:
        tree: Maps config fields, dotted or nested, to objects such as ``{"kind": "uniform", "low": 0, "high": 1}``.
        vary: ``FIELD=V1,V2`` or ``FIELD=KIND:LOW:HIGH``; these replace the file's.

    Raises:
        ConfigError: One of them is wrong; the message lists all mistakes.
    """
    fields = presets.written_out(dict(_flat(tree)) | dict(map(_parse, vary)))
    return _space(fields) if fields else None


def check_space(space: Space, *, preset: str, settings: str, overrides: Mapping[str, Any]) -> None:
    """Check that the configs of a space are valid: those at its bounds, and many in between.

    Raises:
        ConfigError: A config is invalid, or a field may not be varied; the message lists all mistakes.
    """
    mistakes = [f"`{field}` cannot be varied: {_SHARED[field]}" for field in space.fields if field in _SHARED]
    twice = [field for field in space.fields if field in overrides]
    mistakes += [f"`{field}` is varied, but has a value already: leave one out" for field in twice]
    if mistakes:
        raise _mistaken(mistakes)
    for params in _samples(space):
        check_teachers(presets.resolve(preset=preset, settings=settings, overrides={**overrides, **params}), ())


def params_of(config: TrainConfig, space: Space) -> Params:
    """Return a config's values of the fields of a space; `default` for an option that is not set."""
    return {field: _at(config, field) for field in space.fields}


def _at(config: object, field: str) -> Value:
    for name in field.split("."):
        config = config.get(name, "default") if isinstance(config, dict) else getattr(config, name)
    assert isinstance(config, bool | int | float | str)  # it was drawn from a space
    return config


def _space(fields: Mapping[str, Any]) -> Space:
    try:
        return Space.model_validate({"fields": fields})
    except ValidationError as problem:
        lines = presets.explain(problem)
        shown = [line.replace("`fields.", "`").replace("`fields`", "`space`") for line in lines]
        raise _mistaken(shown) from problem


def _mistaken(mistakes: Sequence[str]) -> ConfigError:
    lines = "\n".join(f"  - {mistake}" for mistake in mistakes)
    return ConfigError(f"The search space has mistakes:\n{lines}", field="space")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted fields; an object with a ``kind`` belongs to a field, any other object is nested."""
    for name, value in tree.items():
        if isinstance(value, dict) and "kind" not in value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _parse(text: str) -> tuple[str, Any]:
    field, equals, wanted = text.partition("=")
    kind, *ends = wanted.split(":")
    if not equals or not field or not wanted or (kind in _RANGES and len(ends) != 2):
        raise ConfigError(
            f"`--vary` takes FIELD=V1,V2 or FIELD=KIND:LOW:HIGH with a KIND of {', '.join(_RANGES)}, but got {text!r}. "
            "Write for example `--vary training.learning_rate=loguniform:1e-4:1e-3`.",
            field="vary",
        )
    if kind in _RANGES:
        return field.strip(), {"kind": kind, "low": ends[0], "high": ends[1]}
    return field.strip(), {"kind": "choice", "values": [presets.parse_override(f"_={v}")[1] for v in wanted.split(",")]}


def _samples(space: Space) -> Iterator[Params]:
    """Yield configs: each bound with the first bounds of the other fields, then random ones."""
    first: Params = {field: kind.ends[0] for field, kind in space.fields.items()}
    for field, kind in space.fields.items():
        yield from ({**first, field: end} for end in kind.ends)
    chance = random.Random(0)
    for _ in range(_TRIED):
        yield {field: _draw(kind, chance) for field, kind in space.fields.items()}


def _draw(kind: Dimension, chance: random.Random) -> Value:
    if isinstance(kind, Whole):
        return chance.randint(kind.low, kind.high)
    if isinstance(kind, Uniform | LogUniform):
        return chance.choice([kind.low, kind.high, chance.uniform(kind.low, kind.high)])
    return chance.choice(kind.values)
