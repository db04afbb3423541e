"""A grid of runs: presets by modalities by changes. Each is an ordinary run whose id is derived from its config.

So a repeated command finds finished runs and trains only the rest.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations, product
from typing import Any, Literal

from pydantic import Field

from ada2i import presets, storage
from ada2i.audit.gate import gate
from ada2i.config import AblationConfig, TrainConfig
from ada2i.data.manifest import FeatureSet
from ada2i.errors import ConfigError, IntegrityError
from ada2i.importers.resolve import resolve_features, resolve_folds
from ada2i.jobs import code
from ada2i.jobs.client import Job
from ada2i.modalities import LETTERS, MODALITIES, Modality
from ada2i.records import FeatureInfo, Record, RunRequest
from ada2i.store import RunFolder, Store
from ada2i.studies import outside
from ada2i.studies.rows import Cell
from ada2i.training.request import TrainSpec, config_for, prepare, with_named

JOB = "ada2i.studies.job:drive"
ABLATIONS = tuple(AblationConfig.model_fields)

# All modalities, then ever fewer: the paper's order, then single modalities.
_SUBSETS = tuple("".join(some) for size in range(len(LETTERS), 0, -1) for some in combinations(LETTERS, size))
_DIGITS = 16  # of a run id's hash

Changes = Mapping[str, Mapping[str, Any]]  # overrides, by the name of the change


class StudySpec(Record):
    """A study as the caller describes it, before features and configs are resolved."""

    dataset: str  # decides settings and published numbers
    features: str  # `demo`, a feature set, or a table to import
    presets: tuple[str, ...]
    modalities: str = "all"  # or letters, separated by commas
    ablations: str = "none"  # or `all`, or some, separated by commas
    variations: tuple[str, ...] = ()  # FIELD=V1,V2
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    overrides: dict[str, Any] = Field(default_factory=dict)
    allow: tuple[str, ...] = ()
    folds: int = 0  # k-fold by dialogue; 0: the splits of the features
    leave_out: str = ""  # a column, each of whose groups is the test split of one fold
    also: tuple[str, ...] = ()  # tables of predictions from elsewhere for the test split; see `outside`


class StudyRequest(Record):
    """The request of a study's job: runs to train and evaluate."""

    schema_version: Literal[1] = 1
    runs: tuple[str, ...]  # URIs
    names: dict[str, str] = Field(default_factory=dict)  # names of the runs, by their ids


class Prepared(Record):
    """A study that can start."""

    settings: str
    features: FeatureInfo  # with folds, those of the first
    cells: tuple[Cell, ...]
    protocol: str = ""  # of folds, in words
    outside: dict[str, bytes] = Field(default_factory=dict)  # predictions from elsewhere, by name


def prepare_study(spec: StudySpec, *, root: str) -> Prepared:
    """Check everything, import the features if needed, and write the requests of all runs.

    Raises:
        ConfigError: A preset, subset, ablation, field or value is wrong.
        DataError: The features are invalid, or their audit has a finding that is not allowed.
        AccessError: The storage may not be written.
    """
    named = {"training.seeds": list(spec.seeds), "resources.workers": 1}
    shared = {"resources.device": "cpu"} | with_named(spec.overrides, named)
    changes: Changes = {"": {}, **ablations(spec.ablations), **variations(spec.variations)}
    settings = presets.settings_for(spec.dataset)
    for preset, change in product(spec.presets, changes.values()):  # find mistakes before features are read
        presets.resolve(preset=preset, settings=settings, overrides=with_named(shared, change))
    given = _letters(spec.modalities)
    needs = [m for m in MODALITIES if any(m == LETTERS[letter] for letters in given or () for letter in letters)]
    sets, protocol = _sets(spec, Store.open(root).writable().root, needs)
    elsewhere = _outside(spec, sets[0])
    subsets = given or _held(sets[0])
    fitted = tuple(dict.fromkeys(m for features in sets for m in _fitted(features, subsets, spec.allow)))
    cells = []
    for preset, letters, (name, change) in product(spec.presets, subsets, changes.items()):
        cell, overrides = Cell(preset=preset, letters=letters, change=name), with_named(shared, change)
        of_set = partial(_cell, spec, fitted=fitted, root=root, settings=settings, cell=cell, overrides=overrides)
        cells.append(_folded([of_set(features) for features in sets]))
    return Prepared(
        settings=settings, features=sets[0].info(), cells=tuple(cells), protocol=protocol, outside=elsewhere
    )


def _sets(spec: StudySpec, root: str, needs: Sequence[Modality]) -> tuple[list[FeatureSet], str]:
    """Return the feature sets of a study, one per fold, and the protocol of the folds in words."""
    if not spec.folds and not spec.leave_out:
        return [resolve_features(spec.features, root, needs=needs)], ""
    if spec.folds and spec.leave_out:
        raise ConfigError("`--folds` and `--leave-out` must not be given together, but are. Choose one.", field="folds")
    sets = resolve_folds(spec.features, root, folds=spec.folds, leave_out=spec.leave_out, needs=needs)
    how = f"{spec.folds}-fold by dialogue" if spec.folds else f"leave one `{spec.leave_out}` out, {len(sets)} folds"
    return sets, f"{how}, mean over folds × seeds"  # noqa: RUF001


def _outside(spec: StudySpec, features: FeatureSet) -> dict[str, bytes]:
    """Return the predictions from elsewhere by the name of their table.

    Raises:
        ConfigError: The study has folds, or two tables have one name.
        DataError: A table does not fit the test split.
    """
    if spec.also and (spec.folds or spec.leave_out):
        raise ConfigError(
            "`--also` compares predictions for the test split of the features, but folds make other test splits. Leave "
            "out `--also`, or `--folds` and `--leave-out`.",
            field="also",
        )
    names = [storage.name_of(source) for source in spec.also]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(
            f"`--also` must name tables with different file names, but two are called {twice}. Rename one.",
            field="also",
        )
    if not names:
        return {}
    truth, labels = outside.test_labels(features), features.manifest.labels
    return {
        name: outside.outside_predictions(source, truth, labels) for name, source in zip(names, spec.also, strict=True)
    }


def _folded(cells: Sequence[Cell]) -> Cell:
    """Return the cells of all folds as one."""
    runs = tuple(cell.run_id for cell in cells if cell.run_id)
    if len(cells) == 1 or not runs:
        return cells[0]
    return cells[0].model_copy(update={"run_id": f"folds-{_digest(runs)}", "folds": runs})


def ablations(text: str) -> Changes:
    """Return the ablations that ``none``, ``all`` or a comma-separated list means.

    Raises:
        ConfigError: An ablation is not one of the paper's.
    """
    names = {"none": (), "all": ABLATIONS}.get(text, tuple(text.split(",")))
    if unknown := [name for name in names if name not in ABLATIONS]:
        raise ConfigError(
            f"`--ablations` must be none, all, or some of {', '.join(ABLATIONS)}, but {unknown[0]!r} is not. "
            "Write for example `--ablations no_afw,no_amw`.",
            field="ablations",
        )
    return {name: {f"ablations.{name}": True} for name in names}


def variations(texts: Sequence[str]) -> Changes:
    """Return one change for each value of ``FIELD=V1,V2``; values that are lists are written as JSON.

    Raises:
        ConfigError: There is no ``=``.
    """
    found = {}
    for text in texts:
        field, equals, values = text.partition("=")
        if not equals or not field or not values:
            raise ConfigError(
                f"`--vary` takes FIELD=V1,V2, but got {text!r}. Write for example `--vary model.amw.scale=5,10`.",
                field="vary",
            )
        for value in _split(values):
            name, parsed = presets.parse_override(f"{field}={value}")
            found[f"{name}={value}"] = {name: parsed}
    return found


def _split(values: str) -> list[str]:
    """Split at commas, except commas inside JSON."""
    try:
        return [json.dumps(value) for value in json.loads(f"[{values}]")]
    except (ValueError, RecursionError):
        return [value.strip() for value in values.split(",")]


def _letters(text: str) -> tuple[str, ...] | None:
    """Return subsets of modalities from their letters; None means all modalities that the features hold."""
    if text == "all":
        return None
    for letters in text.split(","):
        presets.parse_modalities(letters)
    return tuple(dict.fromkeys(text.split(",")))


def _held(features: FeatureSet) -> tuple[str, ...]:
    return tuple(s for s in _SUBSETS if all(LETTERS[letter] in features.manifest.modalities for letter in s))


def _fitted(features: FeatureSet, subsets: Sequence[str], allow: Sequence[str]) -> tuple[Modality, ...]:
    """Return the modalities whose vectors were fitted to the labels of train; refuse findings that are not allowed."""
    varied = [m for letter, m in LETTERS.items() if any(letter in letters for letters in subsets)]
    return gate(features, modalities=varied, allow=allow, leave_out_fitted=True).left_out


def _cell(
    spec: StudySpec,
    features: FeatureSet,
    *,
    fitted: Sequence[Modality],
    root: str,
    settings: str,
    cell: Cell,
    overrides: dict[str, Any],
) -> Cell:
    """Return a cell with its run, after writing the run's request."""
    wanted = presets.parse_modalities(cell.letters)
    config_of = partial(config_for, features, preset=cell.preset, settings=settings, overrides=overrides)
    whole = config_of(modalities=wanted)
    left_out = tuple(m for m in wanted if m in fitted) if whole.model.train_fitted == "leave-out" else ()
    letters = "".join(letter for letter in cell.letters if LETTERS[letter] not in left_out)
    if not letters:
        return cell.model_copy(update={"left_out": left_out})
    # The id depends on what is really trained, so cells that differ only in left-out modalities share a run.
    kept = [LETTERS[letter] for letter in letters]
    config = config_of(modalities=kept)
    run_id = study_run_id(config, features.info(), code.digests(config.own_code))
    if not storage.exists(Store.open(root).run(run_id).request_uri):
        single = TrainSpec(
            features=features.uri,
            preset=cell.preset,
            settings=settings,
            modalities=letters,
            overrides=overrides,
            allow=spec.allow,
        )
        prepare(single, root=root, run_id=run_id)
    return cell.model_copy(update={"left_out": left_out, "run_id": run_id})


def study_run_id(config: TrainConfig, features: FeatureInfo, own_code: Mapping[str, str]) -> str:
    """Return the id of the run that trains a config on features by some code, independent of its resources."""
    fields = config.model_dump(mode="json", exclude={"resources"})
    if not own_code:
        del fields["model"]["fusion"]  # so that studies from before this field keep their runs
    wanted = {"config": fields, "features": features.model_dump(mode="json")} | (
        {"own_code": dict(own_code)} if own_code else {}
    )
    return f"study-{_digest(wanted)}"


def request_of(run: RunFolder) -> RunRequest:
    """Return the request of a run of a study.

    Raises:
        IntegrityError: It is not the request from whose config and features the run's id was derived.
    """
    request = run.request()
    if not request.run_id == run.run_id == study_run_id(request.config, request.features, request.own_code):
        raise IntegrityError(
            f"{run.request_uri} must hold the config and features that the run's id was derived from, but holds "
            "others. It was changed after it was written: delete the run's folder, then repeat the command.",
            uri=run.request_uri,
        )
    return request


def write_study(root: str, cells: Sequence[Cell]) -> Job | None:
    """Write the request for runs without a result; return the study's job, or None if every run has one."""
    store = Store.open(root)
    runs = [store.run(run) for run in dict.fromkeys(run for cell in cells for run in cell.runs)]
    left = tuple(run.uri for run in runs if not storage.exists(run.result_uri))
    if not left:
        return None
    # If cells share a run, the first cell names it.
    names = {run: _name(cell, place) for cell in reversed(cells) for place, run in enumerate(cell.runs)}
    uri = store.study(f"study-{_digest(sorted(run.uri for run in runs))}")
    data = StudyRequest(runs=left, names=names).stored()
    storage.put(storage.join(uri, "request.json"), data)
    return Job(JOB, uri, storage.digest(data))


def _name(cell: Cell, place: int) -> str:
    return f"{cell.name}, fold {place + 1}" if cell.folds else cell.name


def _digest(value: object) -> str:
    return storage.digest(json.dumps(value, sort_keys=True).encode())[:_DIGITS]
