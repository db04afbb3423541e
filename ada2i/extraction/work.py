"""The worker of an extraction: it loads encoders, digests files, and turns pieces of a corpus into vectors."""

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ada2i import storage
from ada2i.data.provenance import EncoderInfo
from ada2i.errors import DataError, NotFoundError
from ada2i.extraction import media
from ada2i.extraction.cache import Vectors
from ada2i.extraction.config import ExtractionConfig
from ada2i.extraction.encoders import registry
from ada2i.extraction.encoders.base import Encoder
from ada2i.extraction.outcome import Outcome, lost, outcome
from ada2i.extraction.plan import Piece
from ada2i.extraction.utterance import Clip
from ada2i.modalities import Modality


@dataclass(frozen=True)
class Done:
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
        self._loaded: dict[Modality, Encoder[Any]] = {}
        logging.getLogger("libav").setLevel(logging.ERROR)  # the report names damaged files

    def describe(self, modality: Modality) -> EncoderInfo:
        """Return the facts about a modality's encoder."""
        return self._encoder(modality).info

    def digests(self, files: Sequence[str]) -> dict[str, str]:
        """Return the SHA-256 of files; files that do not exist are left out."""
        found = {}
        for file in files:
            try:
                found[file] = storage.source_digest(file)
            except NotFoundError:
                continue
        return found

    def encode(self, modality: Modality, pieces: Sequence[Piece]) -> Done:
        """Encode pieces and write them as a chunk, so that they survive the loss of this worker."""
        encoder = self._encoder(modality)
        if modality == "text":
            encoded = encoder.encode([piece.item for piece in pieces])
            outcomes = {piece.key: outcome(one) for piece, one in zip(pieces, encoded, strict=True)}
        else:
            outcomes = {piece.key: self._encode_clip(modality, piece) for piece in pieces}
        Vectors(self._root, encoder.info.digest(), encoder.info.width).write(outcomes)
        problems = Counter(one.problem for one in outcomes.values() if one.problem is not None)
        return Done(modality, len(pieces), dict(problems))

    def _encode_clip(self, modality: Modality, piece: Piece) -> Outcome:
        """Encode one clip at a time, as decoded pictures are large."""
        assert isinstance(piece.item, Clip)
        source = _fetch(piece.item.uri, piece.digest)
        try:
            item = _decode(modality, piece.item, source, self._config.media)
        except media.MediaProblem as problem:
            return lost(problem)
        (one,) = self._encoder(modality).encode([item])
        return outcome(one)

    def _encoder(self, modality: Modality) -> Encoder[Any]:
        if modality not in self._loaded:
            choice = self._config.encoders[modality]
            self._loaded[modality] = registry.load(choice.spec, modality, settings=choice.settings, device=self._device)
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
