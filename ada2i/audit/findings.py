"""Turns measures into findings, each with a stable code, by fixed thresholds."""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from ada2i.audit.blocks import ALL
from ada2i.audit.counts import SPLITS
from ada2i.audit.records import AuditReport, OverlapAudit, ProbeAudit
from ada2i.audit.thresholds import AuditThresholds
from ada2i.display import count
from ada2i.modalities import Modality
from ada2i.records import Finding

Severity = Literal["error", "warning", "info"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

CODES: Mapping[str, str] = {
    "missing-columns": "required columns that a table lacks",
    "null-keys": "rows without a value in a required column",
    "unknown-split": "rows of a split that is not train, dev, test or gate",
    "absent-split": "no rows of train, or none of test",
    "mixed-widths": "vectors of different widths in one modality",
    "non-finite": "vectors that hold NaN or infinity",
    "dialogue-overlap": "dialogues that two splits share, with the same content",
    "cross-split-copies": "vectors that are exact copies of vectors of an earlier split",
    "missing-vectors": "utterances without a vector",
    "absent-class": "classes without utterances in a split",
    "zero-vectors": "vectors that are all zero",
    "constant-columns": "columns that hold one value in all of train",
    "duplicate-vectors": "vectors that repeat another of their split",
    "duplicate-texts": "transcripts that an earlier split has too",
    "speaker-overlap": "speakers that two splits share",
    "shared-dialogue-ids": "dialogue ids that two splits use for different content",
    "tiny-split": "splits too small to distinguish models",
    "train-fitted-features": "vectors of an encoder that seems fitted to the labels of train",
    "dev-from-train": "no dev split of the corpus's own",
}


def findings(report: AuditReport) -> tuple[Finding, ...]:
    """Return the findings of a report's measures, sorted by severity, then by the order of ``CODES``."""
    found = [finding for rule in _RULES for finding in rule(report, report.thresholds)]
    codes = list(CODES)
    return tuple(sorted(found, key=lambda f: (SEVERITIES.index(f.severity), codes.index(f.code))))


def _importable(report: AuditReport, _: AuditThresholds) -> Iterator[Finding]:
    if absent := report.absent_columns:
        names = ", ".join(f"`{name}`" for name in absent)
        yield _finding("missing-columns", "error", len(absent), f"The table lacks {names}: it cannot be imported.")
    if not report.modalities:
        yield _finding("missing-columns", "error", 1, "The table lacks vectors of any modality: it cannot be imported.")
    for column, number in report.null_keys.items():
        message = f"{_rows(number)} no `{column}`: the table cannot be imported."
        yield _finding("null-keys", "error", number, message)
    for split in report.splits:
        if split not in (*SPLITS, ALL):
            number = report.splits[split].utterances
            message = f"{_rows(number)} the split {split!r}, which is not one of {', '.join(SPLITS)}."
            yield _finding("unknown-split", "error", number, message, split=split)
    for split in ("train", "test"):
        if split not in report.splits and ALL not in report.splits:
            yield _finding("absent-split", "error", 1, f"No row is of {split}.", split=split)


def _values(report: AuditReport, _: AuditThresholds) -> Iterator[Finding]:
    for name, modality in report.modalities.items():
        if number := modality.other_widths:
            message = f"{_vectors(number)} not as wide as most ({modality.width}): one encoder must make all."
            yield _finding("mixed-widths", "error", number, message, modality=name)
        if number := sum(split.non_finite for split in modality.splits.values()):
            columns, rows = _columns(list(modality.non_finite_columns)), _some(list(modality.non_finite_rows), number)
            kinds = ", ".join(modality.non_finite_kinds)
            message = f"{_rows(number)} {kinds} in {columns} (rows, counted from 0: {rows})."
            yield _finding("non-finite", "error", number, message, modality=name)
        if constant := modality.constant_columns:
            zero = sum(value == 0 for value in constant.values())
            where, hold = (
                "all of train" if "train" in report.splits else "all rows",
                "hold" + "s" * (len(constant) == 1),
            )
            message = (
                f"{len(constant)} of {count(modality.width, 'column')} {hold} one value in {where} ({zero} of them "
                f"zero): {_columns(list(constant))}."
            )
            yield _finding("constant-columns", "warning", len(constant), message, modality=name)


def _presence(report: AuditReport, limits: AuditThresholds) -> Iterator[Finding]:
    for name, modality in report.modalities.items():
        for split, found in modality.splits.items():
            total = found.vectors + found.missing
            if found.missing:
                severity = _above(found.missing / total, limits.missing_warning, limits.missing_error)
                message = f"{_of(found.missing, total)} utterances have no {name} vector."
                yield _finding("missing-vectors", severity, found.missing, message, split=split, modality=name)
            if found.zero:
                severity = _above(found.zero / found.vectors, limits.zero_warning)
                message = f"{_of(found.zero, found.vectors)} {name} vectors are all zero: use null for missing vectors."
                yield _finding("zero-vectors", severity, found.zero, message, split=split, modality=name)
            if found.duplicates:
                severity = _above(found.duplicates / found.vectors, limits.duplicates_warning)
                message = f"{_of(found.duplicates, found.vectors)} {name} vectors repeat another of the split exactly."
                yield _finding("duplicate-vectors", severity, found.duplicates, message, split=split, modality=name)


def _classes(report: AuditReport, _: AuditThresholds) -> Iterator[Finding]:
    counts = {name: split.classes for name, split in report.splits.items() if split.classes is not None}
    seen = {label for split in counts.values() for label, number in split.items() if number}
    for split, classes in counts.items():
        if absent := [label for label, number in classes.items() if not number]:
            unlearnt = split == "train" and not seen.isdisjoint(absent)
            message = f"No utterance of {split} is of {_some([repr(label) for label in absent])}" + (
                ", so nothing can be learnt of what other splits hold." if unlearnt else ": macro F1 counts it as 0."
            )
            yield _finding("absent-class", "error" if unlearnt else "warning", len(absent), message, split=split)


def _sizes(report: AuditReport, limits: AuditThresholds) -> Iterator[Finding]:
    for split, found in report.splits.items():
        if found.dialogues is not None and 0 < found.dialogues < limits.split_dialogues:
            message = f"{split} has {count(found.dialogues, 'dialogue')}: scores on it are mostly chance."
            yield _finding("tiny-split", "warning", found.dialogues, message, split=split)
    cut = report.dev_rule is not None
    if cut or (report.kind == "table" and "train" in report.splits and "dev" not in report.splits):
        message = f"The corpus has no dev split: {'it was' if cut else 'on import it is'} cut from train."
        yield _finding("dev-from-train", "info", 1, message, split="dev")


def _overlaps(report: AuditReport, limits: AuditThresholds) -> Iterator[Finding]:
    for pair in report.overlaps:
        if pair.dialogues:
            message = (
                f"{count(pair.dialogues, 'dialogue')} of {pair.later}, content and all, {_are(pair.dialogues)} in "
                f"{pair.earlier} too."
            )
            yield _finding("dialogue-overlap", "error", pair.dialogues, message, split=pair.later)
        if other := pair.dialogue_ids - pair.dialogues:
            message = f"{pair.earlier} and {pair.later} share {count(other, 'dialogue id')} for different content."
            yield _finding("shared-dialogue-ids", "info", other, message, split=pair.later)
        yield from _copies(report, pair, limits)
        yield from _people(report, pair)
        if number := pair.transcripts:
            total = report.splits[pair.later].transcripts
            message = f"{_of(number, total)} transcripts of {pair.later} occur in {pair.earlier}."
            severity = _above(number / total, limits.texts_warning)
            yield _finding("duplicate-texts", severity, number, message, split=pair.later)


def _copies(report: AuditReport, pair: OverlapAudit, limits: AuditThresholds) -> Iterator[Finding]:
    for name, number in pair.copies.items():
        found = report.modalities[name].splits[pair.later]
        if number:
            real = found.vectors - found.zero
            share = number / real
            message = (
                f"{_of(number, real)} {name} vectors of {pair.later} are exact copies of vectors of {pair.earlier}."
            )
            severity: Severity = "error" if share > limits.copies_error else "warning"
            yield _finding("cross-split-copies", severity, number, message, split=pair.later, modality=name)


def _people(report: AuditReport, pair: OverlapAudit) -> Iterator[Finding]:
    if number := pair.speakers:
        total = report.splits[pair.later].speakers
        roles = max(split.speakers for split in report.splits.values()) <= 2
        message = f"{number} of {count(total, 'speaker')} of {pair.later} {_are(number)} in {pair.earlier} too" + (
            " (two names in all: roles rather than people)." if roles else ": scores are not those on new people."
        )
        yield _finding("speaker-overlap", "info" if roles else "warning", number, message, split=pair.later)


def _fitted(report: AuditReport, limits: AuditThresholds) -> Iterator[Finding]:
    for name, modality in report.modalities.items():
        scores = modality.probe
        if scores is None:
            continue
        gap = 0.0 if scores.test is None else scores.held_out - scores.test
        if less_sure(scores, limits) or gap > max(limits.probe_gap, 3 * _noise(scores)):
            on_test = "" if scores.test is None else f", but {scores.test:.2f} on test"
            message = (
                f"A linear probe of {name} has weighted F1 {scores.held_out:.2f} on held-out train dialogues{on_test}; "
                f"its best class leads by {scores.held_out_lead:.2f} there and by {scores.test_lead:.2f} on test. "
                "This hints that the encoder was fitted to train labels: then a dev split cut "
                "from train cannot select models."
            )
            yield _finding("train-fitted-features", "warning", 1, message, split="train", modality=name)


def less_sure(probe: ProbeAudit, limits: AuditThresholds) -> bool:
    """Return whether a probe is much less confident on test than on held-out train dialogues; reads no label."""
    enough = probe.test_utterances >= _ENOUGH and probe.held_out_lead >= _SURE
    return enough and probe.test_lead < limits.probe_lead * probe.held_out_lead


def _noise(probe: ProbeAudit) -> float:
    """Return an upper estimate of the gap's standard error."""
    return float((0.25 / probe.train_utterances + 0.25 / probe.test_utterances) ** 0.5)


_SURE = 0.2  # held-out lead of a probe that has learned something; the lead of an unsure one is noise
_ENOUGH = 200  # test utterances: of fewer, the mean lead varies by a tenth by chance

_RULES: tuple[Callable[[AuditReport, AuditThresholds], Iterator[Finding]], ...] = (
    _importable,
    _values,
    _overlaps,
    _presence,
    _classes,
    _sizes,
    _fitted,
)


# --- words ---


def _finding(
    code: str,
    severity: Severity,
    count: int,
    message: str,
    *,
    split: str | None = None,
    modality: Modality | None = None,
) -> Finding:
    return Finding(code=code, severity=severity, message=message, count=count, split=split, modality=modality)


def _above(share: float, warning: float, error: float = 1.0) -> Severity:
    if share > error:
        return "error"
    return "warning" if share > warning else "info"


def _of(number: int, total: int) -> str:
    return f"{number} of {total} ({number / total:.1%})"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _rows(number: int) -> str:
    return f"{count(number, 'row')} {'has' if number == 1 else 'have'}"


def _vectors(number: int) -> str:
    return f"{count(number, 'vector')} {_are(number)}"


def _columns(numbers: list[int]) -> str:
    return f"column{'s' if len(numbers) > 1 else ''} {_some(numbers)}"


def _some(items: list[int] | list[str], total: int | None = None) -> str:
    """Return the first few items, and the number of the others."""
    shown = ", ".join(map(str, items[:5]))
    more = (total or len(items)) - len(items[:5])
    return f"{shown} and {more} more" if more > 0 else shown
