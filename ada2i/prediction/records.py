"""Records of a prediction, and their locations.

`<root>/predictions/<id>/` holds ``source/``, the shards of a source that is not a feature set; then ``request.json``;
``done/`` with a record for each finished part; ``part-*.parquet``; and ``manifest.json``, which completes the
prediction. Then ``source/`` and ``done/`` are deleted. Parts and manifest may be stored elsewhere.
"""

from typing import Literal

from pydantic import Field

from ada2i import storage
from ada2i.config import ResourceConfig
from ada2i.modalities import Modality
from ada2i.records import FileEntry, FileName, ModelName, Number, OwnCode, Record, RunId, Scores, Sha256
from ada2i.registry.versions import Version

REQUEST, MANIFEST, SOURCE, DONE = "request.json", "manifest.json", "source", "done"
WHOLE = "all"  # instead of a split's name: all rows, or rows of a source without splits

LEAST_DIALOGUES = 5  # of a prediction whose sums are kept

Matrix = tuple[tuple[int, ...], ...]


class Shard(Record):
    """Some dialogues of the source, in its order: a Parquet file with the columns of ``data.schema.shard_schema``."""

    uri: str
    size: int  # bytes
    sha256: Sha256
    rows: int


class PredictionRequest(Record):
    """The request of a job: its only input besides the version and the source's shards."""

    schema_version: Literal[1] = 1
    run_id: RunId
    out: str  # folder that gets parts and manifest
    version_uri: str
    version: Version
    source: str  # as the caller named it, without credentials
    fingerprint: str  # of the feature set, or of the files of a table
    synthetic: bool
    split: str
    labels: tuple[str, ...]  # class names by the source's class index
    modalities: tuple[Modality, ...]  # the modalities that the model reads
    attends_to_padding: bool
    group: int  # dialogues padded to one length, if the model needs it: a training batch's number
    shards: tuple[Shard, ...]
    batch: int  # slots of one forward pass's padded grid
    resources: ResourceConfig
    own_code: OwnCode = Field(default_factory=dict, exclude_if=lambda own_code: not own_code)
    min_confidence: float = Field(0.0, exclude_if=lambda least: not least)  # no label below this probability


class Part(Record):
    """The result of one shard."""

    name: FileName
    size: int
    sha256: Sha256
    rows: int
    dialogues: int
    predicted: tuple[int, ...]  # utterances by predicted class
    confusion: dict[str, Matrix]  # by split, of labelled rows; rows: true class by the source's index
    withheld: int = Field(0, exclude_if=lambda number: not number)  # utterances below the minimum confidence
    sums: tuple[float, ...] = Field((), exclude_if=lambda sums: not sums)  # see `inference.sums.Columns`


class PredictionManifest(Record):
    """A complete prediction; its bytes depend only on version, source, options and code."""

    schema_version: Literal[1] = 1
    run_id: RunId
    model: ModelName
    version: Number
    source: str
    fingerprint: str
    synthetic: bool
    split: str
    labels: tuple[str, ...]  # of the model, by class index: the classes of ``label`` and ``p_<class>``
    utterances: int
    dialogues: int
    predicted: dict[str, int]  # utterances by predicted class
    withheld: int = Field(0, exclude_if=lambda number: not number)  # utterances below the minimum confidence: no label
    scores: tuple[Scores, ...]  # by split with labels; empty if the source has other classes than the model
    sums: tuple[float, ...] = Field((), exclude_if=lambda sums: not sums)  # see `inference.sums.Columns`
    code: str  # the commit that predicted, else the package's version
    files: dict[FileName, FileEntry]


def part_name(number: int) -> str:
    """Return the name of a shard's part."""
    return f"part-{number:05d}.parquet"


def is_done(out: str) -> bool:
    """Return whether the prediction whose parts are written to a folder is complete."""
    return storage.exists(storage.join(out, MANIFEST))


def result(out: str) -> PredictionManifest:
    """Return the manifest of a complete prediction's parts.

    Raises:
        NotFoundError: The prediction is not complete.
        IntegrityError: The manifest is damaged.
    """
    return PredictionManifest.load(storage.join(out, MANIFEST))


def sweep(uri: str) -> None:
    """Delete files that a complete prediction no longer needs; after a kill, the next call deletes the rest."""
    for folder in (DONE, SOURCE):
        storage.delete_folder(storage.join(uri, folder))
