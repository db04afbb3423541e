"""Dialogues that a model has seen, identified by their ids and their content."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ada2i.data import schema
from ada2i.data.manifest import FeatureSet, read_shard

SEEN = ("train", "dev")  # the splits that a model is trained and selected on


@dataclass(frozen=True)
class DialogueDigests:
    """Dialogues of some splits.

    Attributes:
        contents: Digests by id: of all transcripts, or of all vectors if some utterance has no transcript. Several if
            splits use an id for different dialogues.
    """

    contents: dict[str, frozenset[str]]

    @property
    def digests(self) -> frozenset[str]:
        """The digests of all dialogues."""
        return frozenset().union(*self.contents.values())


def read_dialogues(features: FeatureSet, splits: Iterable[str]) -> DialogueDigests:
    """Read dialogues of a feature set; a split that the set lacks has none.

    Raises:
        IntegrityError: A shard differs from the digest in the manifest.
    """
    found: dict[str, set[str]] = {}
    for split in splits:
        for entry in features.shards(split) if split in features.manifest.splits else ():
            for name, digest in _digests(read_shard(features, entry)):
                found.setdefault(name, set()).add(digest)
    return DialogueDigests({name: frozenset(digests) for name, digests in found.items()})


def _digests(shard: pa.Table) -> Iterator[tuple[str, str]]:
    """Yield the id and digest of each dialogue of a shard with sorted rows."""
    names = np.asarray(shard["dialogue_id"].to_pylist(), dtype=object)
    starts: list[int] = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]])).tolist()
    for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
        yield str(names[start]), _digest(shard.slice(start, end - start))


def _digest(dialogue: pa.Table) -> str:
    total, texts = hashlib.sha256(), dialogue["text"].to_pylist()
    if all(texts):
        total.update("\0".join(map(str, texts)).encode())
        return f"text-{total.hexdigest()}"
    for modality in schema.widths_of(dialogue.schema):
        values, present = schema.unpack_vectors(dialogue[schema.vector_column(modality)])
        total.update(modality.encode() + present.tobytes() + values.tobytes())
    return f"vectors-{total.hexdigest()}"
