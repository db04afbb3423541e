"""The records of an audit: the same for a feature set and for a table that cannot be imported."""

from typing import Literal

from ada2i.audit.thresholds import AuditThresholds
from ada2i.modalities import Modality
from ada2i.records import Finding, Record


class Lengths(Record):
    """Utterances per dialogue in one split."""

    shortest: int
    mean: float
    longest: int
    histogram: dict[int, int]  # by length: dialogues


class SplitAudit(Record):
    """Counts of one split; None if the source lacks the column."""

    utterances: int
    dialogues: int | None
    classes: dict[str, int] | None  # number of utterances by class
    lengths: Lengths | None
    speakers: int  # different names
    unnamed: int  # utterances without speaker
    transcripts: int  # utterances with one
    unlabelled: int = 0  # utterances without a label, which are only context


class VectorAudit(Record):
    """One modality's vectors in one split; value statistics are over all finite numbers."""

    vectors: int  # present, all-zero ones included
    missing: int
    zero: int
    non_finite: int
    duplicates: int  # copies of another vector of the split, except text vectors of the same transcript
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


class ProbeAudit(Record):
    """Weighted F1 of a linear probe fitted on train; ``held_out`` is on train dialogues left out of the fit.

    A lead is the mean difference between the best and the second class: the probe's confidence. It reads no label, and
    on test is the larger one of two: on its vectors with the scale of train, and with the means of train, too.
    """

    train: float
    held_out: float
    test: float | None = None  # None: no label of test was read, or there is none
    train_utterances: int
    test_utterances: int
    held_out_lead: float
    test_lead: float


class ModalityAudit(Record):
    """One modality's vectors in all splits."""

    width: int
    other_widths: int  # vectors of other widths
    splits: dict[str, VectorAudit]
    constant_columns: dict[int, float]  # by column: its only value in train (in all rows if there is no train)
    non_finite_columns: dict[int, int]  # number of rows by column
    non_finite_kinds: tuple[str, ...]  # of nan, inf and -inf
    non_finite_rows: tuple[int, ...]  # the first ones, counted over the whole source from 0
    probe: ProbeAudit | None = None


class OverlapAudit(Record):
    """The overlap of a split with an earlier one."""

    earlier: str
    later: str
    dialogue_ids: int
    dialogues: int  # with the same id and the same content
    speakers: int
    transcripts: int  # utterances of the later split with a transcript that the earlier one has
    copies: dict[Modality, int]  # copied vectors of the later split, except text vectors of the same transcript


class AuditReport(Record):
    """The whole result of an audit; findings are sorted by severity."""

    schema_version: Literal[1] = 1
    location: str
    kind: Literal["feature set", "table"]
    dataset: str | None
    synthetic: bool
    fingerprint: str | None
    dev_rule: str | None
    classes: tuple[str, ...]
    absent_columns: tuple[str, ...]  # required columns that are absent
    null_keys: dict[str, int]  # by required column: rows without a value
    splits: dict[str, SplitAudit]
    modalities: dict[Modality, ModalityAudit]
    overlaps: tuple[OverlapAudit, ...]
    probed: bool
    thresholds: AuditThresholds
    findings: tuple[Finding, ...] = ()
