"""The command that trains one model on the probabilities of registered versions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from ada2i.cli.options import (
    Allow,
    AsJson,
    Local,
    Modalities,
    NewModel,
    Overrides,
    Root,
    Settings,
    parse_overrides,
    parse_seeds,
)
from ada2i.cli.output import print_record
from ada2i.cli.training import show_result
from ada2i.config import TrainConfig
from ada2i.errors import ConfigError, NotFoundError
from ada2i.modalities import LETTERS
from ada2i.presets import PRESETS, explain, field_names
from ada2i.store import DEFAULT_ROOT, Store

app = typer.Typer()

# Of a student's config file; the options of the command give these.
_CHOSEN = frozenset(
    {
        "schema_version",
        "preset",
        "settings",
        "model.modalities",
        "loss.distillation",
        "loss.distillation_temperature",
        "training.seeds",
    }
)


@app.command()
def distil(  # noqa: PLR0917
    teachers: Annotated[list[str], typer.Argument(help="Registered versions: MODEL@NUMBER, MODEL@ALIAS.")],
    student: Annotated[
        str, typer.Option(help=f"{', '.join(PRESETS)}; or a .json file of a whole config, as `ada2i config` prints.")
    ] = "corrected",
    features: Annotated[str | None, typer.Option(help="What the student reads. Default: the first teacher's.")] = None,
    settings: Settings = None,
    modalities: Modalities = None,
    weight: Annotated[
        float | None,
        typer.Option(help="Of the teachers' loss: `loss.distillation`. Default: 1; of method `umt` 0."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the same: `loss.distillation_temperature`.")] = 1.0,
    seeds: Annotated[str | None, typer.Option(help="Seeds, separated by commas.")] = None,
    set_: Overrides = None,
    model: NewModel = None,
    allow: Allow = None,
    run: Annotated[str | None, typer.Option(help="Id of an unfinished run, to resume it.")] = None,
    local: Local = False,
    as_json: AsJson = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Train a student on labels and on the mean probabilities of versions; evaluate it and register it.

    Teachers may have other encoders and seeds. The version names its teachers.
    """
    from ada2i import usecases
    from ada2i.inference.versions import open_version
    from ada2i.terminal import TerminalHooks
    from ada2i.training.request import TrainSpec, new_run_id, with_named

    store = Store.open(root)
    if run is not None:
        usecases.check_started(store, run)
    config = _config(student) if student.endswith(".json") else None
    named = {
        "loss.distillation": weight,
        "loss.distillation_temperature": temperature,
        "training.seeds": list(parse_seeds(seeds)) if seeds else None,
    }
    spec = TrainSpec(
        features=features or open_version(store.root, teachers[0])[1].features.uri,
        preset=config.preset if config else student,
        settings=settings or (config.settings if config else None),
        modalities=modalities or (_letters(config) if config else None),
        overrides={**(_fields(config) if config else {}), **with_named(parse_overrides(set_), named)},
        allow=tuple(allow or ()),
        local=local,
        teachers=tuple(teachers),
    )
    run_id = run or new_run_id()
    hooks = TerminalHooks(f"The same command with `--run {run_id}` resumes it.")
    outcome = usecases.train(spec, store, run_id=run_id, hooks=hooks, model=model, force=True)
    assert outcome.result is not None  # it is trained in any case
    if as_json:
        print_record(outcome.result)
    else:
        show_result(outcome.result, outcome.version.name)


def _config(student: str) -> TrainConfig:
    """Return the config in a file.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It holds no config.
    """
    try:
        return TrainConfig.model_validate_json(Path(student).read_bytes())
    except OSError as problem:
        raise NotFoundError(f"{student} must be a file with a config, but: {problem.strerror}.") from problem
    except ValidationError as problem:
        raise ConfigError(
            f"{student} must hold a whole config, as `ada2i config` prints it, but: {'; '.join(explain(problem))}."
        ) from problem


def _letters(config: TrainConfig) -> str:
    letters = {modality: letter for letter, modality in LETTERS.items()}
    return "".join(letters[modality] for modality in config.model.modalities)


def _fields(config: TrainConfig) -> dict[str, Any]:
    """Return the config's values by dotted field, except those that are chosen by options, and nulls."""
    tree = config.model_dump(mode="json")
    fields = {field: _at(tree, field) for field in field_names(TrainConfig) if field not in _CHOSEN}
    return {field: value for field, value in fields.items() if value is not None}


def _at(tree: Any, field: str) -> Any:
    for name in field.split("."):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
