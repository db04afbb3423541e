"""The only evaluation on the test split, after selection on dev, and everything derived from it.

A run's folder gets, per seed, ``predictions.parquet`` and ``test.json``, and for the run ``baselines.json``. Each is
written once: a second call reads them and does not open the test split. Then it gets ``report.html``, the model card
``README.md``, and last ``result.json``.
"""

import json
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from ada2i import storage
from ada2i.data.manifest import open_features
from ada2i.display import count
from ada2i.errors import NotFoundError
from ada2i.evaluation.calibration import expected_calibration_error, fit_temperature, reliability, risk_coverage
from ada2i.evaluation.metrics import by_dialogue, dialogue_bootstrap, over_seeds, scores
from ada2i.evaluation.regression import regression_scores
from ada2i.inference.floor import baselines, targets_of
from ada2i.inference.missing import missing_scores
from ada2i.inference.models import load_checkpoint
from ada2i.inference.predict import Floats, Ints, predict_logits, predictions_file
from ada2i.loader.split_data import SplitData, open_split
from ada2i.records import (
    UNLABELLED,
    Baseline,
    Baselines,
    Calibration,
    RunRequest,
    RunResult,
    SeedResult,
    TestResult,
    put_folder_file,
)
from ada2i.reports.report import markdown_summary, render_report
from ada2i.store import RunFolder, SeedFolder


def evaluate_run(run_uri: str) -> RunResult:
    """Evaluate every seed's selected checkpoint on test, once, and write the run's result, report and model card.

    Raises:
        NotFoundError: A seed has not finished training.
        IntegrityError: A checkpoint or shard differs from its digest.
    """
    run = RunFolder(run_uri)
    request = run.request()
    seeds = [_seed_result(run, seed) for seed in request.config.training.seeds]
    tests = [_test_once(request, run.seed(result.seed), result) for result in seeds]
    result = _gather(request, run_uri, seeds, tests)
    result = result.model_copy(update={"baselines": _baselines_once(run, request), "licences": licences(request)})
    # Of the workers that trained.
    environment = storage.get(run.environment_uri) if storage.exists(run.environment_uri) else b""
    page = render_report(result, json.loads(environment or b"{}"))
    files = {"report.html": page.encode(), "README.md": markdown_summary(result).encode()}
    if environment:
        files["environment.json"] = environment
    entries = {name: put_folder_file(run_uri, name, data) for name, data in files.items()}
    # The result is written last: after a crash, the next call writes the same files again.
    result = result.model_copy(update={"files": entries})
    storage.put(run.result_uri, result.stored())
    return result


def licences(request: RunRequest) -> dict[str, str]:
    """Return the licences of the corpus and the encoders that a run uses, as far as its features record them."""
    origin = open_features(request.features.uri).manifest.origin
    used = ("corpus", *request.config.model.modalities)
    return {of: licence for of, licence in origin.licences.items() if of in used} if origin else {}


def _seed_result(run: RunFolder, seed: int) -> SeedResult:
    try:
        return run.seed(seed).result()
    except NotFoundError as problem:
        raise NotFoundError(
            f"Seed {seed} of {run.uri} must have finished training, but has no result. Train the run first.",
            uri=run.uri,
        ) from problem


def _test_once(request: RunRequest, seed: SeedFolder, result: SeedResult) -> TestResult:
    if storage.exists(seed.test_uri):
        return TestResult.load(seed.test_uri)
    config, batch = request.config, request.config.training.batch_dialogues
    split = _split(request, "test")
    model = load_checkpoint(result.checkpoint_uri)
    labels, logits = predict_logits(model, split, batch)
    probabilities, values = model.chances(logits).numpy(), logits[:, 0].numpy() if config.regression else None
    rows = predictions_file(split, labels, probabilities, values)
    predictions = put_folder_file(seed.uri, "predictions.parquet", rows)
    test = _score(request, result, split, labels, probabilities)
    if values is not None:
        found = regression_scores(values, targets_of(split), request.features.dataset)
        test = test.model_copy(update={"regression": found, "calibration_error": None})
    else:
        fitted = _calibrated(predict_logits(model, _split(request, "dev"), batch), (labels, logits))
        test = test.model_copy(update={"calibration": fitted})
    missing = missing_scores(model, split, batch, whole=test.scores.weighted_f1)
    test = test.model_copy(update={"predictions": predictions, "missing": missing})
    # Predictions first: a crash in between leaves them without a result, and the next call writes the same ones again.
    storage.put_if_absent(seed.test_uri, test.stored())
    return TestResult.load(seed.test_uri)


def _split(request: RunRequest, name: str) -> SplitData:
    config = request.config
    return open_split(
        open_features(request.features.uri),
        name,
        config.model.modalities,
        shuffle_gib=config.training.shuffle_gib,
        targets=config.regression,
    )


def _calibrated(dev: tuple[Ints, Tensor], test: tuple[Ints, Tensor]) -> Calibration:
    """Return the temperature that dev's labels and logits give, and what it does to test's."""
    (dev_labels, dev_logits), (labels, logits) = (
        (found[found != UNLABELLED], raw[torch.from_numpy(found != UNLABELLED)]) for found, raw in (dev, test)
    )
    temperature = fit_temperature(dev_logits.numpy(), dev_labels)
    before, after = logits.softmax(dim=-1).numpy(), (logits / temperature).softmax(dim=-1).numpy()
    return Calibration(
        temperature=temperature,
        utterances=len(dev_labels),
        calibration_error=expected_calibration_error(after, labels),
        before=reliability(before, labels),
        after=reliability(after, labels),
        risk=risk_coverage(after, labels),
    )


def _score(
    request: RunRequest, result: SeedResult, split: SplitData, labels: Ints, probabilities: Floats
) -> TestResult:
    names, known = request.features.labels, labels != UNLABELLED
    counts = by_dialogue(labels, probabilities.argmax(axis=1), split.lengths, len(names))
    return TestResult(
        seed=result.seed,
        checkpoint_uri=result.checkpoint_uri,
        scores=scores(counts.sum(axis=0), names, "test"),
        weighted_f1_interval=dialogue_bootstrap(counts),
        calibration_error=expected_calibration_error(probabilities[known], labels[known]),
    )


def _baselines_once(run: RunFolder, request: RunRequest) -> tuple[Baseline, ...]:
    if not storage.exists(run.baselines_uri):
        config = request.config
        rows = baselines(request.features.uri, config.model.modalities, regression=config.regression)
        storage.put_if_absent(run.baselines_uri, Baselines(rows=rows).stored())
    return Baselines.load(run.baselines_uri).rows


def _gather(request: RunRequest, run_uri: str, seeds: Sequence[SeedResult], tests: Sequence[TestResult]) -> RunResult:
    return RunResult(
        run_id=request.run_id,
        run_uri=run_uri,
        config=request.config,
        features=request.features,
        protocol=" ".join(
            filter(None, (_protocol(request, seeds, tests), request.searched, request.left_out, request.taught))
        ),
        seeds=tuple(seeds),
        tests=tuple(tests),
        test_summary=over_seeds(tests),
        best_seed=max(seeds, key=_worth).seed,  # chosen on dev, never on test
        own_code={name: request.own_code[name] for name in request.config.own_code},
        teachers=request.teachers,
    )


def _worth(seed: SeedResult) -> float:
    return seed.dev.weighted_f1 if seed.dev.mae is None else -seed.dev.mae


def _protocol(request: RunRequest, seeds: Sequence[SeedResult], tests: Sequence[TestResult]) -> str:
    interval = tests[0].weighted_f1_interval
    epochs = statistics.median(seed.best_epoch for seed in seeds)
    names = ", ".join(str(seed.seed) for seed in seeds)
    last = request.config.training.selection == "last"
    best = "lowest dev MAE" if request.config.regression else "best dev weighted F1"
    chosen = "the last epoch" if last else f"the epoch with the {best} (median epoch {epochs:g})"
    over = f"seeds {names}, mean and sample standard deviation" if len(seeds) > 1 else f"one seed, {names}"
    return (
        f"Test split ({count(tests[0].scores.utterances, 'utterance')}), evaluated once per seed on {chosen}; {over}; "
        f"intervals: {interval.level:.0%} bootstrap over test "
        f"dialogues, {interval.resamples} resamples."
    )
