"""Speech models of transformers: wav2vec 2.0, HuBERT, WavLM and Whisper's encoder, averaged over an utterance.

Shape letters in this file:
    S samples     T frames     D width
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ada2i.data.provenance import EncoderInfo
from ada2i.errors import ConfigError
from ada2i.extraction.encoders import huggingface
from ada2i.extraction.encoders import layers as chosen
from ada2i.extraction.encoders.base import Encoded, encode_each, finite
from ada2i.extraction.media import RATE, Waveform

if TYPE_CHECKING:
    from torch import Tensor


class HuggingFaceSpeech:
    """The mean of the hidden states of the last layer, or of chosen layers, over an utterance.

    Utterances are encoded one by one: in a batch, padding would change the norms over time in wav2vec 2.0's
    first layers, and one utterance is enough work for a CPU.
    """

    def __init__(
        self, *, model: str, layers: chosen.Layers | None = None, revision: str = "main", device: str = "cpu"
    ) -> None:
        """Load a model.

        Args:
            model: An id on the hub, or a folder.
            layers: Hidden states from which the vector is made; see ``encoders/layers.py``. Default: the last layer.
            revision: Branch, tag or commit on the hub.
            device: Where it runs.
        """
        from transformers import AutoFeatureExtractor, AutoModel

        from ada2i import devices

        extractors: Any = AutoFeatureExtractor
        place = huggingface.folder(model, revision)
        network = huggingface.load_model(AutoModel, place, device)
        self._extractor = extractors.from_pretrained(place, local_files_only=True)
        if self._extractor.sampling_rate != RATE:
            raise ConfigError(
                f"{model} must read sound at {RATE} Hz, but reads {self._extractor.sampling_rate} Hz. Choose another.",
                model=model,
            )
        # Whisper reads windows of a fixed length; all other models read the whole sound.
        self._window = self._extractor.n_samples if network.config.model_type == "whisper" else None
        self._network = network.get_encoder() if self._window else network
        self._device = device
        self._last = network.config.num_hidden_layers
        self._layers = chosen.groups(self._last if layers is None else layers, self._last)
        self.info = EncoderInfo(
            name=huggingface.display_name(model),
            modality="audio",
            width=network.config.hidden_size * len(self._layers),
            licence="see the model's card",
            source="Hugging Face",
            weights_digest=huggingface.digest(place),
            settings={} if layers is None else {"layers": chosen.name(self._layers)},
            precision=devices.encoding_precision(device),
        )

    def encode(self, items: Sequence[Waveform | None]) -> list[Encoded]:
        """Encode sounds, one by one."""
        return encode_each(items, lambda item: averaged(item, self._window or item.samples.size, self._states))

    def _states(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return ``(T, D)`` hidden states of ``(S,)`` samples, without those of padding."""
        import torch

        from ada2i import devices

        inputs = self._extractor(samples, sampling_rate=RATE, return_tensors="pt").to(self._device)
        with torch.inference_mode(), devices.encoding(self._device):
            output = self._network(**inputs, output_hidden_states=True)
            states: Tensor = torch.cat(chosen.outputs(self._layers, output, self._last), dim=-1)[0]
        array: npt.NDArray[np.float32] = states.float().cpu().numpy()
        return real_frames(array, samples.size, self._window) if self._window else array


def averaged(
    item: Waveform, window: int, states: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
) -> Encoded:
    """Return the mean of the states of a sound that is encoded in windows.

    Args:
        item: The sound.
        window: Samples of a window.
        states: From the ``(S,)`` samples of a window to ``(T, D)`` states.
    """
    pieces = [item.samples[first : first + window] for first in range(0, item.samples.size, window)]
    return finite(np.concatenate([states(piece) for piece in pieces]).mean(axis=0), item.flags)


def real_frames(states: npt.NDArray[np.float32], samples: int, window: int) -> npt.NDArray[np.float32]:
    """Return the ``(T, D)`` states of a window that begin within its samples; silence fills the rest of the window."""
    return states[: -(-samples * len(states) // window)]
