"""What ada2i does: each capability is a plain function that reads as a list of steps.

The command line and the flows call the same functions. They differ only in their ``Hooks``: how a step is run (plainly,
or as a Prefect task with retries) and how a job is shown (bars in a terminal, or a progress artifact).

Modules that need torch or fastapi are imported where they are used, so that a flow run starts its job 2 s earlier.
"""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np

from ada2i import storage
from ada2i.data.parquet import from_parquet
from ada2i.display import count, similar
from ada2i.drift import Drift, Reference, Window, judge, last_compared, limits, reference_of, render, summarise, windows
from ada2i.drift import keep as keep_window
from ada2i.errors import ConfigError, DataError, NotFoundError
from ada2i.evaluation.compare import Comparison
from ada2i.evaluation.compare import compare as compare_predictions
from ada2i.extraction import request as extraction
from ada2i.extraction.config import NONE
from ada2i.extraction.request import ExtractionRequest, ExtractionResult, ExtractSpec
from ada2i.importers.resolve import resolve_features
from ada2i.jobs import client, code
from ada2i.jobs.client import Job
from ada2i.jobs.cluster import cluster
from ada2i.jobs.events import Event
from ada2i.jobs.resources import check_root
from ada2i.modalities import MODALITIES, Modality
from ada2i.prediction import request as prediction
from ada2i.prediction.records import LEAST_DIALOGUES, PredictionManifest
from ada2i.prediction.records import is_done as is_predicted
from ada2i.prediction.records import result as prediction_result
from ada2i.prediction.request import PredictSpec
from ada2i.promotion.gate import check_judged_again, holding, is_settled, last_verdict, pass_gate, resolve_rules
from ada2i.promotion.page import headline
from ada2i.records import Baseline, RunRequest, RunResult
from ada2i.registry.aliases import CHAMPION, Move, current
from ada2i.registry.references import resolve
from ada2i.registry.verdicts import Verdict
from ada2i.registry.versions import (
    Version,
    check_model_name,
    check_same_kind,
    model_name,
    models,
    read_file,
    register,
)
from ada2i.search import request as searching
from ada2i.search.records import SearchOutcome, SearchResult
from ada2i.search.report import search_files
from ada2i.search.request import SearchRequest, SearchSpec
from ada2i.serving import request as serving
from ada2i.serving.request import ServeSpec
from ada2i.store import EXTRACTION, RunFolder, Store
from ada2i.studies import request as studies
from ada2i.studies.request import StudySpec
from ada2i.studies.rows import Study, gather
from ada2i.training import request as training
from ada2i.training.dedup import repeats
from ada2i.training.launch import launch, train_here
from ada2i.training.request import TrainSpec

JobKind = Literal["extract", "train", "search", "study", "predict"]
What = Literal["Skipped", "Registered", "Promoted", "Refused"]
OnEvent = Callable[[Event | str], None]

T = TypeVar("T")

log = logging.getLogger(__name__)


_WINDOWS = 30  # predictions of a version that are compared


class Hooks:
    """How a caller runs steps and shows jobs. This one runs each step plainly and shows nothing."""

    def step(self, name: str, call: Callable[[], T]) -> T:  # noqa: ARG002 - subclasses show the name
        """Run one step and return what it returns."""
        return call()

    @contextmanager
    def job(self, kind: JobKind, uri: str, address: str) -> Iterator[OnEvent]:  # noqa: ARG002
        """Yield the listener of a job's events; the block ends when the job ends.

        Args:
            kind: The kind of the job.
            uri: The folder of its request.
            address: URL of the Ray cluster that runs it; empty if this process does.
        """
        yield lambda _: None

    def wait_for_turn(self, store: Store, model: str) -> bool:  # noqa: ARG002
        """Wait until the caller may train a model; return whether it waited. Only flows wait, for other flow runs."""
        return False


@dataclass(frozen=True)
class Outcome:
    """The end of a training or a promotion.

    Attributes:
        version: The version that was trained, found unchanged, or judged.
        trained: Whether this call trained it.
        result: Its run's result, if this call trained it.
        verdict: The gate's verdict on it, if the gate judged it in this call.
        held: The move that gave it the alias it has now, or None if it does not have the alias.
        moved: Whether this call made that move.
        note: The reason for the outcome if there is no verdict.
    """

    version: Version
    trained: bool = False
    result: RunResult | None = None
    verdict: Verdict | None = None
    held: Move | None = None
    moved: bool = False
    note: str = ""

    @property
    def what(self) -> What:
        """The outcome as one word."""
        if self.held:
            return "Promoted"
        if self.verdict and self.verdict.judgement.decision == "refuse":
            return "Refused"
        return "Registered" if self.trained or self.verdict else "Skipped"

    @property
    def reason(self) -> str:
        """The reason in sentences. The alias decides the outcome, since a user can move it against the verdict."""
        passed = self.verdict is not None and self.verdict.judgement.decision == "promote"
        said = headline(self.verdict.judgement, moved=self.held is not None) if self.verdict else self.note
        if self.held and not passed:
            return f"{self.held.model}@{self.held.number} is {self.held.alias}: {self.held.reason}. {said}"
        if passed and not self.held:
            return f"{said} The alias has been moved since, so the version does not have it now."
        return said


@dataclass(frozen=True)
class Gate:
    """The request to judge a trained version for the alias ``champion``.

    Attributes:
        rules: Fields of the gate's rules that differ from the defaults.
        by: Who or what requests the judgement; kept in the verdict.
        code: package.module:Class that the judged versions may name; their code runs.
    """

    rules: Mapping[str, Any]
    by: str
    code: tuple[str, ...] = ()


@dataclass(frozen=True)
class Serving:
    """An endpoint that runs.

    Attributes:
        url: Its URL.
        version: The version that answered first.
    """

    url: str
    version: Version


def extraction_id(run_id: str) -> str:
    """Return the id of the extraction that belongs to a run; it differs from the run's id."""
    return f"{run_id}{EXTRACTION}"


def run_of_extraction(run_id: str) -> str:
    """Return the id of the run that an extraction belongs to; other ids are returned unchanged."""
    return run_id.removesuffix(EXTRACTION)


def check_started(store: Store, run_id: str) -> None:
    """Check that a run or an extraction was started, so that its id resumes it.

    Raises:
        NotFoundError: None was; the message lists what can be resumed.
    """
    extractions = (store.extraction(name) for name in (run_id, extraction_id(run_id)))
    places = [store.run(run_id).request_uri, *(storage.join(uri, "request.json") for uri in extractions)]
    if not any(map(storage.exists, places)):
        known = store.unfinished_runs()
        raise NotFoundError(
            f"`--run` must name a run that was started in {store.root}, but there is no run {run_id}. Unfinished runs: "
            f"{', '.join(known[:10]) or 'none'}.{similar(run_id, known)} Omit `--run` to start a new run.",
            field="run",
        )


def newest_unfinished(spec: TrainSpec, store: Store) -> str:
    """Return the id of the newest run without a result that was started with a spec.

    Raises:
        NotFoundError: There is no such run.
    """

    @functools.cache
    def planned(features: str) -> RunRequest:
        return training.planned(spec.model_copy(update={"features": features}), root=store.root, run_id="planned")

    for run_id in store.unfinished_runs():
        if _was_started_with(spec, store, run_id, planned):
            return run_id
    raise NotFoundError(
        f"`--resume` needs an unfinished run of these features and this config in {store.root}, but there is none. "
        f"Unfinished runs: {', '.join(store.unfinished_runs()[:10]) or 'none'}. `--run ID` resumes one of them, with "
        "the options that it was started with.",
        field="resume",
    )


def _was_started_with(spec: TrainSpec, store: Store, run_id: str, planned: Callable[[str], RunRequest]) -> bool:
    features = spec.features
    if (raw := extraction.parse(spec.features)) is not None:
        place = storage.join(store.extraction(extraction_id(run_id)), "request.json")
        if not storage.exists(place) or not extraction.is_of(ExtractionRequest.load(place), *raw, store.root):
            return False
        if not storage.exists(store.run(run_id).request_uri):
            return True  # interrupted while its features were extracted
        features = store.run(run_id).request().features.uri
    elif not storage.exists(store.run(run_id).request_uri):
        return False  # interrupted while the features of a raw corpus were extracted
    request, now = store.run(run_id).request(), planned(features)
    same = {"resources": now.config.resources}
    alike = (request.features, request.own_code) == (now.features, now.own_code)
    return alike and request.config.model_copy(update=same) == now.config


def extract(spec: ExtractSpec, store: Store, *, run_id: str, hooks: Hooks) -> ExtractionResult:
    """Extract features of a raw corpus; a call with the same ``run_id`` resumes.

    Raises:
        InputError: The corpus, an encoder or a field is wrong; see ``extraction.request.prepare``.
        JobError: The job failed; a new call resumes it.
    """
    if not spec.local:
        check_root(store.root)
    job = hooks.step("corpus", partial(extraction.prepare, spec, root=store.root, run_id=run_id))
    return hooks.step("extract", partial(_extract, job, hooks, local=spec.local))


def _extract(job: Job, hooks: Hooks, *, local: bool) -> ExtractionResult:
    if not extraction.is_done(job.uri):
        _extract_here(job, hooks) if local else _run_job("extract", job, hooks)
    return ExtractionResult.load(storage.join(job.uri, extraction.RESULT))


def _extract_here(job: Job, hooks: Hooks) -> None:
    from ada2i.extraction.run import extract_here

    request = ExtractionRequest.load(storage.join(job.uri, "request.json"), job.request)
    with hooks.job("extract", job.uri, "") as show:
        extract_here(job.uri, request, report=_reporter(show))


def train(
    spec: TrainSpec,
    store: Store,
    *,
    run_id: str,
    hooks: Hooks,
    model: str | None = None,
    force: bool = False,
    gate: Gate | None = None,
    flow_run_id: str | None = None,
) -> Outcome:
    """Train, evaluate once on test and register, unless a version with the same features and config exists.

    Args:
        spec: What to train; ``features`` may name a raw corpus, whose features are extracted first.
        store: The root.
        run_id: The run's id; the same id resumes the run.
        hooks: How steps are run and jobs are shown.
        model: Name in the registry; by default ``ada2i-`` and the dataset.
        force: Train even if a version with the same features and config exists.
        gate: How the version is judged for ``champion``; None: it is not judged.
        flow_run_id: The Prefect flow run that trains.

    Raises:
        InputError: Something in the request is wrong; nothing was trained.
        JobError: The job failed; a new call with the same ``run_id`` resumes it.
        DivergenceError: A loss or gradient was not finite.
    """
    resolve_rules(gate.rules if gate else {})
    if model is not None:
        check_model_name(model)
    if not spec.local:
        check_root(store.root)
    spec = _with_features(spec, store, run_id, hooks)
    job = hooks.step("features", partial(training.prepare, spec, root=store.root, run_id=run_id))
    request = RunRequest.load(RunFolder(job.uri).request_uri, job.request)
    with code.named(request.own_code):  # evaluation and gate run it in this process
        unchanged = partial(hooks.step, "unchanged", partial(repeats, request, root=store.root, model=model))
        known = None if force else unchanged()
        if not known and hooks.wait_for_turn(store, model_name(request.features, model)) and not force:
            known = unchanged()
        if known:
            note = (
                f"{known.name} has these features and this config. To train anyway, set `force` or omit "
                "`--skip-unchanged`."
            )
            return _judged(Outcome(known, note=note), store, gate, hooks)
        if model is None:  # refuse a wrong name before the training
            check_same_kind(store.root, request.features)
        hooks.step("train", partial(train_here if spec.local else launch, job, partial(hooks.job, "train")))
        result = hooks.step("evaluate", partial(_evaluate, job.uri))
        registering = partial(register, job.uri, root=store.root, model=model, flow_run_id=flow_run_id)
        version = hooks.step("register", registering)
        note = f"{version.name} was trained. The gate did not judge it."
        return _judged(Outcome(version, trained=True, result=result, note=note), store, gate, hooks)


def train_run(spec: TrainSpec, store: Store, *, run_id: str, hooks: Hooks) -> RunResult:
    """Train and evaluate once on test, without registering; arguments and errors are those of ``train``."""
    if not spec.local:
        check_root(store.root)
    spec = _with_features(spec, store, run_id, hooks)
    job = hooks.step("features", partial(training.prepare, spec, root=store.root, run_id=run_id))
    with code.named(RunRequest.load(RunFolder(job.uri).request_uri, job.request).own_code):
        hooks.step("train", partial(train_here if spec.local else launch, job, partial(hooks.job, "train")))
        return hooks.step("evaluate", partial(_evaluate, job.uri))


def _evaluate(run_uri: str) -> RunResult:
    from ada2i.training.evaluate import evaluate_run

    return evaluate_run(run_uri)


def _with_features(spec: TrainSpec, store: Store, run_id: str, hooks: Hooks) -> TrainSpec:
    """Return a spec that names a feature set; for a raw corpus, extract the features of the spec's modalities first."""
    raw = extraction.parse(spec.features)
    if raw is None:
        return spec
    hooks.step("check", partial(training.check, spec))  # find mistakes before hours of extraction
    requested = training.requested_modalities(spec)
    unused = {modality: NONE for modality in MODALITIES if requested and modality not in requested}
    corpus = ExtractSpec(
        kind=raw[0],
        location=raw[1],
        encoders={**spec.encoders, **unused},
        needs=requested,
        dataset=spec.dataset,
        local=spec.local,
    )
    features = extract(corpus, store, run_id=extraction_id(run_id), hooks=hooks).features
    return spec.model_copy(update={"features": features})


def _judged(outcome: Outcome, store: Store, gate: Gate | None, hooks: Hooks) -> Outcome:
    """Return the outcome after the gate."""
    if gate is None:
        return outcome
    version = outcome.version
    settled = is_settled(store.root, version)  # a repeated run must not undo a rollback
    if settled and not outcome.trained:
        return outcome
    before = current(store.root, version.model, CHAMPION)
    judge = partial(last_verdict, store.root, version) if settled else partial(_judge, store, version, gate)
    verdict = hooks.step("gate", judge)
    held = hooks.step("alias", partial(holding, store.root, version))
    return replace(outcome, verdict=verdict, held=held, moved=held is not None and held != before)


def _judge(
    store: Store, version: Version, gate: Gate, alias: str = CHAMPION, override: str | None = None
) -> Verdict | None:
    """Judge a version and move the alias if the verdict allows it; a version that has the alias is not judged."""
    if holding(store.root, version, alias):
        return last_verdict(store.root, version, alias)
    with code.named(code.digests(gate.code)):
        return pass_gate(store.root, version, resolve_rules(gate.rules), by=gate.by, alias=alias, override=override)


def promote(
    reference: str,
    store: Store,
    *,
    gate: Gate,
    hooks: Hooks,
    alias: str = CHAMPION,
    override: str | None = None,
    again: bool = False,
) -> Outcome:
    """Judge a version against the holder of an alias, such as the champion, and move it if the verdict allows it.

    Args:
        reference: MODEL@NUMBER, MODEL@ALIAS, or MODEL for its newest version.
        store: The root.
        gate: The rules, and who requests the judgement.
        hooks: How steps are run.
        alias: The alias.
        override: The reason to promote despite a refusal; kept in the alias's history.
        again: Judge it even if it was judged with other rules or was rolled back.

    Raises:
        ConfigError: A rule or the reference is wrong, or the version needs ``again``.
        NotFoundError: The version does not exist.
        ConflictError: Another process moved the alias in between; the verdict stays stored.
    """
    rules = resolve_rules(gate.rules)
    version = hooks.step("version", partial(resolve, store.root, reference))
    if not (again or override):
        check_judged_again(store.root, version, rules, alias)
    before = current(store.root, version.model, alias)
    verdict = hooks.step("gate", partial(_judge, store, version, gate, alias, override))
    held = hooks.step("alias", partial(holding, store.root, version, alias))
    moved = held is not None and held != before
    return Outcome(version, verdict=verdict, held=held, moved=moved, note="The gate did not judge it.")


def search(
    spec: SearchSpec,
    store: Store,
    *,
    hooks: Hooks,
    search_id: str | None = None,
    model: str | None = None,
    flow_run_id: str | None = None,
) -> tuple[SearchOutcome, Outcome]:
    """Search for a config on dev, retrain the best configs, test the winner once and register it.

    Args:
        spec: What to search.
        store: The root.
        hooks: How steps are run and jobs are shown.
        search_id: The search's id; by default derived from all that decides the search, so the same call resumes.
        model: Name in the registry; by default ``ada2i-`` and the dataset.
        flow_run_id: The Prefect flow run that searches.

    Raises:
        InputError: Something in the request is wrong; nothing was trained.
        JobError: The job failed; a new call resumes it.
    """
    if model is not None:
        check_model_name(model)
    check_root(store.root)
    preparing = partial(searching.prepare_search, spec, root=store.root, search_id=search_id)
    job = hooks.step("features", preparing)
    request = SearchRequest.load(storage.join(job.uri, searching.REQUEST), job.request)
    if model is None:
        check_same_kind(store.root, request.run.features)
    hooks.step("search", partial(_search, job, hooks))
    found = SearchResult.load(storage.join(job.uri, searching.RESULT))
    run = store.run(found.run_id)
    with code.named(request.run.own_code):
        result = hooks.step("evaluate", partial(_evaluate, run.uri))
    registering = partial(register, run.uri, root=store.root, model=model, flow_run_id=flow_run_id)
    version = hooks.step("register", registering)
    outcome = SearchOutcome(search=found, version=version.name, test_summary=result.test_summary)
    for name, data in search_files(outcome).items():
        storage.put(storage.join(job.uri, name), data)
    note = f"{version.name} is the best on dev of {count(len(found.trials), 'trial')} and the unchanged config."
    return outcome, Outcome(version, trained=True, result=result, note=note)


def _search(job: Job, hooks: Hooks) -> None:
    if not searching.is_done(job.uri):
        _run_job("search", job, hooks)


def reproduce(spec: StudySpec, store: Store, *, hooks: Hooks) -> Study:
    """Train a grid of presets, modalities and changes, and collect the scores with the published numbers.

    A repeated call trains only runs that have no result yet.

    Raises:
        InputError: Something in the request is wrong; nothing was trained.
        JobError: The job failed; a new call resumes it.
    """
    check_root(store.root)
    prepared = hooks.step("features", partial(studies.prepare_study, spec, root=store.root))
    job = studies.write_study(store.root, prepared.cells)
    problems = hooks.step("train", partial(_study, job, hooks)) if job else {}
    return gather(
        root=store.root,
        dataset=spec.dataset,
        settings=prepared.settings,
        features=prepared.features,
        cells=prepared.cells,
        problems=problems,
        protocol=prepared.protocol,
        outside=prepared.outside,
    )


def _study(job: Job, hooks: Hooks) -> dict[str, str]:
    """Train a study's runs; return why runs have no result, by run id."""
    problems: dict[str, str] = {}

    def collect(event: Event | str) -> None:
        if not isinstance(event, str) and event["kind"] == "diverged":
            problems[event["run_id"]] = f"seed {event['seed']}: {event['message']}"

    _run_job("study", job, hooks, collect)
    return problems


def baseline(features: str, store: Store, modalities: tuple[Modality, ...] = ()) -> tuple[Baseline, ...]:
    """Score the majority class and linear models on test: the floor that a trained model must exceed.

    Args:
        features: ``demo``, a feature set, or a table to import.
        store: The root.
        modalities: The modalities; by default all that the features hold.

    Raises:
        DataError: The features are invalid or lack a modality.
    """
    from ada2i.inference.floor import baselines

    found = resolve_features(features, store.root, needs=modalities)
    held = tuple(m for m in MODALITIES if m in found.manifest.modalities)
    return baselines(found.uri, modalities or held)


def compare(first: str, second: str, store: Store) -> Comparison:
    """Test whether one of two versions, or of a version and predictions from elsewhere, is significantly better.

    Args:
        first: A reference to a version, or the location of a table of predictions; see ``studies.outside``.
        second: The same; at least one of the two is a version.
        store: The root.

    Raises:
        ConfigError: Neither is a version.
        NotFoundError: There is no such version.
        DataError: The two were tested on other dialogues, or a table does not hold predictions for them.
    """
    from ada2i.studies.outside import is_table, outside_predictions

    versions = {text: resolve(store.root, text) for text in (first, second) if not is_table(text)}
    if not versions:
        raise ConfigError(
            f"At least one of {first} and {second} must be a registered version, which knows the labels of the test "
            "split, but both are tables. Name a version, such as ada2i-mine@1."
        )
    files = {text: read_file(store.root, version, "predictions.parquet") for text, version in versions.items()}
    known, version = next(iter(versions.items()))
    for text in {first, second} - versions.keys():
        files[text] = outside_predictions(text, from_parquet(files[known]), version.features.labels)
    a, b = (versions[text].name if text in versions else storage.name_of(text) for text in (first, second))
    synthetic = any(each.features.synthetic for each in versions.values())
    return compare_predictions(files[first], files[second], names=(a, b), synthetic=synthetic)


def predict(
    spec: PredictSpec, store: Store, *, hooks: Hooks, extraction_run: str, run_id: str | None = None
) -> tuple[str, PredictionManifest]:
    """Predict every utterance of a source with a registered version.

    Args:
        spec: The version and the source, which may be a raw corpus: its features are extracted first.
        store: The root.
        hooks: How steps are run and jobs are shown.
        extraction_run: The id of that extraction.
        run_id: The prediction's id; by default it is derived from version and source, so the same call resumes.

    Returns:
        The URI of the folder with the Parquet files, and the manifest.

    Raises:
        InputError: Version or source is wrong; nothing was predicted.
        JobError: The job failed; a new call resumes it.
    """
    if not spec.local:
        check_root(store.root)
    raw = hooks.step("encoders", partial(prediction.raw_corpus, spec, root=store.root))
    if raw is not None:
        vectors = extract(raw, store, run_id=extraction_run, hooks=hooks).features
        spec = spec.model_copy(update={"source": vectors, "named": spec.source})
    job = hooks.step("source", partial(prediction.prepare, spec, root=store.root, run_id=run_id))
    place, manifest = hooks.step("predict", partial(_predict, spec, job, hooks))
    if "/" not in spec.version and manifest.sums:  # the folder of a copy has no place for windows
        keep_window(store.root, Window.of_prediction(manifest))
    return place, manifest


def drift(
    reference: str, store: Store, *, run_id: str | None = None, own: tuple[str, ...] = ()
) -> tuple[Version, list[tuple[Window, Drift]]]:
    """Compare each window of a registered version with what the version was trained on.

    Args:
        reference: ``MODEL``, ``MODEL@NUMBER`` or ``MODEL@ALIAS``.
        store: The root.
        run_id: Return the window with this id only; by default all.
        own: package.module:Class that the version may name for its model.

    Returns:
        The version, and each of its last 30 windows with its comparison, the oldest first. The last
        of those returned is stored for metrics, with a page about all 30.

    Raises:
        NotFoundError: There is no such version, or the feature set that it was trained on no longer exists.
        ConfigError: The reference is a folder.
        DataError: It has no window that can be compared.
    """
    if "/" in reference:
        raise ConfigError(
            f"Drift needs a version of the registry, MODEL@NUMBER, but is asked for {reference!r}: a folder has no "
            "record of predictions. Name the version."
        )
    version = resolve(store.root, reference)
    left_out: list[str] = []

    def leave_out(text: str) -> None:
        log.warning(text)
        left_out.append(text)

    every = windows(store.root, version, leave_out=leave_out)
    found = [window for window in every[:-_WINDOWS] if window.run_id == run_id] + every[-_WINDOWS:]
    if not found:
        raise DataError(
            f"{version.name} must have a window of at least {LEAST_DIALOGUES} dialogues, but has none. Call `ada2i "
            f"predict {version.name} SOURCE`, with `--out` if it was predicted before; or let `ada2i serve` count."
        )
    usual = reference_of(store.root, version, own)
    judged = _compared(usual, found, leave_out)
    asked = [(window, result) for window, result in judged if run_id in (None, window.run_id)]
    if not asked:
        raise DataError(f"{version.name} must have a window that can be compared. {' '.join(left_out)}")
    summarise(store.root, *asked[-1], render(version, usual, judged, left_out))
    return version, asked


def _compared(usual: Reference, found: list[Window], leave_out: Callable[[str], None]) -> list[tuple[Window, Drift]]:
    """Compare windows with a reference; one that has other sums, from another version of ada2i, is left out."""
    bounds, judged = functools.cache(partial(limits, usual)), []
    for window in found:
        try:
            result = judge(usual, np.array(window.sums), window.dialogues, bounds(window.dialogues))
        except DataError as problem:
            leave_out(f"The window {window.run_id} of {window.model}@{window.version} is left out: {problem.message}")
            continue
        judged.append((window, result))
    return judged


def new_windows(store: Store) -> list[Window]:
    """Return the newest window of each champion, unless it is the one that was compared last."""
    found = []
    for model in models(store.root):
        try:
            if (move := current(store.root, model, CHAMPION)) is None:
                continue
            version = resolve(store.root, f"{model}@{move.number}")
            newest = windows(store.root, version)[-1:]
        except (DataError, NotFoundError) as problem:  # of one model: the others are compared without it
            log.warning("%s is left out: %s", model, problem.message)
            continue
        found += [window for window in newest if window.run_id != last_compared(store.root, version)]
    return found


@contextmanager
def serve(spec: ServeSpec, store: Store) -> Iterator[Serving]:
    """Answer HTTP requests with a registered version while the block runs; yield where.

    Args:
        spec: The version, the address and the limits.
        store: The root.

    Raises:
        InputError: The token, version or address is wrong; see ``serving.request.check``.
        UnreachableError: The private Ray head does not start.
    """
    from ada2i.serving.run import serving as start_serving

    version = serving.check(spec, store.root)
    with start_serving(spec, store.root) as url:
        yield Serving(url, version)


def _predict(spec: PredictSpec, job: Job, hooks: Hooks) -> tuple[str, PredictionManifest]:
    out = prediction.target(spec, job.uri)
    if is_predicted(out):
        return out, prediction_result(out)
    if request := prediction.local_request(spec, job):
        with hooks.job("predict", job.uri, "") as show:
            from ada2i.prediction.run import predict_here

            predict_here(job.uri, request, report=_reporter(show))
    else:
        _run_job("predict", job, hooks)
    return out, prediction_result(out)


def _reporter(show: OnEvent) -> Callable[..., None]:
    """Return what reports an event of a job in this process, as ``events.emit`` does for a job on Ray."""
    return lambda kind, **facts: show({"kind": kind, **facts})


def _run_job(kind: JobKind, job: Job, hooks: Hooks, also: OnEvent | None = None) -> None:
    """Run a job to its end on the configured cluster, or on a private one."""
    with cluster() as ray, hooks.job(kind, job.uri, ray.address) as show:

        def on_event(event: Event | str) -> None:
            show(event)
            if also is not None:
                also(event)

        client.run(job, address=ray.address, on_event=on_event)
