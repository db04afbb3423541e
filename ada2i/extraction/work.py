"""The worker of an extraction: it loads encoders, digests files, and turns pieces of a corpus into vectors."""

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ada2i import devices, storage
from ada2i.data.provenance import EncoderInfo
from ada2i.errors import DataError, NotFoundError
from ada2i.extraction import media
from ada2i.extraction.cache import VectorCache
from ada2i.extraction.config import ExtractionConfig
from ada2i.extraction.encoders import registry
from ada2i.extraction.encoders.base import Encoder
from ada2i.extraction.outcome import Outcome, joint_outcome, lost, outcome
from ada2i.extraction.plan import Piece
from ada2i.extraction.utterance import Clip
from ada2i.modalities import Modality


@dataclass(frozen=True)
class ChunkResult:
    """The result of a chunk.

    Attributes:
        modality: Modality of its pieces.
        pieces: Number of pieces.
        lost: By problem, number of pieces without a vector.
    """

    modality: Modality
    pieces: int
    lost: dict[str, int]


class Worker:
    """Encodes with one thread: with more threads, the last bits of results vary."""

    def __init__(self, root: str, config: ExtractionConfig, device: str) -> None:
        self._root, self._config, self._device = root, config, device
        devices.prepare(device)
        self._loaded: dict[Modality, list[Encoder[Any]]] = {}
        logging.getLogger("libav").setLevel(logging.ERROR)  # the report names damaged files

    def describe(self, modality: Modality) -> list[EncoderInfo]:
        """Return the facts about a modality's encoders."""
        return [encoder.info for encoder in self._encoders(modality)]

    def digests(self, files: Sequence[str]) -> dict[str, str]:
        """Return the SHA-256 of files; files that do not exist are left out."""
        found = {}
        for file in files:
            try:
                found[file] = storage.source_digest(file)
            except NotFoundError:
                continue
        return found

    def encode(self, modality: Modality, pieces: Sequence[Piece], parts: Sequence[int] = (0,)) -> ChunkResult:
        """Encode pieces and write them as chunks, so that they survive the loss of this worker.

        Args:
            modality: Their modality.
            pieces: The pieces.
            parts: Indices of the modality's encoders that have not encoded them yet.
        """
        encoders = [self._encoders(modality)[part] for part in parts]
        if modality == "text":
            items = [piece.item for piece in pieces]
            encoded = zip(*(map(outcome, encoder.encode(items)) for encoder in encoders), strict=True)
            found = dict(zip((piece.key for piece in pieces), encoded, strict=True))
        else:
            found = {piece.key: self._encode_clip(modality, piece, encoders) for piece in pieces}
        for place, encoder in enumerate(encoders):
            # A crash between two encoders' chunks costs the second chunk: the first is complete.
            outcomes = {key: each[place] for key, each in found.items()}
            VectorCache(self._root, encoder.info.folder(), encoder.info.width).write(outcomes)
        problems = Counter(one.problem for one in map(joint_outcome, found.values()) if one.problem is not None)
        return ChunkResult(modality, len(pieces), dict(problems))

    def _encode_clip(self, modality: Modality, piece: Piece, encoders: Sequence[Encoder[Any]]) -> tuple[Outcome, ...]:
        """Encode one clip at a time, as decoded pictures are large; return each encoder's outcome."""
        assert isinstance(piece.item, Clip)
        source = _fetch(piece.item.uri, piece.digest)
        try:
            item = _decode(modality, piece.item, source, self._config.media)
        except media.MediaProblem as problem:
            return (lost(problem),) * len(encoders)
        return tuple(outcome(encoder.encode([item])[0]) for encoder in encoders)

    def _encoders(self, modality: Modality) -> list[Encoder[Any]]:
        if modality not in self._loaded:
            choice = self._config.encoders[modality]
            chosen = registry.parts_with_settings(choice.spec, choice.settings)
            self._loaded[modality] = [
                registry.load(spec, modality, settings=settings, device=self._device) for spec, settings in chosen
            ]
            if torch := sys.modules.get("torch"):
                torch.set_num_threads(1)
        return self._loaded[modality]


def _decode(
    modality: Modality, clip: Clip, source: media.Source, settings: media.MediaSettings
) -> media.Waveform | media.Frames:
    if modality == "audio":
        return media.read_audio(source, start=clip.start, end=clip.end, settings=settings)
    return media.sample_frames(source, start=clip.start, end=clip.end, crop=clip.crop, settings=settings)


@lru_cache(maxsize=1)  # successive pieces often belong to one long recording
def _fetch(uri: str, digest: str) -> bytes | Path:
    """Return a file's bytes, which must not have changed since the plan was made.

    Raises:
        DataError: The file has changed.
    """
    path = storage.local_path(uri)
    try:
        data = storage.read_source(uri) if path is None else b""
        found = storage.source_digest(uri) if path else storage.digest(data)
    except NotFoundError:
        found = "no such file"
    if found != digest:
        public = storage.public(uri)
        raise DataError(
            f"{public} must not change while features are extracted, but did: its SHA-256 was {digest[:16]}... and is "
            f"{found[:16]}.... Run again when no other process writes to it.",
            uri=public,
        )
    return path or data
