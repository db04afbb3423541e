"""The report of a run: a self-contained page, a short markdown text, a table for terminals.

All three show the same numbers, which are read from the run's records; only means over seeds are computed here.
"""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ada2i.config import TrainConfig
from ada2i.data.provenance import licence_warning
from ada2i.display import count
from ada2i.errors import DataError
from ada2i.evaluation.metrics import HEADLINES, area, summary
from ada2i.presets import flat
from ada2i.records import MissingScore, RunResult, SeedResult, TestResult
from ada2i.reports import plots
from ada2i.reports.templates import cell, template

Row = dict[str, str | float | int]

SYNTHETIC_NOTE = "SYNTHETIC data: numbers show that the pipeline works, not how well emotions are recognised."

_NAMES = dict(zip(HEADLINES, ("weighted F1", "macro F1", "accuracy"), strict=True))
NUMBERS: Mapping[str, str] = {  # by score of regression, the head of its column
    "mae": "MAE",
    "correlation": "corr",
    "acc2": "Acc-2",
    "f1": "F1",
    "acc2_nonzero": "Acc-2 without 0",
    "f1_nonzero": "F1 without 0",
    "acc3": "Acc-3",
    "acc5": "Acc-5",
    "acc7": "Acc-7",
}
_OF_NUMBERS = ("mae", "correlation", "acc2")  # the headlines of regression
_ABLATIONS = {"no_afw": "AFW", "no_amw": "AMW", "no_modulation": "modulation and noise"}
_ESCAPES = {ord(c): f"\\{c}" for c in "\\`*_[]|~#"} | {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}


def render_report(result: RunResult, environment: Mapping[str, Any] | None = None) -> str:
    """Return the report of a run: one HTML page that loads nothing and runs no script.

    Args:
        result: The run.
        environment: The machines of the run, and why it was trained there: the content of its ``environment.json``.

    Raises:
        DataError: The result lacks a seed's test, the best seed's, or a summary.
    """
    tests = _tests(result)
    return template(__package__, "report.html.j2").render(
        result=result,
        title=_title(result),
        subtitle=_subtitle(result.config),
        synthetic_note=SYNTHETIC_NOTE if result.features.synthetic else "",
        headlines=_headlines(result),
        numbers=regression_table(result),
        over=_over(result),
        interval=_interval(result, tests),
        rows=scores_table(result),
        baselines=baseline_table(result),
        baseline_note=baseline_note(result),
        missing=missing_table(result),
        calibration=result.best_test.calibration,
        calibrated=calibration_note(result),
        confidences=confidence_table(result),
        licence_note=licence_warning(result.licences),
        modalities=_modality_table(result),
        dead=dead_classes(result),
        plots=_plots(result),
        classes=_class_table(result),
        best=result.best,
        machine=environment or {},
        best_scores=result.best_test.scores,
        config=_overrides(result.config),
    )


def markdown_summary(result: RunResult) -> str:
    """Return the run's scores as markdown, for model cards and artifacts.

    Raises:
        DataError: The result lacks a seed's test, the best seed's, or a summary.
    """
    tests = _tests(result)
    notes = [f"**{SYNTHETIC_NOTE}**"] if result.features.synthetic else []
    if dead := dead_classes(result):
        notes.append(f"**Classes with test F1 = 0:** {markdown_text('; '.join(dead))}.")
    found = (baseline_note(result), licence_warning(result.licences), result.own_code_note)
    notes += [f"**{markdown_text(note)}**" for note in found if note]
    headlines: list[Row] = [{"test score": name, _over(result): mean} for name, mean in _headlines(result)]
    blocks = [
        f"# {markdown_text(_title(result))}",
        markdown_text(_subtitle(result.config)),
        *notes,
        markdown_table(headlines),
        f"{markdown_text(_interval(result, tests))} {markdown_text(result.protocol)}",
        *_section("Predicted numbers", regression_table(result)),
        *_section("By seed", scores_table(result)),
        *_section("Baselines", baseline_table(result)),
        *_section("With missing modalities", missing_table(result)),
        *_section("Calibration", confidence_table(result), markdown_text(calibration_note(result))),
        *_section("By class", _class_table(result)),
    ]
    return "\n\n".join(blocks) + "\n"


def _section(title: str, rows: Sequence[Row], *texts: str) -> list[str]:
    """Return a heading, texts and a table as blocks of markdown; none without rows."""
    return [f"## {title}", *texts, markdown_table(rows)] if rows else []


def scores_table(result: RunResult) -> list[Row]:
    """Return a row per seed and, for two or more seeds, one with means and sample deviations.

    Keys are the column heads. Scores of a seed are floats rounded to 4 decimals; those of the last row are texts such
    as ``0.5966 ± 0.0029``, empty if a mean has no meaning. Speed is the median over epochs; ECE, the expected
    calibration error on test, is empty in results older than it.

    Raises:
        DataError: The result lacks a seed's test, the best seed's, or a summary.
    """
    tests = _tests(result)
    rows = [_seed_row(seed, tests[seed.seed]) for seed in result.seeds]
    if len(rows) > 1:
        means: Row = {"seed": "mean ± sd"}
        means["dev weighted F1"] = summary([seed.dev.weighted_f1 for seed in result.seeds]).text
        means |= {f"test {_NAMES[name]}": result.test_summary[name].text for name in HEADLINES}
        rows.append({head: means.get(head, "") for head in rows[0]})
    return rows


def regression_table(result: RunResult) -> list[Row]:
    """Return the scores of predicted numbers: a row per seed, their mean, and one per baseline; else an empty list."""
    tests = [(f"seed {test.seed}", test.regression) for test in result.tests]
    found = [(name, scores) for name, scores in (*tests, *((row.name, row.regression) for row in result.baselines))]
    numbers = {name: scores.numbers() for name, scores in found if scores is not None}
    heads = {key: head for key, head in NUMBERS.items() if any(key in row for row in numbers.values())}
    rows = [_number_row(name, row, heads) for name, row in numbers.items()]
    if rows and len(tests) > 1:
        summaries = result.test_summary
        means = {head: summaries[key].text if key in summaries else "" for key, head in heads.items()}
        rows.insert(len(tests), {"test": "mean ± sd", **means})
    return rows


def _number_row(name: str, scores: Mapping[str, float], heads: Mapping[str, str]) -> Row:
    return {"test": name, **{head: round(scores[key], 4) if key in scores else "" for key, head in heads.items()}}


def _headlines(result: RunResult) -> list[tuple[str, str]]:
    """Return the names and means of the scores that a report begins with."""
    chosen = [name for name in _OF_NUMBERS if name in result.test_summary] or HEADLINES
    return [({**_NAMES, **NUMBERS}[name], result.test_summary[name].text) for name in chosen]


def baseline_table(result: RunResult) -> list[Row]:
    """Return a row per baseline with its scores on the same test split; empty for older results."""
    return [
        {
            "baseline": found.name,
            "dev weighted F1": "" if found.dev_weighted_f1 is None else round(found.dev_weighted_f1, 4),
            **{f"test {_NAMES[name]}": round(getattr(found, name), 4) for name in HEADLINES},
            "95% low": "" if found.interval is None else round(found.interval.low, 4),
            "95% high": "" if found.interval is None else round(found.interval.high, 4),
        }
        for found in result.baselines
    ]


def baseline_note(result: RunResult) -> str:
    """Return a sentence about the linear floor; empty if the mean over seeds is above it by weighted F1, or by MAE."""
    floor, mean = result.floor, result.test_summary["weighted_f1"].mean
    if floor is not None and floor.regression is not None:
        error, least = result.test_summary["mae"].mean, floor.regression.mae
        if error < least:
            return ""
        return (
            f"Not better than the linear floor: the MAE of {error:.4f} is not below {least:.4f} of the baseline "
            f"`{floor.name}` on the same test split."
        )
    if floor is None or mean > floor.weighted_f1:
        return ""
    low = floor.interval.low if floor.interval else floor.weighted_f1
    where = "and is below" if mean < low else "but is above"
    interval = f", {where} the lower bound {low:.4f} of its interval" if floor.interval else ""
    return (
        f"Not above the linear floor: the weighted F1 of {mean:.4f} does not exceed {floor.weighted_f1:.4f} of the "
        f"baseline `{floor.name}` on the same test split{interval}."
    )


def missing_table(result: RunResult) -> list[Row]:
    """Return a row per subset of modalities, per rate of missing vectors, and for the area under the rates.

    Scores are over seeds. Empty for a model of one modality, and for older results.
    """
    if not all(test.missing for test in result.tests):
        return []
    rows: list[Row] = [
        {"test vectors": _given(scores[0]), "test weighted F1": summary([found.weighted_f1 for found in scores]).text}
        for scores in zip(*(test.missing for test in result.tests), strict=True)
    ]
    areas = summary([area(test.missing) for test in result.tests])
    return [*rows, {"test vectors": "mean over the rates (area)", "test weighted F1": areas.text}]


def calibration_note(result: RunResult) -> str:
    """Return a sentence about the temperature of the best seed; empty of regression, and for older results."""
    test = _tests(result)[result.best_seed]
    if (found := test.calibration) is None or test.calibration_error is None:
        return ""
    return (
        f"Probabilities of predictions are softmax(logits / {found.temperature:.4g}), a temperature fitted to "
        f"{count(found.utterances, 'utterance')} of dev. It changes no label and no score. Expected calibration error "
        f"on test: {test.calibration_error:.4f} as trained, {found.calibration_error:.4f} with it."
    )


def confidence_table(result: RunResult) -> list[Row]:
    """Return what each tenth of `--min-confidence` keeps of test, of the best seed; empty without a temperature."""
    found = _tests(result)[result.best_seed].calibration
    return [
        {
            "minimum confidence": f"{point.min_confidence:g}",
            "utterances with a label": f"{point.coverage:.1%}",
            "errors among them": f"{point.risk:.1%}",
        }
        for point in (found.risk if found else ())
        if round(point.min_confidence * 20) % 2 == 0
    ]


def _given(found: MissingScore) -> str:
    if found.rate is None:
        return f"only {' + '.join(found.kept)}"
    return f"{found.rate:.0%} of vectors removed at random" if found.rate else "all"


def dead_classes(result: RunResult) -> list[str]:
    """Return the classes with test F1 = 0 in at least one test, one line each; weighted F1 hides them.

    Tests are those of the seeds; of folds, those of each fold and seed, whose test splits may lack a class.
    """
    lines = []
    kind = "seed" if len({test.seed for test in result.tests}) == len(result.tests) else "test"
    for rows in zip(*(test.scores.classes for test in result.tests), strict=True):
        tested = [row for row in rows if row.support]
        dead = [row.support for row in tested if row.f1 == 0]
        if dead:
            least, most = min(dead), max(dead)
            rows_of_class = count(most, "utterance") if least == most else f"{least} to {count(most, 'utterance')}"
            lines.append(f"{rows[0].label}: F1 = 0 in {len(dead)} of {count(len(tested), kind)} ({rows_of_class})")
        if not tested:
            lines.append(f"{rows[0].label}: no test utterances, so it counts as 0 in macro F1")
    return lines


def _tests(result: RunResult) -> Mapping[int, TestResult]:
    """Return test results by seed, after checking that the result is complete."""
    tests = {test.seed: test for test in result.tests}
    trained = {seed.seed for seed in result.seeds}
    if set(tests) != trained or result.best_seed not in trained or not set(HEADLINES) <= set(result.test_summary):
        raise DataError(
            f"Run {result.run_id} must have a test result of every seed, including the best one, and summaries of "
            f"{', '.join(HEADLINES)}, but trained seeds {sorted(trained)}, tested {sorted(tests)}, chose "
            f"{result.best_seed} and has summaries of {', '.join(result.test_summary) or 'nothing'}. "
            "Evaluate the run again.",
            run_id=result.run_id,
        )
    return tests


def _seed_row(seed: SeedResult, test: TestResult) -> Row:
    interval = test.weighted_f1_interval
    return {
        "seed": seed.seed,
        "dev weighted F1": round(seed.dev.weighted_f1, 4),
        "selected epoch": seed.best_epoch,
        "epochs run": len(seed.history),
        **{f"test {_NAMES[name]}": round(getattr(test.scores, name), 4) for name in HEADLINES},
        f"{interval.level:.0%} low": round(interval.low, 4),
        f"{interval.level:.0%} high": round(interval.high, 4),
        "utterances/s": round(statistics.median(epoch.utterances_per_second for epoch in seed.history)),
        "ECE": "" if test.calibration_error is None else round(test.calibration_error, 4),
    }


def _class_table(result: RunResult) -> list[Row]:
    """Return a row per class: support, and its scores over seeds."""
    by_class = zip(*(test.scores.classes for test in result.tests), strict=True)
    return [
        {
            "class": rows[0].label,
            "support": rows[0].support,
            "precision": summary([row.precision for row in rows]).text,
            "recall": summary([row.recall for row in rows]).text,
            "F1": summary([row.f1 for row in rows]).text,
        }
        for rows in by_class
    ]


def _modality_table(result: RunResult) -> list[Row]:
    """Return a row per modality: the width of its vectors and its gate share in the selected epochs."""
    best = [next(epoch for epoch in seed.history if epoch.epoch == seed.best_epoch) for seed in result.seeds]
    return [
        {
            "modality": modality,
            "width": result.features.widths[modality],
            "gate share": round(statistics.mean(epoch.gate_share.get(modality, 0.0) for epoch in best), 4),
        }
        for modality in result.config.model.modalities
    ]


def _plots(result: RunResult) -> Mapping[str, str]:
    balance, test = result.config.balance, result.best_test
    start = None if result.config.ablations.no_modulation else getattr(balance, "start_epoch", None)
    found = {
        "learning": plots.learning_curves(result.seeds, result.best_seed),
        "balance": plots.balance_curves(result.seeds, result.best_seed, start),
        "confusion": plots.confusion_plot(test.scores),
        "classes": plots.class_scores([test.scores for test in result.tests]),
    }
    if test.calibration is not None:
        found["reliability"] = plots.reliability_plot(test.calibration)
        found["risk"] = plots.risk_plot(test.calibration)
    return found


def _title(result: RunResult) -> str:
    return f"Ada2I on {result.features.dataset}, preset {result.config.preset}"


def _subtitle(config: TrainConfig) -> str:
    switches = config.ablations.model_dump()
    without = [f"without {name}" for switch, name in _ABLATIONS.items() if switches[switch]]
    return ", ".join([f"settings {config.settings}", " + ".join(config.model.modalities), *without])


def _interval(result: RunResult, tests: Mapping[int, TestResult]) -> str:
    test = tests[result.best_seed]
    chosen, bounds = ", the best on dev" if len(tests) > 1 else "", test.weighted_f1_interval
    return (
        f"Seed {test.seed}{chosen}: weighted F1 {test.scores.weighted_f1:.4f}, {bounds.level:.0%} interval "
        f"{bounds.low:.4f} to {bounds.high:.4f} ({bounds.resamples} resamples of the test dialogues)."
    )


def _over(result: RunResult) -> str:
    return f"mean ± sd over {count(len(result.tests), 'seed')}" if len(result.tests) > 1 else "one seed"


def _overrides(config: TrainConfig) -> dict[str, str]:
    """Return all fields in the form of overrides."""
    fields = flat(config.model_dump(mode="json"))
    return {name: x if isinstance(x, str) else json.dumps(x, ensure_ascii=False) for name, x in fields.items()}


def _is_number(value: str | float) -> bool:
    return not isinstance(value, str) or re.match(r"[-+]?\d[\d.]*( |%|$)", value) is not None


def markdown_text(text: str) -> str:
    """Return text escaped for markdown, on one line; what stands between backticks stays code."""
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0 or any(not code or set(code) & set("|<>&") for code in parts[1::2]):
        return "\\`".join(part.translate(_ESCAPES) for part in parts)
    return "`".join(part if place % 2 else part.translate(_ESCAPES) for place, part in enumerate(parts))


def markdown_table(rows: Sequence[Row]) -> str:
    """Return a table whose heads are the keys of its rows; columns of numbers are aligned to the right."""
    heads = list(rows[0])
    lines = [
        [markdown_text(head) for head in heads],
        ["---:" if all(_is_number(row[head]) for row in rows) else "---" for head in heads],
        *([markdown_text(cell(value)) for value in row.values()] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
