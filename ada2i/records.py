"""Small frozen records that flows, jobs and files exchange, and the folders of a run.

A run is a folder: ``request.json`` (written first), one folder per seed with ``checkpoints``, ``best``, and
``result.json``, then ``test.json`` per seed, ``result.json``, ``report.html`` and ``README.md``. Results and test
scores of seeds are written once; in a request only the resources may change, when a run resumes elsewhere.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from ada2i import errors, storage
from ada2i.config import TrainConfig
from ada2i.errors import Ada2iError, DataError, IntegrityError
from ada2i.modalities import Modality

UNLABELLED: Final = -1
"""Class index of an utterance without a label: it is context, and is in no loss, score or count of classes."""

_SPECIAL = r"/\\%?#\x00-\x1f\x7f"  # what a path or URI reads in another way


def _instant(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time must have a time zone")
    return text


# What records name is checked when they are read, since names become parts of paths.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")]  # of a file in a folder
RUN_ID = rf"^[^.{_SPECIAL}][^{_SPECIAL}]{{0,199}}$"
RunId = Annotated[str, StringConstraints(pattern=RUN_ID)]
DatasetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,254}$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Alias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]  # never a number, which names a version
Number = Annotated[int, Field(ge=1, lt=10**9)]  # of a version, move or verdict
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Instant = Annotated[str, AfterValidator(_instant)]  # UTC, ISO 8601

_SEAL = re.compile(rb'\{\n "seal": "([0-9a-f]{64})",')
_NO_SEAL = b"0" * 64


class Record(BaseModel):
    """Base of all records: frozen, unknown fields refused, stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        """Return UTF-8 JSON, indented, with a newline at the end."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    def stored(self) -> bytes:
        """Return ``to_json`` with a seal in its first line, for an object whose digest no other object records.

        The seal is the SHA-256 of these bytes with 64 zeros in its place. If one byte changes, ``load`` raises.
        """
        blank = self.to_json().replace(b"{", b'{\n "seal": "%b",' % _NO_SEAL, 1)
        return blank.replace(_NO_SEAL, storage.digest(blank).encode(), 1)

    @classmethod
    def load(cls, uri: str, sha256: str | None = None) -> Self:
        """Read a record.

        Args:
            uri: Its location.
            sha256: The digest that its bytes must have; None: any.

        Raises:
            NotFoundError: It does not exist.
            IntegrityError: Its bytes do not match its seal, or the digest.
            DataError: It is damaged, or has another schema version.
        """
        data = storage.get(uri)
        if sha256 is not None and storage.digest(data) != sha256:
            raise IntegrityError(
                f"{uri} must be the request that was submitted, with SHA-256 {sha256[:16]}..., but has "
                f"{storage.digest(data)[:16]}.... It was replaced since: check who can write there, then repeat the "
                "command.",
                uri=uri,
            )
        return cls.opened(data, uri)

    @classmethod
    def opened(cls, data: bytes, uri: str) -> Self:
        """Return a record from its bytes, which were read from a URI; raises as ``load`` does."""
        seal = unsealed(data, uri)
        with described(cls, uri):
            return cls.model_validate_json(b"{" + data[seal:] if seal else data)


class Sealed(Record):
    """A record that stores its seal, so that another record can refer to it.

    Attributes:
        seal: The seal of ``Record.stored``; None in records older than seals.
    """

    seal: str | None = None  # the first field, so the bytes equal those of `Record.stored`

    def sealed(self) -> Self:
        """Return the record with its seal."""
        blank = self.model_copy(update={"seal": _NO_SEAL.decode()})
        return self.model_copy(update={"seal": storage.digest(blank.to_json())})

    def stored(self) -> bytes:
        """Return ``to_json`` with the seal."""
        return self.sealed().to_json()

    @classmethod
    def opened(cls, data: bytes, uri: str) -> Self:
        """Return a record with its seal from its bytes, which were read from a URI; raises as ``load`` does."""
        record = super().opened(data, uri)
        seal = _SEAL.match(data)
        if record.seal is not None:  # the seal is not in the form that was checked
            raise _broken(uri, record.seal, found="none in the form that it was written in")
        return record.model_copy(update={"seal": seal[1].decode() if seal else None})


def unsealed(data: bytes, uri: str) -> int:
    """Check a record's seal; return where its JSON goes on after the seal, 0 if it has none: older records have none.

    Raises:
        IntegrityError: The bytes do not match the seal.
    """
    seal = _SEAL.match(data)
    if seal is None:
        return 0
    # Compare bytes, not fields: fields that a later version of the schema adds are not in stored bytes.
    view, total = memoryview(data), hashlib.sha256(data[: seal.start(1)] + _NO_SEAL)
    total.update(view[seal.end(1) :])
    if total.hexdigest() != seal[1].decode():
        raise _broken(uri, seal[1].decode(), found=f"{total.hexdigest()[:16]}...")
    return seal.end()


@contextmanager
def described(record: type[Record], uri: str) -> Iterator[None]:
    """Raise errors of validation as ``DataError``, with the record and its location."""
    try:
        yield
    except ValidationError as problem:
        raise DataError(
            f"{uri} must hold a {record.__name__} of schema version 1, but: "
            f"{problem.errors(include_url=False)[0]['msg']} at `{'.'.join(map(str, problem.errors()[0]['loc']))}`. "
            "It was damaged, or written by another version of ada2i.",
            uri=uri,
        ) from problem


def _broken(uri: str, seal: str, *, found: str) -> IntegrityError:
    return IntegrityError(
        f"{uri} must have the SHA-256 that it carries as its seal, {seal[:16]}..., but has {found}. It was changed or "
        "damaged after it was written: restore it.",
        uri=uri,
    )


class Failure(Record):
    """An error of this package, as it is sent from one process to another.

    Attributes:
        kind: The name of its class in ``ada2i.errors``.
        message: Its message.
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: Ada2iError) -> Self:
        """Return the record of an error."""
        return cls(kind=type(error).__name__, message=error.message)

    def error(self) -> Ada2iError:
        """Return the error; a class that this version does not have becomes a ``JobError``."""
        return errors.KINDS.get(self.kind, errors.JobError)(self.message)


Temperature = Annotated[float, Field(gt=0.0)]  # by which logits are divided before softmax


class FileEntry(Record):
    """A stored file's size in bytes and SHA-256."""

    size: int
    sha256: Sha256


class Recipe(Record):
    """The encoders and settings of extracted vectors: enough to extract more vectors in the same way."""

    config: dict[str, JsonValue]  # `encoders` and `media` of the extraction's config
    encoders: dict[Modality, str]  # digests of everything that decides an encoder's vectors, including its weights


class FeatureInfo(Record):
    """The facts about features that a model needs."""

    uri: str
    dataset: DatasetName
    fingerprint: str
    synthetic: bool
    labels: tuple[str, ...]
    widths: dict[Modality, int]
    recipe: Recipe | None = None  # None if the vectors were imported


class Finding(Record):
    """One finding of an audit of features."""

    code: str  # stable; the argument of `--allow`
    severity: Literal["error", "warning", "info"]
    message: str
    count: int  # the first number in the message: vectors, rows, columns, dialogues...
    split: str | None = None
    modality: Modality | None = None


class GateRecord(Record):
    """The findings of the audit before a training, the codes that were allowed, and modalities left out for them."""

    findings: tuple[Finding, ...]
    allowed: tuple[str, ...]
    left_out: tuple[Modality, ...] = ()  # requested, but fitted to the labels of train


class SearchNote(Record):
    """The search that produced a run's config."""

    search_id: RunId
    trial: int  # 0: the config from before the search
    trials: int
    space: dict[str, str]  # by config field: how it was varied, in words


OwnCode = dict[str, Sha256]  # of classes of the caller's own that the config names: the digests of their sources


def _none_named(own_code: OwnCode) -> bool:
    return not own_code


def _is_none(value: object) -> bool:
    return value is None


class Teacher(Record):
    """A registered version that teaches a run."""

    name: str  # MODEL@NUMBER
    weights: Sha256


def _no_teachers(teachers: tuple[Teacher, ...]) -> bool:
    return not teachers


class Teaching(Record):
    """The teachers of a run, and the file with their outputs on train, next to the request."""

    teachers: tuple[Teacher, ...] = Field(min_length=1)
    targets: FileEntry


class RunRequest(Record):
    """The request of a training job: its only input apart from the feature shards."""

    schema_version: Literal[1] = 1
    run_id: RunId
    config: TrainConfig
    features: FeatureInfo
    audit: GateRecord | None = None  # none in requests older than the audit
    search: SearchNote | None = None  # None if the config was given
    own_code: OwnCode = Field(default_factory=dict, exclude_if=_none_named)
    teaching: Teaching | None = Field(None, exclude_if=_is_none)

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """The versions that teach the run."""
        return self.teaching.teachers if self.teaching else ()

    @property
    def taught(self) -> str:
        """A sentence about the teachers; empty if there are none."""
        names = ", ".join(teacher.name for teacher in self.teachers)
        learned = ["the mean probabilities"] if self.config.loss.distillation else []
        learned += ["the encoders' outputs"] if self.config.learns_encodings else []
        return f"Distilled: trained on labels and on {' and '.join(learned)} of {names}." if names else ""

    @property
    def searched(self) -> str:
        """A sentence about the search that the config comes from; empty if there was no search."""
        if self.search is None:
            return ""
        note = self.search
        source = f"trial {note.trial}" if note.trial else "the unchanged config"
        fields = len(note.space)
        return f"Config: {source}, the best on dev of {note.trials} trials over {fields} fields ({note.search_id})."

    @property
    def left_out(self) -> str:
        """A sentence about requested modalities that were left out, or an empty text."""
        if self.audit is None or not self.audit.left_out:
            return ""
        names = ", ".join(self.audit.left_out)
        fitted = "whose vectors were fitted to the labels of train and generalise less to new dialogues"
        return f"Left out: {names}, {fitted}."


class ClassRow(Record):
    """Scores of one class."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Scores(Record):
    """Scores of one model on one split, all derived from the confusion counts."""

    split: str
    utterances: int
    weighted_f1: float
    macro_f1: float
    accuracy: float
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows: true class; columns: predicted class
    mae: float | None = Field(None, exclude_if=_is_none)  # of regression: the mean absolute error


class RegressionScores(Record):
    """Scores of predicted numbers on one split, as MMSA defines them (``evaluation.regression``); None: not defined.

    Attributes:
        utterances: With a target.
        mae: Mean absolute error.
        correlation: Pearson's; None if all values or all targets are equal.
        acc2: Accuracy of non-negative against negative; of CH-SIMS, positive against the rest.
        f1: Weighted F1 of the same.
        acc2_nonzero: Accuracy of positive against negative, without targets of 0.
        f1_nonzero: Weighted F1 of the same.
        acc3: Accuracy of three classes, of CH-SIMS.
        acc5: Of five classes.
        acc7: Of the rounded values from -3 to 3.
    """

    utterances: int
    mae: float
    correlation: float | None
    acc2: float
    f1: float
    acc2_nonzero: float | None = None
    f1_nonzero: float | None = None
    acc3: float | None = None
    acc5: float | None = None
    acc7: float | None = None

    def numbers(self) -> dict[str, float]:
        """Return the scores that are defined, by name."""
        return {name: value for name, value in self if name != "utterances" and value is not None}


class EpochRecord(Record):
    """The metrics of one epoch, over all ranks (``training.metrics``): the fields below, and any others by their names.

    Losses are per utterance (nats) or per slot; all but those on dev are means over the epoch's steps.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | dict[Modality, float]] = Field(init=False)

    epoch: int  # counted from 1
    step: int  # optimizer steps at the end of the epoch
    loss: float
    classification_loss: float
    modal_loss: float = 0.0
    feature_loss: float
    gradient_norm: float
    encoder_gradient_norm: dict[Modality, float]
    ratio: dict[Modality, float]  # rho_m
    coefficient: dict[Modality, float]  # k_m
    gate_share: dict[Modality, float] = {}  # data-dependent share of AFW's gate
    learning_rate: float
    dev_loss: float
    dev_weighted_f1: float
    dev_macro_f1: float
    utterances_per_second: float
    seconds: float


class SeedResult(Record):
    """One seed's training, after selection on dev."""

    schema_version: Literal[1] = 1
    seed: int
    checkpoint_uri: str
    best_epoch: int
    stopped_early: bool
    parameters: int
    device: str
    workers: int
    dev: Scores
    history: tuple[EpochRecord, ...]


class Interval(Record):
    """A bootstrap interval over dialogues."""

    low: float
    high: float
    level: float
    resamples: int


class MissingScore(Record):
    """Weighted F1 on test when vectors are missing.

    Attributes:
        kept: The only modalities that the model is given; empty if vectors are removed at random.
        rate: Probability with which a vector is removed; None if whole modalities are.
        weighted_f1: The score.
    """

    kept: tuple[Modality, ...] = ()
    rate: float | None = None
    weighted_f1: float


class ReliabilityBin(Record):
    """The utterances of one bin of confidence: their number, mean confidence and accuracy."""

    utterances: int
    confidence: float
    accuracy: float


class RiskPoint(Record):
    """What is left if predictions below a confidence are withheld: their share, and the share of errors among them."""

    min_confidence: float
    coverage: float
    risk: float


class Calibration(Record):
    """The temperature of a seed, fitted on dev, and what it does on test.

    Attributes:
        temperature: By which logits are divided.
        utterances: Labelled utterances of dev that it was fitted to.
        calibration_error: Expected calibration error on test with the temperature.
        before: Reliability on test without it.
        after: The same with it.
        risk: Risk and coverage on test with it.
    """

    temperature: Temperature
    utterances: int
    calibration_error: float
    before: tuple[ReliabilityBin, ...]
    after: tuple[ReliabilityBin, ...]
    risk: tuple[RiskPoint, ...]


class TestResult(Record):
    """The one evaluation of a seed's selected checkpoint on the test split."""

    __test__ = False  # no pytest class

    schema_version: Literal[1] = 1
    seed: int
    checkpoint_uri: str
    scores: Scores
    weighted_f1_interval: Interval
    calibration_error: float | None = None  # expected calibration error; None in results older than this field
    predictions: FileEntry | None = None  # `predictions.parquet`; None in results older than this field
    missing: tuple[MissingScore, ...] = ()  # empty for one modality, and in older results
    regression: RegressionScores | None = Field(None, exclude_if=_is_none)
    calibration: Calibration | None = Field(None, exclude_if=_is_none)  # None of regression, and in older results


class Baseline(Record):
    """Scores on test of a simple model that was fitted on train: what the trained model must exceed.

    Attributes:
        interval: Of weighted F1; None in records older than the field, as the fields below.
        dev_weighted_f1: Weighted F1 on dev, by which linear models are chosen; None for the majority class.
        l2: The strength of L2 that was chosen on dev.
        utterances: Labelled utterances of train that it was fitted to.
        regression: Its scores on test, of regression.
        dev_mae: Of regression: the mean absolute error on dev, by which linear models are chosen.
    """

    name: str
    weighted_f1: float
    macro_f1: float
    accuracy: float
    interval: Interval | None = None
    dev_weighted_f1: float | None = None
    l2: float | None = None
    utterances: int | None = None
    regression: RegressionScores | None = Field(None, exclude_if=_is_none)
    dev_mae: float | None = Field(None, exclude_if=_is_none)


class Baselines(Record):
    """The one evaluation of all baselines of a run on the test split."""

    schema_version: Literal[1] = 1
    rows: tuple[Baseline, ...]


class Summary(Record):
    """A score over seeds."""

    mean: float
    sd: float | None  # sample deviation; None for one seed
    values: tuple[float, ...]

    @property
    def text(self) -> str:
        """The mean, and the standard deviation if there are several seeds."""
        return f"{self.mean:.4f}" + ("" if self.sd is None else f" ± {self.sd:.4f}")


def _whole(summary: dict[str, Summary]) -> dict[str, Summary]:
    if missing := {"weighted_f1", "macro_f1", "accuracy"} - summary.keys():
        raise ValueError(f"the score {min(missing)} is missing")
    return summary


TestSummary = Annotated[dict[str, Summary], AfterValidator(_whole)]


class RunResult(Record):
    """The whole result of a run: what ``--json`` writes and what is registered."""

    schema_version: Literal[1] = 1
    run_id: RunId
    run_uri: str
    config: TrainConfig
    features: FeatureInfo
    protocol: str
    seeds: tuple[SeedResult, ...]
    tests: tuple[TestResult, ...]
    test_summary: TestSummary
    best_seed: int
    baselines: tuple[Baseline, ...] = ()  # empty in older results
    files: dict[FileName, FileEntry] = {}  # next to the result, by name; empty in older results
    licences: dict[str, str] = {}  # of the corpus and, by modality, of the encoders; empty if the vectors were imported
    own_code: OwnCode = Field(default_factory=dict, exclude_if=_none_named)
    teachers: tuple[Teacher, ...] = Field((), exclude_if=_no_teachers)

    @property
    def own_code_note(self) -> str:
        """A sentence about the classes of the caller's own; empty if there are none."""
        named = [f"{name} (source SHA-256 {digest})" for name, digest in self.own_code.items()]
        return f"Classes outside of ada2i: {', '.join(named)}." if named else ""

    @property
    def best(self) -> SeedResult:
        """The training of the seed that is the best on dev."""
        return next(seed for seed in self.seeds if seed.seed == self.best_seed)

    @property
    def best_test(self) -> TestResult:
        """The test of the seed that is the best on dev."""
        return next(test for test in self.tests if test.seed == self.best_seed)

    @property
    def floor(self) -> Baseline | None:
        """The linear model with the best score on dev; in older results, the best baseline on test."""
        if errors := [found for found in self.baselines if found.dev_mae is not None]:
            return min(errors, key=lambda found: found.dev_mae or 0.0)
        fitted = [found for found in self.baselines if found.dev_weighted_f1 is not None]
        if fitted:
            return max(fitted, key=lambda found: found.dev_weighted_f1 or 0.0)
        return max(self.baselines, key=lambda found: found.weighted_f1, default=None)


class ModelScores(Record):
    """Scores of one of two models on the dialogues that decide about a promotion."""

    scores: Scores
    calibration_error: float  # expected calibration error


class RuleResult(Record):
    """The result of one rule of the gate."""

    rule: str
    passed: bool
    measured: float
    bound: float  # that `measured` must not cross
    says: str  # measured value and bound in words


class DriftSummary(Record):
    """The last comparison of a window of a version with the version's training set, for metrics."""

    schema_version: Literal[1] = 1
    model: ModelName
    version: Number
    run_id: RunId  # of the window
    created: Instant  # the window
    ratios: Annotated[
        dict[Annotated[str, StringConstraints(pattern="^[a-z]{1,20}$")], Annotated[float, Field(ge=0, le=1e100)]],
        Field(min_length=1, max_length=20),
    ]  # by kind of statistic, the largest value as a share of its limit

    @property
    def drifted(self) -> bool:
        """Whether a statistic is above its limit."""
        return max(self.ratios.values()) > 1


class FolderManifest(Record):
    """The files of a stored folder; written last, it makes the folder exist."""

    schema_version: Literal[1] = 1
    files: dict[FileName, FileEntry]

    def stored_name(self, name: str) -> str | None:
        """Return the name under which a file is stored, alone or behind a digest (``<digest>-<name>``), or None."""
        return next((found for found in self.files if name in (found, found.partition("-")[2])), None)


def put_folder_file(uri: str, name: str, data: bytes) -> FileEntry:
    """Write one file of a folder and return its entry for the manifest."""
    storage.put(storage.join(uri, name), data)
    return FileEntry(size=len(data), sha256=storage.digest(data))


def get_folder_file(uri: str, name: str, entry: FileEntry | None) -> bytes:
    """Read one file of a folder, checked against its entry; files from versions without entries are not checked.

    Raises:
        IntegrityError: Its bytes are not those of the manifest.
    """
    if entry is None:
        return storage.get(storage.join(uri, name))
    return storage.get_checked(storage.join(uri, name), size=entry.size, sha256=entry.sha256)
