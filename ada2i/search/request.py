"""A search for a config: its request, its folder, and the choice of its winner.

`<root>/searches/<id>/` holds ``request.json``, a folder per trial and ``result.json``. A trial's folder is like a run's
but never tested; its ``trial.json``, written last, records how it ended. The configs that are trained again in the
finals are ordinary runs, and only the winner's is ever tested. By default a search's id is derived from everything that
decides it, so the same command resumes an interrupted search.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError

from ada2i import presets, storage
from ada2i.config import Config, Positive, TrainConfig
from ada2i.errors import ConfigError, ResourceError
from ada2i.jobs import code
from ada2i.jobs.client import Job
from ada2i.jobs.resources import capacity, fitting
from ada2i.records import Record, RunRequest, SearchNote
from ada2i.search.records import Final, Params, Space, TrialRecord
from ada2i.search.space import check_space, default_space, given_space
from ada2i.store import Store
from ada2i.training.request import TrainSpec, check, planned

JOB = "ada2i.search.job:drive"
REQUEST, RESULT, RECORD = "request.json", "result.json", "trial.json"

_DIGITS = 16  # of a digest that names a search
_GRACE = 5  # by default ASHA first judges a trial after a fifth of its epochs


class SearchOptions(Config):
    """Options of a search."""

    trials: Positive = Field(20, description="Configs to try; the first is the unchanged config.")
    concurrent: Positive | None = Field(None, description="Concurrent trials; by default as many as the cluster holds.")
    trial_seeds: Positive = Field(1, description="Seeds per trial; ASHA judges the first one.")
    grace: Positive | None = Field(None, description="Epochs before ASHA may stop a trial; by default a fifth.")
    reduction: int = Field(3, ge=2, description="Reduction factor of ASHA.")
    finalists: Positive = Field(3, description="Best trials that are trained again, besides the unchanged config.")
    seed: int = Field(0, ge=0, description="Seed of the search.")


class SearchSpec(Record):
    """A search as the caller describes it, before features and configs are resolved."""

    spec: TrainSpec  # its seeds are those of the finals
    space: dict[str, Any] = Field(default_factory=dict)  # by config field, dotted or nested
    vary: tuple[str, ...] = ()
    options: SearchOptions = SearchOptions()


class SearchRequest(Record):
    """The request of a search's job."""

    schema_version: Literal[1] = 1
    run: RunRequest  # of the unchanged config
    overrides: dict[str, JsonValue]
    space: Space
    options: SearchOptions

    @property
    def search_id(self) -> str:
        """The search's id."""
        return self.run.run_id

    @property
    def grace(self) -> int:
        """Epochs before a trial may be stopped."""
        return self.options.grace or max(1, self.run.config.training.epochs // _GRACE)

    @property
    def trial_seeds(self) -> tuple[int, ...]:
        """Seeds of every trial; they differ from those of the finals, so that a lucky seed does not count twice."""
        taken = self.run.config.training.seeds
        free = (seed for seed in range(1, 2**31) if seed not in taken)
        return tuple(next(free) for _ in range(self.options.trial_seeds))

    def config(self, params: Params, seeds: Sequence[int]) -> TrainConfig:
        """Return the config with other params and seeds.

        Raises:
            ConfigError: They contradict each other.
        """
        base = self.run.config
        changed = {**self.overrides, **params, "training.seeds": list(seeds)}
        sizes = presets.sized_of(base)
        return presets.resolve(preset=base.preset, settings=base.settings, overrides=changed, sizes=sizes)


def search_options(**given: Any) -> SearchOptions:
    """Return options, with defaults for those that are not given.

    Raises:
        ConfigError: An option is wrong; the message lists all mistakes.
    """
    try:
        return SearchOptions.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as problem:
        mistakes = "\n".join(f"  - {line}" for line in presets.explain(problem))
        raise ConfigError(f"The search's options have mistakes:\n{mistakes}") from problem


def prepare_search(spec: SearchSpec, *, root: str, search_id: str | None = None) -> Job:
    """Check everything, import the features if needed, write the search's request, and return the search's job.

    Args:
        spec: What to search for.
        root: The storage root.
        search_id: Its id; by default a digest of everything that decides it.

    Raises:
        ConfigError: A preset, field, option or the space is wrong, or the search was started with other values.
        DataError: The features are invalid, or their audit has a finding that is not allowed.
        AccessError: The storage may not be written.
        ResourceError: The cluster has fewer CPUs or GPUs than the trials need.
        UnreachableError: The storage or the cluster does not answer.
    """
    training = spec.spec.model_copy(update={"overrides": {"resources.workers": 1, **spec.spec.overrides}})
    tried = check(training)  # find mistakes before features are read
    given = given_space(spec.space, spec.vary)
    if given:
        check_space(given, preset=training.preset, settings=tried.settings, overrides=training.overrides)
    _check_options(spec.options, tried)
    run = planned(training, root=root, run_id="search")
    space = given or default_space(run.config, training.overrides)
    overrides = {**training.overrides, "model.modalities": list(run.config.model.modalities)}
    check_space(space, preset=run.config.preset, settings=run.config.settings, overrides=overrides)
    request = SearchRequest(run=run, overrides=overrides, space=space, options=spec.options)
    run = _with_code(request)
    request = request.model_copy(update={"run": run})
    named = run.model_copy(update={"run_id": search_id or f"search-{contents(request)}"})
    return _write(request.model_copy(update={"run": named}), Store.open(root))


def _write(request: SearchRequest, store: Store) -> Job:
    uri = store.search(request.search_id)
    place = storage.join(uri, REQUEST)
    if storage.exists(place) and contents(SearchRequest.load(place)) != contents(request):
        raise ConfigError(
            f"Search {request.search_id} must be resumed with its original request, but this one differs. Repeat the "
            "first command, or start a new search."
        )
    data = request.stored()
    storage.put(place, data)  # only the resources may differ
    return Job(JOB, uri, storage.digest(data))


def _with_code(request: SearchRequest) -> RunRequest:
    """Return the run's request with the code of all choices of the space, after checking each."""
    run = request.run
    choices = [({field: x}) for field, kind in request.space.fields.items() for x in getattr(kind, "values", ())]
    configs = [config for params in choices if (config := request.config(params, run.config.training.seeds)).own_code]
    own_code = code.digests(dict.fromkeys(name for config in (run.config, *configs) for name in config.own_code))
    if configs:
        from ada2i.training.methods import check_methods

        with code.named(own_code):
            for config in configs:
                check_methods(config, run.features)
    return run.model_copy(update={"own_code": own_code})


def contents(request: SearchRequest) -> str:
    """Return a digest of everything that decides a search's result, without its resources and id."""
    wanted = {
        "config": request.run.config.model_dump(mode="json", exclude={"resources"}),
        "features": request.run.features.fingerprint,
        "space": request.space.model_dump(mode="json"),
        "options": request.options.model_dump(mode="json", exclude={"concurrent"}),
    } | ({"own_code": request.run.own_code} if request.run.own_code else {})
    return storage.digest(json.dumps(wanted, sort_keys=True).encode())[:_DIGITS]


def _check_options(options: SearchOptions, config: TrainConfig) -> None:
    epochs, resources = config.training.epochs, config.resources
    if resources.min_workers is not None:
        raise ConfigError(
            f"`resources.min_workers` must be left out of a search, whose trials all have `workers` = "
            f"{resources.workers}, but is {resources.min_workers}. Leave it out, and request fewer with `--workers` "
            "if the cluster holds fewer.",
            field="resources.min_workers",
        )
    if options.grace is not None and options.grace > epochs:
        raise ConfigError(
            f"`--grace` must be at most the epochs of a trial, {epochs}, but is {options.grace}. Lower it, or raise "
            "`--epochs`.",
            field="grace",
        )
    if options.concurrent is None:
        return
    workers = resources.workers or 1
    needed, found = options.concurrent * workers * resources.cpus_per_worker, capacity().get("CPU", 0.0)
    found = max(found, resources.max_cpus or 0.0)
    if needed > found:
        raise ResourceError(
            f"`--concurrent` = {options.concurrent} trials of {workers} workers with "
            f"{resources.cpus_per_worker:g} CPU each need {needed:g} CPUs, but the cluster has {found:g}. Request "
            "fewer, or leave it out.",
            field="concurrent",
        )


def at_a_time(request: SearchRequest, available: Mapping[str, float], *, gpus: float) -> int:
    """Return how many trials run at the same time, with some GPUs for each worker."""
    resources = request.run.config.resources
    workers = resources.workers or 1
    most = fitting(available, cpus=workers * resources.cpus_per_worker, gpus=workers * gpus)
    return min(most, request.options.concurrent or most)


def trial_uri(uri: str, number: int) -> str:
    """Return the folder of a trial."""
    return storage.join(uri, "trials", f"{number:04}")


def finished(uri: str, request: SearchRequest) -> dict[int, TrialRecord]:
    """Return the records of the trials that have ended, by number."""
    places = {number: storage.join(trial_uri(uri, number), RECORD) for number in range(request.options.trials)}
    return {number: TrialRecord.load(place) for number, place in places.items() if storage.exists(place)}


def finalists(records: Mapping[int, TrialRecord], most: int) -> list[TrialRecord]:
    """Return the trials whose configs are trained again: the unchanged config, then the best complete ones.

    Args:
        records: All trials.
        most: Maximum number, without the unchanged config.
    """
    whole = [record for number, record in records.items() if number and record.state == "complete"]
    ranked = sorted(whole, key=lambda record: (-record.score, record.number))
    chosen = [records[0]]
    for record in ranked:
        if len(chosen) <= most and all(record.params != other.params for other in chosen):
            chosen.append(record)
    return chosen


def prepare_final(uri: str, request: SearchRequest, record: TrialRecord) -> tuple[str, str]:
    """Write the request of the run that trains a trial's config again; return its URI and the digest of its request."""
    note = SearchNote(
        search_id=request.search_id,
        trial=record.number,
        trials=request.options.trials,
        space={field: str(kind) for field, kind in request.space.fields.items()},
    )
    seeds = request.run.config.training.seeds
    config = request.config(record.params if record.number else {}, seeds)
    run_id = f"{request.search_id}-{record.number}"
    run = request.run.model_copy(update={"run_id": run_id, "config": config, "search": note})
    folder = Store.open(uri.rsplit("/", 2)[0]).run(run_id)
    data = run.stored()
    storage.put(folder.request_uri, data)  # the same at each attempt, except the resources
    return folder.uri, storage.digest(data)


def winner(finals: Sequence[Final]) -> Final | None:
    """Return the best on dev, mean over seeds; of equals the first, so a trial must beat the unchanged config."""
    scored = [final for final in finals if final.dev_weighted_f1 is not None]
    return max(scored, key=lambda final: final.dev_weighted_f1.mean if final.dev_weighted_f1 else 0.0, default=None)


def is_done(uri: str) -> bool:
    """Return whether a search has ended."""
    return storage.exists(storage.join(uri, RESULT))
