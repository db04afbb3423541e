"""An audit as tables for terminals and as a self-contained page. Both show the same numbers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from ada2i.audit.audit import blocking
from ada2i.audit.records import AuditReport
from ada2i.records import Finding
from ada2i.reports import audit_plots
from ada2i.reports.report import SYNTHETIC_NOTE
from ada2i.reports.templates import template

Row = dict[str, str]

_STYLES: Mapping[str, str] = {"error": "bold red", "warning": "yellow", "info": "dim"}


def terminal_report(report: AuditReport, *, allow: Sequence[str] = ()) -> list[Table | Text]:
    """Return tables to print, findings first."""
    verdict = Text(
        f"{_title(report)}: {_verdict(report, allow)}", "bold red" if _errors(report, allow) else "bold green"
    )
    parts: list[Table | Text] = [verdict, Text(report.location, "dim")]
    if report.synthetic:
        parts.append(Text(SYNTHETIC_NOTE, "bold red"))
    if report.findings:
        parts.append(_findings_table(report.findings))
    return [*parts, *(_rich(caption, found) for caption, rows in TABLES.items() if (found := rows(report)))]


def render_audit(report: AuditReport, *, allow: Sequence[str] = ()) -> str:
    """Return one HTML page that loads nothing and runs no script."""
    counts = Counter(finding.severity for finding in report.findings)
    return template(__package__, "audit.html.j2").render(
        report=report,
        title=_title(report),
        synthetic_note=SYNTHETIC_NOTE if report.synthetic else "",
        refused=bool(_errors(report, allow)),
        verdict=_verdict(report, allow),
        headlines=[
            ("Utterances", f"{sum(split.utterances for split in report.splits.values()):,}"),
            ("Errors", str(counts["error"])),
            ("Warnings", str(counts["warning"])),
        ],
        tables={caption: found for caption, rows in TABLES.items() if (found := rows(report))},
        plots=[(svg, caption) for draw, caption in _PLOTS if (svg := draw(report)) is not None],
    )


def split_rows(report: AuditReport) -> list[Row]:
    """Return a row per split: numbers of dialogues, utterances and speakers, and lengths."""
    return [
        {
            "split": name,
            "utterances": str(split.utterances),
            "dialogues": "" if split.dialogues is None else str(split.dialogues),
            "shortest": str(split.lengths.shortest) if split.lengths else "",
            "mean length": f"{split.lengths.mean:.1f}" if split.lengths else "",
            "longest": str(split.lengths.longest) if split.lengths else "",
            "speakers": str(split.speakers),
            "without speaker": str(split.unnamed),
            "transcripts": str(split.transcripts),
        }
        for name, split in report.splits.items()
    ]


def class_rows(report: AuditReport) -> list[Row]:
    """Return a row per class: utterances by split."""
    counts = {name: split.classes for name, split in report.splits.items() if split.classes is not None}
    if not counts:
        return []
    rows: list[Row] = [
        {"class": label} | {split: str(found.get(label, 0)) for split, found in counts.items()}
        for label in report.classes
    ]
    if any(report.splits[split].unlabelled for split in counts):
        rows.append({"class": "(no label: context)"} | {s: str(report.splits[s].unlabelled) for s in counts})
    return rows


def vector_rows(report: AuditReport) -> list[Row]:
    """Return a row per modality and split with statistics of its vectors."""
    return [
        {
            "modality": f"{name} ({modality.width})",
            "split": split,
            "vectors": str(found.vectors),
            "missing": str(found.missing),
            "all zero": str(found.zero),
            "non-finite": str(found.non_finite),
            "repeated": str(found.duplicates),
            "mean": _number(found.mean),
            "sd": _number(found.sd),
            "min": _number(found.low),
            "max": _number(found.high),
        }
        for name, modality in report.modalities.items()
        for split, found in modality.splits.items()
    ]


def overlap_rows(report: AuditReport) -> list[Row]:
    """Return a row per pair of splits: what the later one shares with the earlier one."""
    return [
        {
            "split": pair.later,
            "shared with": pair.earlier,
            "dialogues": str(pair.dialogues),
            "dialogue ids": str(pair.dialogue_ids),
            "speakers": str(pair.speakers),
            "transcripts": str(pair.transcripts),
        }
        | {f"{modality} copies": str(number) for modality, number in pair.copies.items()}
        for pair in report.overlaps
    ]


def probe_rows(report: AuditReport) -> list[Row]:
    """Return a row per modality that was probed: weighted F1."""
    return [
        {
            "modality": name,
            "train": f"{modality.probe.train:.4f}",
            "train, held out": f"{modality.probe.held_out:.4f}",
            "test": "" if modality.probe.test is None else f"{modality.probe.test:.4f}",
        }
        for name, modality in report.modalities.items()
        if modality.probe is not None
    ]


TABLES: Mapping[str, Callable[[AuditReport], list[Row]]] = {
    "Splits": split_rows,
    "Utterances by class": class_rows,
    "Vectors": vector_rows,
    "What splits share": overlap_rows,
    "Linear probes, weighted F1": probe_rows,
}

_PLOTS: tuple[tuple[Callable[[AuditReport], str | None], str], ...] = (
    (audit_plots.class_plot, "Classes: different bars of a class mean different splits."),
    (audit_plots.length_plot, "Dialogue lengths: the share of dialogues up to each length."),
    (audit_plots.missing_plot, "Utterances without a vector, or with one that is all zero."),
)


def _title(report: AuditReport) -> str:
    return f"Audit of {report.dataset or report.location.rstrip('/').rpartition('/')[2]}"


def _errors(report: AuditReport, allow: Sequence[str]) -> list[Finding]:
    return blocking(report.findings, allow=allow)


def _verdict(report: AuditReport, allow: Sequence[str]) -> str:
    if errors := _errors(report, allow):
        return f"training would refuse it ({', '.join(dict.fromkeys(finding.code for finding in errors))})"
    accepted = [f.code for f in report.findings if f.severity == "error"]
    return "training accepts it" + (f", allowing {', '.join(dict.fromkeys(accepted))}" if accepted else "")


def _findings_table(findings: Sequence[Finding]) -> Table:
    table = Table("severity", "code", "split", "modality", "what was found", title="Findings", title_justify="left")
    for finding in findings:
        where = (finding.split or "", finding.modality or "")
        severity = Text(finding.severity, _STYLES[finding.severity])
        table.add_row(severity, Text(finding.code), *map(Text, where), Text(finding.message))
    return table


def _rich(caption: str, rows: Sequence[Row]) -> Table:
    table = Table(title=caption, title_justify="left")
    for place, head in enumerate(rows[0]):
        table.add_column(head, justify="right" if place else "left")
    for row in rows:
        table.add_row(*map(Text, row.values()))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
