"""A study as markdown, CSV, JSON and tables for terminals, all with the same numbers."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ada2i.display import table_of
from ada2i.evaluation.metrics import HEADLINES, area
from ada2i.modalities import LETTERS, Modality
from ada2i.reports.report import NUMBERS, markdown_table, markdown_text
from ada2i.studies.plot import study_plot
from ada2i.studies.published import Published
from ada2i.studies.rows import Contribution, Gain, Measured, Row, Study, change_name

Line = dict[str, str | float | int]

_BLANK = "-"
_WHY = ": fitted to train labels"


def write_tables(study: Study, folder: Path) -> None:
    """Write ``table.md``, ``table.csv``, ``table.json`` and ``plot.png`` to a folder; existing files are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.json").write_bytes(study.to_json())
    (folder / "table.csv").write_text(study_csv(study), encoding="utf-8")
    (folder / "plot.png").write_bytes(study_plot(study))
    (folder / "table.md").write_text(study_markdown(study), encoding="utf-8")


def study_markdown(study: Study) -> str:
    """Return all tables and notes as markdown, with a link to the plot."""
    blocks = [f"# {markdown_text(title(study))}", "![Weighted F1 by row](plot.png)"]
    for caption, lines in _captions(study, missing=True).items():
        if found := _known(lines(study)):
            blocks += [f"## {caption}", markdown_table(found)]
    notes = "\n".join(f"- {markdown_text(note)}" for note in study.notes)
    return "\n\n".join([*blocks, "## How to read it", notes]) + "\n"


def study_csv(study: Study) -> str:
    """Return a line per row of the study with full precision; a missing number is an empty cell."""
    lines = [_flat(row) for row in study.rows]
    buffer = io.StringIO()
    heads = max((list(line) for line in lines), key=len)  # a row without scores has fewer
    writer = csv.DictWriter(buffer, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def terminal_study(study: Study, *, missing: bool = False) -> list[Table | Text]:
    """Return tables to print; that of missing modalities only on request."""
    chosen = _captions(study, missing=missing).items()
    tables = [table_of(caption, _short(found)) for caption, lines in chosen if (found := _known(lines(study)))]
    return [Text(title(study), "bold"), *tables, *(Text(note, "dim") for note in study.notes)]


def title(study: Study) -> str:
    """Return the title of a study."""
    protocol = f", {study.protocol}" if study.protocol else ""
    return f"Ada2I on {study.dataset}" + " (SYNTHETIC)" * study.synthetic + protocol


def score_lines(study: Study) -> list[Line]:
    """Return a line per row: test scores over seeds, with the published ones."""
    return [_place(row) | (_scores(row) if row.measured else _nothing(row)) for row in study.rows]


def health_lines(study: Study) -> list[Line]:
    """Return a line per measured row: details that a mean hides."""
    return [
        _place(row)
        | {
            "lowest class": measured.lowest_class,
            "its F1": f"{measured.lowest_class_f1:.4f}",
            "ECE": _number(measured.calibration_error),
            "gate share": _number(measured.gate_share),
            "dev wF1": measured.dev_weighted_f1.text if measured.dev_weighted_f1 else _BLANK,
        }
        for row in study.rows
        if (measured := row.measured)
    ]


def contribution_lines(study: Study) -> list[Line]:
    """Return a line per preset and modality: its score alone, and the loss without it."""
    return [_contribution(each) for each in study.contributions]


def gain_lines(study: Study) -> list[Line]:
    """Return a line per paired comparison."""
    return [_gain(each) for each in study.gains]


def baseline_lines(study: Study) -> list[Line]:
    """Return a line per baseline; linear ones read vectors and decayed means of their context."""
    return [
        {
            "baseline": each.name,
            "wF1": f"{each.weighted_f1:.4f}",
            "95% interval": f"{each.interval.low:.4f} to {each.interval.high:.4f}" if each.interval else _BLANK,
            "macro F1": f"{each.macro_f1:.4f}",
            "accuracy": f"{each.accuracy:.4f}",
            "dev wF1": _number(each.dev_weighted_f1),
            **{head: _number(getattr(each.regression, name, None)) for name, head in NUMBERS.items()},
        }
        for each in study.baselines
    ]


def missing_lines(study: Study) -> list[Line]:
    """Return a line per measured row: weighted F1 with only some modalities, by missing rate, and the rates' area."""
    lines = []
    for row in study.rows:
        if row.measured and row.measured.missing:
            found = row.measured.missing
            subsets = {f"only {_letters(x.kept)}": f"{x.weighted_f1:.4f}" for x in found if x.rate is None}
            rates = {f"{x.rate:.0%} missing": f"{x.weighted_f1:.4f}" for x in found if x.rate is not None}
            lines.append(_place(row) | subsets | rates | {"area": f"{area(found):.4f}"})
    heads = list(dict.fromkeys(head for line in lines for head in line))
    return [{head: line.get(head, _BLANK) for head in heads} for line in lines]


def _letters(modalities: Sequence[Modality]) -> str:
    return "+".join(letter.upper() for letter, modality in LETTERS.items() if modality in modalities)


TABLES: Mapping[str, Callable[[Study], list[Line]]] = {
    "Test scores, mean ± sample deviation over seeds; wF1: weighted F1": score_lines,
    "Baselines on the same test split": baseline_lines,
    "Details that a mean hides": health_lines,
    "What each modality adds, weighted F1": contribution_lines,
    "Paired on the same test dialogues, all seeds together, weighted F1": gain_lines,
}
MISSING = "With missing modalities, weighted F1, mean over seeds"


def _captions(study: Study, *, missing: bool) -> dict[str, Callable[[Study], list[Line]]]:
    """Return the tables by their caption, which names the protocol of folds."""
    chosen = {**TABLES, MISSING: missing_lines} if missing else dict(TABLES)
    if not study.protocol:
        return chosen
    over = "over folds × seeds"  # noqa: RUF001
    return {f"{title.replace('over seeds', over)}; {study.protocol}": lines for title, lines in chosen.items()}


def _known(lines: Sequence[Line]) -> list[Line]:
    """Leave out columns that are empty in every line."""
    heads = [head for head in (lines[0] if lines else ()) if any(line[head] != _BLANK for line in lines)]
    return [{head: line[head] for head in heads} for line in lines]


def _short(lines: Sequence[Line]) -> list[Line]:
    """Leave out the reason for left-out modalities, which a note gives, so that all columns fit into 80 characters."""
    return [{head: str(value).replace(_WHY, "") for head, value in line.items()} for line in lines]


def _place(row: Row) -> Line:
    return {"preset": row.cell.preset, "modalities": _modalities(row), "change": _change(row.cell.change)}


def _modalities(row: Row) -> str:
    left_out = " and ".join(row.cell.left_out)
    return (row.cell.modalities or _BLANK) + (f", {left_out} left out{_WHY}" if left_out else "")


def _change(change: str) -> str:
    return change_name(change) or _BLANK


def _scores(row: Row) -> Line:
    measured = row.measured
    assert measured is not None
    bounds, numbers = measured.interval, measured.regression
    return {
        "wF1": measured.weighted_f1.text,
        f"wF1, {bounds.level:.0%} interval": f"{bounds.low:.4f} to {bounds.high:.4f}",
        "macro F1": measured.macro_f1.text,
        "accuracy": measured.accuracy.text,
        **{head: numbers[name].text if name in numbers else _BLANK for name, head in NUMBERS.items()},
        **_published(row),
    }


def _nothing(row: Row) -> Line:
    blank = dict.fromkeys(("wF1, 95% interval", "macro F1", "accuracy"), "") | dict.fromkeys(NUMBERS.values(), _BLANK)
    return {"wF1": row.problem, **blank, **_published(row)}


def _published(row: Row) -> Line:
    scores = (row.published.weighted_f1, row.published.accuracy) if row.published else (None, None)
    return dict(zip(("published wF1", "published accuracy"), map(_number, scores), strict=True))


def _contribution(each: Contribution) -> Line:
    return {
        "preset": each.preset,
        "modality": each.modality,
        "alone": _number(each.alone),
        "all": _number(each.whole),
        "all but it": _number(each.without),
        "it adds": _signed(each.added),
    }


def _gain(each: Gain) -> Line:
    found = each.weighted_f1
    return {
        "second": each.second.name,
        "first": each.first.name,
        "second - first": _signed(found.difference),
        f"{found.interval.level:.0%} interval": f"{found.interval.low:+.4f} to {found.interval.high:+.4f}",
        "p boot": f"{found.p_bootstrap:.4f}",
        "p swap": f"{found.p_randomisation:.4f}",
        "p Holm": _number(each.p_adjusted),
        "macro F1": _signed(each.macro_f1.difference),
        "seeds better": f"{each.better} of {each.seeds}",
    }


def _flat(row: Row) -> Line:
    cell, measured, printed = row.cell, row.measured, row.published or Published()
    facts: dict[str, str | float | int | None] = {
        "preset": cell.preset,
        "modalities": cell.modalities,
        "change": cell.change,
        "left_out": " ".join(cell.left_out),
        "run": cell.run_id,
        "problem": row.problem,
        "published_weighted_f1": printed.weighted_f1,
        "published_accuracy": printed.accuracy,
    }
    return {name: "" if value is None else value for name, value in (facts | _flat_scores(measured)).items()}


def _flat_scores(measured: Measured | None) -> dict[str, str | float | int | None]:
    if measured is None:
        return {}
    scores = {name: getattr(measured, name) for name in ("dev_weighted_f1", *HEADLINES)} | measured.regression
    scores = {name: score for name, score in scores.items() if score is not None}
    return {
        "seeds": " ".join(map(str, measured.seeds)),
        **{f"{name}_mean": score.mean for name, score in scores.items()},
        **{f"{name}_sd": score.sd for name, score in scores.items()},
        "interval_low": measured.interval.low,
        "interval_high": measured.interval.high,
        "lowest_class": measured.lowest_class,
        "lowest_class_f1": measured.lowest_class_f1,
        "calibration_error": measured.calibration_error,
        "gate_share": measured.gate_share,
    }


def _number(value: float | None) -> str:
    return _BLANK if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return _BLANK if value is None else f"{value:+.4f}"
