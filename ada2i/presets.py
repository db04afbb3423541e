"""Presets, published settings, and how a config is built from them.

Settings are the numbers published for a dataset; a preset chooses a version of Ada2I; overrides come last. Sources: the
paper (arXiv 2408.12895, section 4) and the released training script, which `reference` follows if the two differ.
"""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ada2i.config import BALANCE_METHODS, OWN, OwnBalance, TrainConfig
from ada2i.display import similar
from ada2i.errors import ConfigError
from ada2i.modalities import LETTERS, Modality

Fields = Mapping[str, Any]

# By preset: dotted fields that differ from the config models' defaults; settings are applied after them.
_FIXED: dict[str, Any] = {
    "model.encoder.attend_to_padding": False,
    "model.afw.average_padding": False,
    "model.afw.order": "cyclic",
    "model.afw.target": "attention",
    "model.amw.normalise": "hidden",
    "model.amw.bias": False,
    "balance.ratio": "votes",
    "balance.acts_on": "update",
}
_CORRECTED: Mapping[str, Any] = {
    **_FIXED,
    "model.encoder.kind": "relational",
    "model.encoder.layers": 1,
    "model.encoder.feedforward_dim": 256,
    "model.encoder.dropout": 0.5,
    "model.encoder.input_dropout": 0.7,
    "model.normalise": "train",
    "model.mask_missing": True,
    "model.train_fitted": "leave-out",
    "model.afw.layers": 1,
    "model.afw.beta": 1.0,
    "model.afw.dropout": 0.2,
    "model.afw.normalise": True,
    "model.afw.quiet_start": True,
    "model.amw.scale": 20.0,
    "model.amw.weights": "held-out",
    "loss.class_balance": 0.3,
    "balance.method": "unimodal",
    "balance.noise": False,
    "training.learning_rate": 3e-4,
    "training.epochs": 40,
    "training.selection": "last",
    "training.schedule": "cosine",
}
PRESETS: Mapping[str, Fields] = {
    "reference": {},
    "paper": {**_FIXED, "model.prediction": "mlp", "loss.modal": 1.0},
    "corrected": _CORRECTED,
    "causal": {**_CORRECTED, "model.encoder.causal": True},  # for live dialogues
}
CORRECTED = ("corrected", "causal")  # the presets with these equations

# Numbers in which the paper differs from the released script.
_PAPER_NUMBERS: Mapping[str, Fields] = {
    "iemocap": {"model.afw.beta": 0.01},
    "meld": {"balance.alpha": 0.4, "training.learning_rate": 1.2e-4},
}


_CORRECTED_NUMBERS: Mapping[str, Fields] = {
    "iemocap": {"model.hidden_dim": 200, "model.afw.rank": 6, "balance.alpha": 0.4},
    # One person speaks in a video, so there are no relations between speakers: attention is better on folds of train.
    # A smaller scale of the votes is a little better there, too.
    "mosi": {
        "model.amw.scale": 10.0,
        "model.encoder.kind": "context",
        "model.encoder.input_dropout": 0.5,
        "model.encoder.inertia": 0.4,
        "model.encoder.positions": True,
        "training.epochs": 20,
    },
    # About 300 utterances per batch, as for other datasets: MELD's dialogues are a fifth as long as IEMOCAP's.
    "meld": {"training.batch_dialogues": 32},
    "demo": {"training.learning_rate": 1e-3, "model.encoder.input_dropout": 0.5},  # its vectors are narrow
}


# A live dialogue needs an encoder with a state of constant size.
_CAUSAL_NUMBERS: Mapping[str, Fields] = {**_CORRECTED_NUMBERS, "mosi": {}}


def _numbers(
    *, hidden: int, rank: int, alpha: float, beta: float, rate: float, batch: int, epochs: int
) -> dict[str, Any]:
    return {
        "model.hidden_dim": hidden,
        "model.afw.rank": rank,
        "model.afw.beta": beta,
        "balance.alpha": alpha,
        "training.learning_rate": rate,
        "training.batch_dialogues": batch,
        "training.epochs": epochs,
    }


SETTINGS: Mapping[str, Fields] = {
    "iemocap": _numbers(hidden=300, rank=11, alpha=0.037, beta=0.012, rate=1.7e-4, batch=10, epochs=50),
    "meld": _numbers(hidden=200, rank=6, alpha=0.42, beta=0.55, rate=1.3e-4, batch=10, epochs=50),
    "mosei": _numbers(hidden=500, rank=10, alpha=0.4, beta=0.2, rate=1.9e-4, batch=32, epochs=30),
    # Chosen by this project, for datasets without published numbers.
    "mosi": _numbers(hidden=200, rank=6, alpha=0.4, beta=0.5, rate=2e-4, batch=10, epochs=30),
    "default": _numbers(hidden=200, rank=6, alpha=0.4, beta=0.5, rate=2e-4, batch=10, epochs=30),
    # Chosen by this project; small enough for two cores and a minute.
    "demo": _numbers(hidden=48, rank=4, alpha=0.4, beta=0.5, rate=5e-4, batch=8, epochs=12)
    | {"model.encoder.feedforward_dim": 128, "model.encoder.dropout": 0.2, "model.afw.dropout": 0.2},
}


def parse_modalities(letters: str) -> tuple[Modality, ...]:
    """Return modality names for letters such as ``tav``, in the order of the letters.

    Raises:
        ConfigError: A letter is unknown or repeated, or the text is empty.
    """
    if not letters or len(set(letters)) != len(letters) or not set(letters) <= LETTERS.keys():
        raise ConfigError(
            f"`--modalities` must be a combination of the letters t (text), a (audio), v (visual), but is {letters!r}. "
            "Write for example `--modalities tav`.",
            field="modalities",
        )
    return tuple(LETTERS[letter] for letter in letters)


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``field=value``; parse the value as JSON if possible, else keep it as text.

    Raises:
        ConfigError: There is no ``=``, or the value is JSON that is too deep or has a number of thousands of digits.
    """
    field, equals, value = text.partition("=")
    if not equals or not field:
        raise ConfigError(f"`--set` takes FIELD=VALUE, but got {text!r}. Write for example `--set training.epochs=5`.")
    try:
        return field.strip(), json.loads(value)
    except json.JSONDecodeError:
        return field.strip(), value
    except (ValueError, RecursionError) as problem:
        raise ConfigError(
            f"`{field[:80]}` must be a value of the config, but is JSON that is nested too deeply or has a number with "
            "too many digits. Correct it.",
            field=field[:80],
        ) from problem


def settings_for(dataset: str) -> str:
    """Return the name of the settings that occurs as a word in a dataset's name (``cmu-mosei``), or ``default``."""
    words = re.split(r"[^a-z0-9]+", dataset.lower())
    return next((word for word in words if word in SETTINGS), "default")


_UTTERANCES = 300  # of a batch, if train has ten such batches or more
_BATCHES = 10  # at least, of an epoch, down to one dialogue each
_STEPS = 400  # of a training, at least: fewer leave a small dataset below the linear floor
_EPOCHS = 100  # at most
_WIDE = 256  # of narrower vectors, half of the values are dropped in training; of wider ones, seven tenths


def sized(preset: str, settings: str, *, dialogues: int, utterances: int, width: int) -> Fields:
    """Return numbers of `corrected` and `causal` for a dataset without published ones, from the size of train.

    Args:
        preset: The preset.
        settings: The settings.
        dialogues: Number of dialogues in train.
        utterances: Number of utterances in train.
        width: Width of the widest modality's vectors.
    """
    if preset not in CORRECTED or settings != "default":
        return {}
    batch = max(1, round(min(_UTTERANCES, utterances / _BATCHES) * dialogues / max(utterances, 1)))
    epochs = math.ceil(_STEPS / math.ceil(dialogues / batch))
    return {
        "training.batch_dialogues": batch,
        "training.epochs": min(max(epochs, PRESETS[preset]["training.epochs"]), _EPOCHS),
        "model.encoder.input_dropout": 0.7 if width >= _WIDE else 0.5,
    }


def sized_of(config: TrainConfig) -> Fields:
    """Return the numbers of a config that ``sized`` may have set."""
    training = config.training
    return {
        "training.batch_dialogues": training.batch_dialogues,
        "training.epochs": training.epochs,
        "model.encoder.input_dropout": config.model.encoder.input_dropout,
    }


# By field of an encoder: the kinds that read it.
_READ_BY: Mapping[str, tuple[str, ...]] = {
    "model.encoder.input_dropout": ("context", "relational"),
    "model.encoder.inertia": ("context",),
    "model.encoder.positions": ("context",),
    "model.encoder.speakers": ("context",),
    "model.encoder.decays": ("relational",),
    "model.encoder.dialogue_decay": ("relational",),
}


_OF_CLASSES = ("loss.class_balance",)  # of a preset; regression has none
_OF_VOTES = ("model.prediction", "loss.modal")  # of a preset; these need the votes of AMW


def is_read(field: str, kind: str | None) -> bool:
    """Return whether an encoder of a kind reads a field; fields outside the encoder are read with any kind."""
    return kind in _READ_BY.get(field, (kind,))


_OPTIONS = ("model.encoder.options", "model.fusion_options", "balance.options")  # their names are the caller's


def resolve(*, preset: str, settings: str, overrides: Fields, sizes: Fields | None = None) -> TrainConfig:
    """Build the config: a dataset's settings, then the preset, then sizes (``sized``), then overrides by dotted field.

    Fields of settings, preset and sizes that the chosen encoder or balance method lacks are left out.

    Raises:
        ConfigError: A preset, settings name or field is unknown, or a value is bad; the message lists all mistakes.
    """
    _check_name("preset", preset, PRESETS)
    _check_name("settings", settings, SETTINGS)
    overrides = written_out(overrides)
    known = sorted(set(field_names(TrainConfig)) - {"schema_version", "preset", "settings"})  # set by arguments
    unknown = [field for field in overrides if field not in known and field.rpartition(".")[0] not in _OPTIONS]
    mistakes = [_unknown_field(field, known) for field in unknown]
    tree: dict[str, Any] = {"preset": preset, "settings": settings}
    numbers = {**SETTINGS[settings], **PRESETS[preset], **_numbers_of(preset, settings), **(sizes or {})}
    method, kind = (overrides.get(field, numbers.get(field)) for field in ("balance.method", "model.encoder.kind"))
    replaced: tuple[str, ...] = _OF_VOTES if overrides.get("model.fusion", "ada2i") != "ada2i" else ()
    replaced += _OF_CLASSES if overrides.get("task") == "regression" else ()
    for field, value in numbers.items():
        if _has(method, field) and is_read(field, kind) and field not in replaced:
            _plant(tree, field, value)
    for field, value in overrides.items():
        if field not in unknown:
            _plant(tree, field, value)
    try:
        config = TrainConfig.model_validate(tree)
    except ValidationError as problem:
        mistakes += explain(problem)
    if mistakes:
        raise ConfigError("The config has mistakes:\n" + "\n".join(f"  - {mistake}" for mistake in mistakes))
    return config


def written_out(overrides: Fields) -> Fields:
    """Return overrides with ``model.encoder.kind`` in place of its short form, ``model.encoder``."""
    if "model.encoder" not in overrides:
        return overrides
    if "model.encoder.kind" in overrides:
        raise ConfigError(
            "`model.encoder` is short for `model.encoder.kind`, and must be given once. Leave one out.",
            field="model.encoder",
        )
    return {"model.encoder.kind" if field == "model.encoder" else field: x for field, x in overrides.items()}


def _numbers_of(preset: str, settings: str) -> Fields:
    if preset in CORRECTED:
        return (_CAUSAL_NUMBERS if preset == "causal" else _CORRECTED_NUMBERS).get(settings, {})
    if preset == "reference":
        return {}
    # The paper gives no d_k; the rank is the width of the maps whose product is Theta.
    return {**_PAPER_NUMBERS.get(settings, {}), "model.afw.key_dim": SETTINGS[settings]["model.afw.rank"]}


def _has(method: object, field: str) -> bool:
    """Return whether a preset's field exists; fields of another balancing method than the chosen one do not."""
    group, _, name = field.partition(".")
    if group != "balance" or method in (None, "ada2i"):
        return True
    other = BALANCE_METHODS.get(str(method), BALANCE_METHODS["none"])  # `none` has the fields of a method of one's own
    # Only these mean the same for all methods.
    return name in ("method", "ratio", "acts_on") and name in other.model_fields


def flat(fields: Fields, prefix: str = "") -> dict[str, Any]:
    """Return nested fields by their dotted names; dotted names are kept."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def field_names(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """Yield the dotted name of every leaf field of a config model, once if several members of a union have it."""
    for name, info in model.model_fields.items():
        groups = _models_in(info.annotation)
        if groups:
            yield from dict.fromkeys(leaf for group in groups for leaf in field_names(group, f"{prefix}{name}."))
        else:
            yield prefix + name


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models of an annotation: one, the members of a union, or none for a leaf."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return [model for member in get_args(annotation) for model in _models_in(member)]
    return []


def explain(problem: ValidationError) -> list[str]:
    """Return one readable line per mistake that pydantic found."""
    lines = []
    for error in problem.errors(include_url=False):
        message = error["msg"].removeprefix("Value error, ")
        # A check over several fields names them itself; its input is all of them.
        found = "" if isinstance(error["input"], dict) else f", but found {error['input']!r}"
        what = _of_other_method(error["loc"]) or f"{message}{found}"
        lines.append(f"`{_dotted(error['loc']) or 'config'}`: {what}")
    return lines


def _of_other_method(place: tuple[int | str, ...]) -> str:
    """Return what to do about a field that the chosen balance method lacks; empty for other mistakes."""
    if place[:1] != ("balance",) or len(place) != 3:
        return ""
    own = BALANCE_METHODS.get(str(place[1]), OwnBalance).model_fields
    if place[2] in own:
        return ""
    names = ", ".join(name for name in own if name != "method")
    return f"the balance method `{place[1]}` has {names}; choose another with `balance.method`"


def _dotted(place: tuple[int | str, ...]) -> str:
    """Return a location in a config as a dotted field, without the tag that pydantic adds after ``balance``."""
    names = [str(name) for name in place]
    return ".".join(
        name for before, name in zip(["", *names], names, strict=False)
        if before != "balance" or name not in (*BALANCE_METHODS, OWN)
    )  # fmt: skip


def _check_name(kind: str, name: str, known: Mapping[str, Fields]) -> None:
    if name not in known:
        raise ConfigError(
            f"`{kind}` must be one of {', '.join(known)}, but is {name!r}.{similar(name, known)} Name one of these.",
            field=kind,
        )


def _unknown_field(field: str, known: list[str]) -> str:
    close = difflib.get_close_matches(field, known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else "`ada2i config` lists the fields."
    return f"`{field}` is not a config field; {hint}"


def _plant(tree: dict[str, Any], field: str, value: object) -> None:
    *parents, leaf = field.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[leaf] = value
