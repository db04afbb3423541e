"""What an audit measures, as records: the same for a feature set and for a table that cannot be imported."""

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
    """Rows of one split; what the source lacks a column for is None."""

    utterances: int
    dialogues: int | None
    classes: dict[str, int] | None  # utterances by class
    lengths: Lengths | None
    speakers: int  # different names
    unnamed: int  # utterances without speaker
    transcripts: int  # utterances with one


class VectorAudit(Record):
    """One modality's vectors in one split; value statistics are over all finite numbers."""

    vectors: int  # present, all-zero ones included
    missing: int
    zero: int
    non_finite: int
    duplicates: int  # repeat another vector of the split; none for text vectors of one and the same transcript
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


class ProbeAudit(Record):
    """Weighted F1 of a linear probe fitted on train; ``held_out`` is over train dialogues that a fit did not see.

    A lead is by how much the best class scores above the second, on average: how sure the probe is. It reads no label.
    """

    train: float
    held_out: float
    test: float
    train_utterances: int
    test_utterances: int
    held_out_lead: float
    test_lead: float


class ModalityAudit(Record):
    """One modality's vectors in all splits."""

    width: int
    other_widths: int  # vectors of another width than that
    splits: dict[str, VectorAudit]
    constant_columns: dict[int, float]  # by column: its one value in train (in all rows if there is no train)
    non_finite_columns: dict[int, int]  # by column: rows
    non_finite_kinds: tuple[str, ...]  # of nan, inf and -inf
    non_finite_rows: tuple[int, ...]  # the first ones, counted over the whole source from 0
    probe: ProbeAudit | None = None


class OverlapAudit(Record):
    """What a split shares with an earlier one."""

    earlier: str
    later: str
    dialogue_ids: int
    dialogues: int  # of the same id and the same content
    speakers: int
    transcripts: int  # utterances of the later split with a transcript that the earlier one has
    copies: dict[Modality, int]  # vectors of the later split; none for text vectors of one and the same transcript


class AuditReport(Record):
    """All that an audit measured and found; findings are sorted, the worst first."""

    schema_version: Literal[1] = 1
    location: str
    kind: Literal["feature set", "table"]
    dataset: str | None
    synthetic: bool
    fingerprint: str | None
    dev_rule: str | None
    classes: tuple[str, ...]
    absent_columns: tuple[str, ...]  # required ones
    null_keys: dict[str, int]  # by required column: rows without a value
    splits: dict[str, SplitAudit]
    modalities: dict[Modality, ModalityAudit]
    overlaps: tuple[OverlapAudit, ...]
    probed: bool
    thresholds: AuditThresholds
    findings: tuple[Finding, ...] = ()
