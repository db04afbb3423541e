"""The manifest that makes a feature set exist, and functions that read only the files that it names."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from ada2i import storage
from ada2i.data import schema
from ada2i.data.entries import PIECE, ShardEntry, ShardList
from ada2i.data.provenance import Origin
from ada2i.errors import DataError, NotFoundError
from ada2i.modalities import Modality
from ada2i.records import UNLABELLED, DatasetName, FeatureInfo, FileEntry, FileName, Record, described, unsealed

MANIFEST = "manifest.json"
_LIST = b'\n "shards": ['  # as records are written


class ModalityInfo(Record):
    """One modality's vectors."""

    width: int
    encoder: str  # free text: how the vectors were made


class TargetInfo(Record):
    """The targets of a split; without any, ``low`` and ``high`` are 0."""

    utterances: int  # that have one
    low: float
    high: float


class SplitInfo(Record):
    """The counts of a split."""

    dialogues: int
    utterances: int
    class_counts: tuple[int, ...]  # utterances by class index
    # None: the set has no column `target`
    targets: TargetInfo | None = Field(None, exclude_if=lambda targets: targets is None)


class Manifest(Record):
    """The facts that a reader needs before opening a shard."""

    schema_version: Literal[1] = 1
    dataset: DatasetName
    synthetic: bool
    fingerprint: str
    labels: tuple[str, ...]  # by class index
    modalities: dict[Modality, ModalityInfo]
    splits: dict[str, SplitInfo]
    dev_rule: str | None  # how dev was cut from train; None if the corpus has its own dev split
    source: str
    shards: ShardList
    gate_rule: str | None = None  # how the gate was cut from train; None if it was not
    split_rule: str | None = None  # how train, dev and test were made by the import; None if the corpus has splits
    origin: Origin | None = None  # None if the vectors were imported
    files: dict[FileName, FileEntry] = Field(default_factory=dict)  # by name: the other files next to the manifest
    unused: dict[str, str] = Field(default_factory=dict)  # by column of the source that was not read, what it holds

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Check that the shards are different files, and hold what the splits count."""
        found = dict.fromkeys(self.splits, (0, 0)) | self.shards.counts()
        if not self.shards.are_different():
            raise ValueError("a shard is listed twice")
        if found != {name: (info.dialogues, info.utterances) for name, info in self.splits.items()}:
            raise ValueError("the shards do not hold the dialogues and utterances of the splits")
        if len({info.targets is None for info in self.splits.values()}) > 1:
            raise ValueError("some splits have targets and some have not")
        if any(len(info.class_counts) != len(self.labels) for info in self.splits.values()):
            raise ValueError("the splits do not count every class")
        return self

    @classmethod
    def opened(cls, data: bytes, uri: str) -> Self:
        """Return a manifest from its bytes; the list of shards of a large one is turned into columns piece by piece."""
        begin, end = data.find(_LIST) + len(_LIST), data.find(b"\n ]", data.find(_LIST))
        if len(data) < 4 * PIECE or data[begin : begin + 1] != b"\n" or end < 0:
            return super().opened(data, uri)
        seal = unsealed(data, uri)
        try:
            shards = ShardList.parsed(data, begin, end)
        except ValueError:  # the usual way raises an error that names the field
            return super().opened(data, uri)
        with described(cls, uri):
            return cls.model_validate_json((b"{" if seal else b"") + data[seal:begin] + data[end:], context=shards)

    @property
    def widths(self) -> dict[Modality, int]:
        """The width of its vectors, by modality."""
        return {modality: info.width for modality, info in self.modalities.items()}

    @property
    def content(self) -> str:
        """SHA-256 over the digests of all shards."""
        return storage.digest(b"".join(digest.as_py() for digest in self.shards.columns["sha256"]))

    @property
    def has_targets(self) -> bool:
        """Whether its shards have the column ``target``."""
        return any(info.targets is not None for info in self.splits.values())


@dataclass(frozen=True)
class FeatureSet:
    """A complete feature set.

    Attributes:
        uri: The folder that holds the manifest and the shards.
        manifest: What the folder holds.
    """

    uri: str
    manifest: Manifest

    def info(self) -> FeatureInfo:
        """Return the facts about the set that a model needs."""
        return FeatureInfo(
            uri=self.uri,
            dataset=self.manifest.dataset,
            fingerprint=self.manifest.fingerprint,
            synthetic=self.manifest.synthetic,
            labels=self.manifest.labels,
            widths=self.manifest.widths,
            recipe=self.manifest.origin.recipe if self.manifest.origin else None,
        )

    def shards(self, split: str) -> ShardList:
        """Return the shards of a split, in the order of their rows.

        Raises:
            DataError: The set has no such split.
        """
        if split not in self.manifest.splits:
            raise DataError(
                f"{self.uri} must have the split {split!r}, but has {', '.join(self.manifest.splits)}. Name one of "
                "these, or import the corpus again with rows of that `split`.",
                uri=self.uri,
                field="split",
            )
        return self.manifest.shards.of_split(split)


def open_features(uri: str) -> FeatureSet:
    """Open a feature set by its folder; only the manifest is read.

    Raises:
        DataError: There is no manifest, or it is damaged or has another schema version.
    """
    uri = storage.normalise(uri)
    try:
        return FeatureSet(uri, Manifest.load(storage.join(uri, MANIFEST)))
    except NotFoundError as problem:
        raise DataError(
            f"{uri} must be a feature set, a folder with {MANIFEST}, but there is no {MANIFEST}. Check the location; "
            "if the set's writing was interrupted, repeat the import to complete it.",
            uri=uri,
        ) from problem


def is_feature_set(location: str) -> bool:
    """Return whether there is a feature set at a location."""
    # Tables may be in any store that fsspec opens; feature sets are only in stores that `storage` supports.
    foreign = storage.check(location) not in ("", "file", "s3")
    return not foreign and storage.exists(storage.join(storage.normalise(location), MANIFEST))


def require_modalities(
    location: str, *, held: Collection[str], needs: Iterable[str], advice: str = "Choose others with `--modalities`."
) -> None:
    """Check that features have all requested modalities; ``advice`` says what to do if they do not.

    Raises:
        DataError: A modality is missing.
    """
    if missing := [modality for modality in needs if modality not in held]:
        raise DataError(
            f"{location} must hold the requested modalities, but has no {', '.join(missing)}, only {', '.join(held)}. "
            + advice,
            uri=location,
            field="model.modalities",
        )


def require_targets(features: FeatureSet, *splits: str) -> None:
    """Check that some splits have targets, which regression needs.

    Raises:
        DataError: One has none.
    """
    for split in splits:
        info = features.manifest.splits.get(split)
        if info is not None and (info.targets is None or not info.targets.utterances):
            raise DataError(
                f"{features.uri} must hold targets in {split} for `task=regression`, but has "
                f"{'no column `target`' if info.targets is None else 'only null there'}. Import a table with a column "
                "`target` of numbers, or omit `task`.",
                uri=features.uri,
                field="target",
            )


def read_shard(features: FeatureSet, entry: ShardEntry) -> pa.Table:
    """Read one shard that the manifest names.

    Returns:
        ``entry.rows`` utterances, sorted, with the columns of ``schema.shard_schema``.

    Raises:
        IntegrityError: The object differs from the manifest's digest.
        DataError: It is missing or not a Parquet file, or its columns or number of rows differ from the manifest.
    """
    uri = storage.join(features.uri, entry.name)
    file = schema.open_parquet(read_shard_bytes(features, entry), uri)
    expected = schema.shard_schema(features.manifest.widths, targets=features.manifest.has_targets)
    if not file.schema_arrow.equals(expected):
        raise _unlike(uri, f"the columns {_columns(expected)}", _columns(file.schema_arrow))
    if file.rows != entry.rows:
        raise _unlike(uri, f"{entry.rows} rows", str(file.rows))
    rows, classes = file.read(expected.names), len(features.manifest.labels)
    labels = rows["label"].to_numpy()
    if len(labels) and not UNLABELLED <= labels.min() <= labels.max() < classes:
        raise _unlike(uri, f"labels from 0 to {classes - 1}, or {UNLABELLED}", f"{labels.min()} to {labels.max()}")
    return rows


def read_shard_bytes(features: FeatureSet, entry: ShardEntry) -> bytes:
    """Return the bytes of a shard; raises as ``read_shard`` does."""
    uri = storage.join(features.uri, entry.name)
    try:
        return storage.get_checked(uri, size=entry.size, sha256=entry.sha256)
    except NotFoundError as problem:
        raise _missing(features, uri) from problem


def read_plain(features: FeatureSet, entry: ShardEntry) -> pa.Table:
    """Read ids, labels and targets of a shard, ``entry.rows`` each, without the rest; so its digest is not checked.

    Raises:
        DataError: The shard is missing or not a Parquet file, or its number of rows differs from the manifest.
    """
    uri = storage.join(features.uri, entry.name)
    names = ["dialogue_id", "label", *(["target"] if features.manifest.has_targets else [])]
    try:
        with storage.open_source(uri) as file:
            columns = schema.open_parquet(file, uri).read(names)
    except NotFoundError as problem:
        raise _missing(features, uri) from problem
    if columns.num_rows != entry.rows:
        raise _unlike(uri, f"{entry.rows} rows", str(columns.num_rows))
    return columns


def _missing(features: FeatureSet, uri: str) -> DataError:
    return DataError(
        f"{uri} must exist, because {MANIFEST} names it, but does not. Restore it, or delete {features.uri} and import "
        "again.",
        uri=uri,
    )


def _columns(columns: pa.Schema) -> str:
    return ", ".join(f"`{field.name}` {field.type}" for field in columns)


def _unlike(uri: str, expected: str, found: str) -> DataError:
    return DataError(
        f"{uri} must hold {expected}, as its {MANIFEST} records, but holds {found}. It was written by another version "
        "of ada2i: delete the set and import it again.",
        uri=uri,
    )
