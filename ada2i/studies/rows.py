"""The results of a study: a row per cell, what each modality adds, and paired comparisons.

A cell is one preset on some modalities with at most one change. Cells that mean the same training share its
run. Everything is read from evaluated runs; nothing is trained or tested here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pydantic import Field

from ada2i import storage
from ada2i.display import count
from ada2i.evaluation.compare import Difference, compare
from ada2i.evaluation.metrics import HEADLINES, dialogue_bootstrap, over_seeds, scores, summary
from ada2i.evaluation.pooling import dialogue_counts, pool
from ada2i.modalities import LETTERS, MODALITIES, Modality
from ada2i.records import (
    Baseline,
    FeatureInfo,
    FileEntry,
    Interval,
    MissingScore,
    Record,
    RegressionScores,
    RunResult,
    Summary,
    get_folder_file,
)
from ada2i.reports.report import SYNTHETIC_NOTE, dead_classes
from ada2i.store import Store
from ada2i.studies.published import SOURCE, Published, other_widths, printed, published

_COMPARED_WITH = {"corrected": "reference", "causal": "corrected"}  # by preset: the one that it is compared with


class Cell(Record):
    """One cell of a study's grid.

    Attributes:
        preset: Variant of Ada2I; or the name of a table with predictions from elsewhere.
        letters: Letters of the requested modalities, such as ``tav``; empty for predictions from elsewhere.
        change: An ablation, ``field=value``, or empty for the unchanged preset.
        left_out: Requested modalities that were fitted to the labels of train.
        run_id: The run that trains it; None if no modality is left. With folds, a name for all of their runs.
        folds: The runs of the folds, if there are any.
    """

    preset: str
    letters: str
    change: str = ""
    left_out: tuple[Modality, ...] = ()
    run_id: str | None = None
    folds: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids of its runs."""
        return self.folds or ((self.run_id,) if self.run_id else ())

    @property
    def modalities(self) -> str:
        """Letters in the paper's notation, such as ``T+A+V``."""
        return "+".join(self.letters.upper())

    @property
    def name(self) -> str:
        """Its name in a table."""
        change = f", {change_name(self.change)}" if self.change else ""
        return f"{self.preset} {self.modalities}{change}".rstrip()


class Measured(Record):
    """Scores of one run over its seeds, on test except ``dev_weighted_f1``; or of predictions from elsewhere."""

    seeds: tuple[int, ...]
    dev_weighted_f1: Summary | None = None
    weighted_f1: Summary
    macro_f1: Summary
    accuracy: Summary
    regression: dict[str, Summary] = Field(default_factory=dict, exclude_if=lambda found: not found)
    interval: Interval  # of weighted F1, over dialogues, all seeds together
    lowest_class: str
    lowest_class_f1: float  # mean over seeds
    dead_classes: tuple[str, ...]
    calibration_error: float | None
    gate_share: float | None  # in the last epoch; None without AFW
    missing: tuple[MissingScore, ...] = ()  # means over seeds; empty for one modality


class Row(Record):
    """A cell, its measured scores, and the paper's."""

    cell: Cell
    measured: Measured | None
    problem: str = ""  # why there is no result
    published: Published | None


class Contribution(Record):
    """The weighted F1 that one modality adds to a preset."""

    preset: str
    modality: Modality
    alone: float | None
    whole: float  # weighted F1 with all modalities of the study
    without: float | None  # weighted F1 with all but this one
    added: float | None  # the difference of the two


class Gain(Record):
    """The difference of the second of two cells from the first, on the same dialogues."""

    first: Cell
    second: Cell
    dialogues: int
    seeds: int
    better: int  # seeds whose test weighted F1 is higher in the second cell
    weighted_f1: Difference
    macro_f1: Difference
    p_adjusted: float | None = None  # of weighted F1 by the swap test, corrected by Holm's method over all comparisons


class Study(Record):
    """The whole study, without any storage locations."""

    schema_version: Literal[1] = 1
    dataset: str
    settings: str
    features: str
    fingerprint: str
    widths: dict[Modality, int]
    synthetic: bool
    rows: tuple[Row, ...]
    contributions: tuple[Contribution, ...]
    gains: tuple[Gain, ...]
    notes: tuple[str, ...]
    baselines: tuple[Baseline, ...] = ()  # of all modalities that any run uses
    protocol: str = ""  # of folds, in words; empty for one split


@dataclass(frozen=True)
class Runs:
    """The finished runs of a study, read once each.

    Attributes:
        results: By run id; those of all folds of a cell also as one result.
        folds: By the name of a cell's folds, their runs.
    """

    root: str
    results: Mapping[str, RunResult]
    folds: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, root: str, cells: Sequence[Cell]) -> "Runs":
        """Read the results; runs without result are left out."""
        runs = {run_id: Store.open(root).run(run_id) for cell in cells for run_id in cell.runs}
        results = {run_id: run.result() for run_id, run in runs.items() if storage.exists(run.result_uri)}
        folds = {cell.run_id: cell.folds for cell in cells if cell.run_id and cell.folds}
        for name, parts in folds.items():
            if all(part in results for part in parts):
                results[name] = _merged(name, [results[part] for part in parts])
        return cls(root, results, folds)

    def predictions(self, run_id: str) -> bytes:
        """Return the pooled predictions of a run's seeds, or of those of all folds."""
        if run_id in self.folds:
            return pool([self.predictions(part) for part in self.folds[run_id]])
        return _predictions(
            self.root, run_id, tuple((test.seed, test.predictions) for test in self.results[run_id].tests)
        )


def _merged(name: str, results: Sequence[RunResult]) -> RunResult:
    """Return the results of folds as one: seeds and tests of all, scores over all of them, means of baselines."""
    alike: dict[str, list[Baseline]] = {}
    for baseline in (row for result in results for row in result.baselines):
        majority = baseline.name.startswith("always ") and baseline.regression is None
        alike.setdefault("majority class" if majority else baseline.name, []).append(baseline)
    means = []
    for title, rows in alike.items():
        scores = {score: sum(getattr(row, score) for row in rows) / len(rows) for score in HEADLINES}
        facts = {"name": title, "interval": None, "dev_weighted_f1": None, "dev_mae": None}
        means.append(rows[0].model_copy(update={**facts, "regression": _mean_regression(rows), **scores}))
    return results[0].model_copy(
        update={
            "run_id": name,
            "seeds": tuple(seed for result in results for seed in result.seeds),
            "tests": tuple(test for result in results for test in result.tests),
            "test_summary": over_seeds([test for result in results for test in result.tests]),
            "baselines": tuple(means),
        }
    )


def _mean_regression(rows: Sequence[Baseline]) -> RegressionScores | None:
    found = [row.regression for row in rows if row.regression is not None]
    if not found:
        return None
    numbers = [scores.numbers() for scores in found]
    means = {
        name: sum(each[name] for each in numbers) / len(numbers) if all(name in each for each in numbers) else None
        for name in numbers[0]
    }
    return found[0].model_copy(update={**means, "utterances": sum(scores.utterances for scores in found)})


@lru_cache(maxsize=64)
def _predictions(root: str, run_id: str, seeds: tuple[tuple[int, FileEntry | None], ...]) -> bytes:
    run = Store.open(root).run(run_id)
    return pool([get_folder_file(run.seed(seed).uri, "predictions.parquet", entry) for seed, entry in seeds])


def gather(
    *,
    root: str,
    dataset: str,
    settings: str,
    features: FeatureInfo,
    cells: Sequence[Cell],
    problems: Mapping[str, str],
    protocol: str = "",
    outside: Mapping[str, bytes] | None = None,
) -> Study:
    """Read the runs of a study.

    Args:
        root: The storage root.
        dataset: Name by which the paper's numbers are found.
        settings: Name of the settings from which the configs start.
        features: The features that the runs were trained on.
        cells: The grid, in the table's order.
        problems: Why runs have no result, by run id.
        protocol: Of folds, in words; the published numbers, which are of one split, are left out then.
        outside: Predictions from elsewhere for the same test split, by name.
    """
    runs, table = Runs.read(root, cells), None if protocol else published(dataset, features)
    rows = [
        Row(
            cell=cell,
            measured=_measure(runs, cell),
            problem=_problem(cell, runs, problems),
            published=printed(table, cell.letters, cell.change),
        )
        for cell in cells
    ]
    elsewhere = [_outside_row(name, data, features.labels) for name, data in (outside or {}).items()]
    gains = [_gain(runs, *pair) for pair in _pairs(cells) if all(cell.run_id in runs.results for cell in pair)]
    gains += [
        _outside_gain(runs, row.cell, data, cell)
        for row, data in zip(elsewhere, (outside or {}).values(), strict=True)
        for cell in _largest_cells(cells, runs)
    ]
    return Study(
        dataset=dataset,
        settings=settings,
        features=features.dataset,
        fingerprint=features.fingerprint,
        widths=features.widths,
        synthetic=features.synthetic,
        rows=(*rows, *elsewhere),
        contributions=tuple(_contributions(rows)),
        gains=_adjusted(gains),
        notes=tuple(_notes(dataset, settings, features, rows, runs, protocol)),
        baselines=_baselines(runs),
        protocol=protocol,
    )


def change_name(change: str) -> str:
    """Return the name of an ablation or a changed field."""
    return {"no_afw": "without AFW", "no_amw": "without AMW", "no_modulation": "without ratio and noise"}.get(
        change, change
    )


def _problem(cell: Cell, runs: Runs, problems: Mapping[str, str]) -> str:
    if cell.run_id is None:
        return "no modality is left to train on"
    if cell.run_id in runs.results:
        return ""
    return next((problems[run] for run in cell.runs if run in problems), "not finished")


def _measure(runs: Runs, cell: Cell) -> Measured | None:
    result = runs.results.get(cell.run_id or "")
    if result is None:
        return None
    by_class = [[row.f1 for row in rows] for rows in zip(*(t.scores.classes for t in result.tests), strict=True)]
    means = [sum(values) / len(values) for values in by_class]
    lowest = min(range(len(means)), key=means.__getitem__)
    return Measured(
        seeds=tuple(dict.fromkeys(test.seed for test in result.tests)),
        dev_weighted_f1=summary([seed.dev.weighted_f1 for seed in result.seeds]),
        **{name: result.test_summary[name] for name in HEADLINES},
        regression={name: found for name, found in result.test_summary.items() if name not in HEADLINES},
        interval=dialogue_bootstrap(dialogue_counts(runs.predictions(result.run_id))),
        lowest_class=result.features.labels[lowest],
        lowest_class_f1=means[lowest],
        dead_classes=tuple(dead_classes(result)),
        calibration_error=_mean([test.calibration_error for test in result.tests]),
        gate_share=_mean(list(_gate_shares(result))) if result.config.has_afw else None,
        missing=tuple(_mean_missing(result)),
    )


def _mean_missing(result: RunResult) -> Iterator[MissingScore]:
    if not all(test.missing for test in result.tests):  # one modality, or some tests are of an older version
        return
    for alike in zip(*(test.missing for test in result.tests), strict=True):
        mean = sum(found.weighted_f1 for found in alike) / len(alike)
        yield alike[0].model_copy(update={"weighted_f1": mean})


def _baselines(runs: Runs) -> tuple[Baseline, ...]:
    """Return the baselines of all runs, each once; those of one modality come first."""
    parts = {part for folds in runs.folds.values() for part in folds}
    whole = [result for run_id, result in runs.results.items() if run_id not in parts]
    found = {row.name: row for result in whole for row in result.baselines}
    return tuple(sorted(found.values(), key=lambda row: row.name.count(" + ")))


def _adjusted(gains: Sequence[Gain]) -> tuple[Gain, ...]:
    """Return comparisons with p-values that Holm's method (1979) corrects for their number."""
    order = sorted(range(len(gains)), key=lambda place: gains[place].weighted_f1.p_randomisation)
    adjusted, least = dict.fromkeys(order, 0.0), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(gains) - rank) * gains[place].weighted_f1.p_randomisation))
        adjusted[place] = least
    return tuple(gain.model_copy(update={"p_adjusted": adjusted[place]}) for place, gain in enumerate(gains))


def _gate_shares(result: RunResult) -> Iterator[float | None]:
    """Yield each seed's gate share in its last epoch, mean over modalities."""
    for seed in result.seeds:
        shares = seed.history[-1].gate_share.values()
        yield sum(shares) / len(shares) if shares else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _contributions(rows: Sequence[Row]) -> Iterator[Contribution]:
    scores = {
        (row.cell.preset, frozenset(row.cell.letters)): row.measured.weighted_f1.mean
        for row in rows
        if row.measured and not row.cell.change
    }
    for preset in dict.fromkeys(row.cell.preset for row in rows):
        letters = max((found for name, found in scores if name == preset), key=len, default=frozenset[str]())
        for letter in (letter for letter in LETTERS if letter in letters and len(letters) > 1):
            alone, without = (scores.get((preset, part)) for part in (frozenset(letter), letters - {letter}))
            if alone is not None or without is not None:
                whole = scores[preset, letters]
                yield Contribution(
                    preset=preset,
                    modality=LETTERS[letter],
                    alone=alone,
                    whole=whole,
                    without=without,
                    added=None if without is None else whole - without,
                )


def _pairs(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Cell]]:
    """Yield the pairs to compare: `corrected` with `reference`, `causal` with `corrected`, changes with no change."""
    by_place = {(cell.preset, cell.letters, cell.change): cell for cell in cells}
    for cell in cells:
        first = by_place.get((_COMPARED_WITH.get(cell.preset, ""), cell.letters, cell.change))
        plain = by_place.get((cell.preset, cell.letters, "")) if cell.change else None
        yield from ((other, cell) for other in (first, plain) if other and other.run_id != cell.run_id)


def _gain(runs: Runs, first: Cell, second: Cell) -> Gain:
    assert first.run_id is not None
    assert second.run_id is not None
    found = compare(runs.predictions(first.run_id), runs.predictions(second.run_id), names=(first.name, second.name))
    scores = [runs.results[run].test_summary["weighted_f1"].values for run in (first.run_id, second.run_id)]
    return Gain(
        first=first,
        second=second,
        dialogues=found.dialogues,
        seeds=len(scores[0]),
        better=sum(b > a for a, b in zip(*scores, strict=True)),
        weighted_f1=found.differences["weighted_f1"],
        macro_f1=found.differences["macro_f1"],
    )


def _outside_row(name: str, data: bytes, labels: Sequence[str]) -> Row:
    """Return the scores of predictions from elsewhere: one set of them, so without a deviation."""
    counts = dialogue_counts(data)
    found = scores(counts.sum(axis=0), tuple(labels), "test")
    lowest = min(found.classes, key=lambda row: row.f1)
    measured = Measured(
        seeds=(),
        **{score: summary([getattr(found, score)]) for score in HEADLINES},
        interval=dialogue_bootstrap(counts),
        lowest_class=lowest.label,
        lowest_class_f1=lowest.f1,
        dead_classes=(),
        calibration_error=None,
        gate_share=None,
    )
    return Row(cell=Cell(preset=name, letters=""), measured=measured, published=None)


def _largest_cells(cells: Sequence[Cell], runs: Runs) -> Iterator[Cell]:
    """Yield each preset's finished, unchanged cell with the most modalities; other predictions are compared with it."""
    for preset in dict.fromkeys(cell.preset for cell in cells):
        own = [cell for cell in cells if cell.preset == preset and not cell.change and cell.run_id in runs.results]
        if own:
            yield max(own, key=lambda cell: len(cell.letters))


def _outside_gain(runs: Runs, first: Cell, data: bytes, second: Cell) -> Gain:
    """Compare predictions from elsewhere with a cell; they are repeated for each of its seeds."""
    assert second.run_id is not None
    values = runs.results[second.run_id].test_summary["weighted_f1"].values
    ours, theirs = runs.predictions(second.run_id), pool([data] * len(values))
    found = compare(theirs, ours, names=(first.name, second.name))
    return Gain(
        first=first,
        second=second,
        dialogues=found.dialogues,
        seeds=len(values),
        better=sum(value > found.differences["weighted_f1"].first for value in values),
        weighted_f1=found.differences["weighted_f1"],
        macro_f1=found.differences["macro_f1"],
    )


def _notes(  # noqa: PLR0917
    dataset: str, settings: str, features: FeatureInfo, rows: Sequence[Row], runs: Runs, protocol: str
) -> Iterator[str]:
    """Yield notes on how to read the table."""
    if features.synthetic:
        yield SYNTHETIC_NOTE
    if protocol:
        yield (
            f"Protocol of every figure: {protocol}. ± is the deviation over folds and seeds. Dev of a fold is a tenth "
            "of its train dialogues, by the fixed rule. Published numbers are of one split, and not shown."
        )
    yield from dict.fromkeys(_without_epoch(result.protocol) for result in runs.results.values())
    yield (
        "The interval of a row and the comparisons use all seeds' predictions together and resample test dialogues; "
        "they describe these seeds' models, while ± describes the spread over seeds."
    )
    yield f"Settings: {settings}. Each preset's config is that of `ada2i config --preset NAME --settings {settings}`."
    if not protocol:
        yield _published_note(dataset, features)
    yield from dict.fromkeys(result.own_code_note for result in runs.results.values() if result.own_code)
    for cell in (row.cell for row in rows if row.cell.left_out):
        names = " and ".join(m for m in MODALITIES if m in cell.left_out)
        rest = "+".join(letter.upper() for letter in cell.letters if LETTERS[letter] not in cell.left_out)
        share = f"; it shares its runs with {rest}" if rest else ""
        yield f"{cell.name}: {names} left out: fitted to the labels of train{share}."
    for row in rows:
        if row.measured and row.measured.dead_classes:
            yield f"{row.cell.name}: {'; '.join(row.measured.dead_classes)}."


def _without_epoch(protocol: str) -> str:
    """Return a protocol without its run's own median epoch, so that equal protocols are printed once."""
    before, _, after = protocol.partition(" (median epoch ")
    return before + after.partition(")")[2] if after else protocol


def _published_note(dataset: str, features: FeatureInfo) -> str:
    table = published(dataset, features)
    if table is None:
        made_up = "made-up " if features.synthetic else ""
        return f"Nothing is published for {made_up}{dataset} with {count(len(features.labels), 'class')}."
    widths = other_widths(table, features)
    differ = f" These features differ from the paper's: {widths}." if widths else ""
    return (
        f"Published: {SOURCE}, one number for each, without deviation, number of seeds or use of the test split."
        f"{differ} {table.remark}"
    ).strip()
