"""Tiny random models in folders, as transformers saves them, sounds to feed them, and the vectors that come out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ada2i.extraction.encoders.base import Encoded
from ada2i.extraction.media import RATE, Waveform

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "am", "so", "happy", "sad", "!"]


def noise(seconds: float, seed: int = 0) -> Waveform:
    samples: npt.NDArray[np.float64] = 0.1 * np.random.RandomState(seed).standard_normal(round(seconds * RATE))
    return Waveform(samples.astype(np.float32))


def vector(one: Encoded) -> npt.NDArray[np.float32]:
    assert one.vector is not None
    return one.vector


def transformers() -> Any:
    """Return the library, seeded, for models whose weights do not matter."""
    import torch
    import transformers

    torch.manual_seed(0)
    return transformers


def bert(folder: Path) -> str:
    kit = transformers()
    config = kit.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    kit.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    kit.BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    return str(folder)


def wav2vec2(folder: Path) -> str:
    kit = transformers()
    config = kit.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    kit.Wav2Vec2Model(config).save_pretrained(folder)
    kit.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)


def whisper(folder: Path) -> str:
    kit = transformers()
    config = kit.WhisperConfig(
        vocab_size=100,
        d_model=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    kit.WhisperModel(config).save_pretrained(folder)
    kit.WhisperFeatureExtractor().save_pretrained(folder)
    return str(folder)


def vision(folder: Path, kind: str, *, layers: int = 1) -> str:
    kit = transformers()
    parts: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    made = {
        "vit": lambda: kit.ViTModel(kit.ViTConfig(image_size=32, patch_size=8, **parts), add_pooling_layer=False),
        "clip": lambda: kit.CLIPVisionModelWithProjection(
            kit.CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=12, **parts)
        ),
        "convnext": lambda: kit.ConvNextModel(kit.ConvNextConfig(hidden_sizes=[8, 8, 8, 20], depths=[1, 1, 1, 1])),
    }[kind]()
    made.save_pretrained(folder)
    recorded = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(recorded))
    return str(folder)
