"""Layers are a setting of every transformer: one, the mean of a range, or several side by side."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ada2i.errors import ConfigError
from ada2i.extraction.encoders.layers import groups, name
from ada2i.extraction.encoders.registry import load
from ada2i.extraction.media import Frames
from tests.unit.extraction import tiny


@pytest.mark.parametrize(
    ("layers", "found", "text"),
    [
        (6, ((6,),), "6"),
        ([4, 6], ((4,), (6,)), "4,6"),
        ("5-8", ((5, 6, 7, 8),), "5-8"),
        ([0, "5-8"], ((0,), (5, 6, 7, 8)), "0,5-8"),
        ("0, 5 - 8", ((0,), (5, 6, 7, 8)), "0,5-8"),
        ("3-3", ((3,),), "3"),
    ],
)
def test_a_choice_of_layers(layers: Any, found: Any, text: str) -> None:
    assert groups(layers, 12) == found
    assert name(found) == text
    assert groups(text, 12) == found


@pytest.mark.parametrize(
    "layers", [[], "", "8-5", "5-13", 13, -1, "5-", "-5", "last", "5-8,5-8", "1-2-3", "1.5", "99999"]
)
def test_a_choice_that_the_model_lacks(layers: Any) -> None:
    with pytest.raises(ConfigError, match=r"must be different numbers from 0 to 12, .* or ranges such as \"1-12\""):
        groups(layers, 12)


def encoder_of(modality: Any, place: Path, **settings: Any) -> Any:
    pytest.importorskip("transformers")
    made: dict[str, Any] = {
        "text": tiny.bert,
        "audio": tiny.wav2vec2,
        "visual": partial(tiny.vision, kind="vit", layers=2),
    }
    folder = place if place.is_dir() else made[modality](place)
    return load(f"hf:{folder}", modality, settings=settings)


@pytest.mark.parametrize("modality", ["text", "audio", "visual"])
def test_a_range_is_the_mean_and_a_list_lies_side_by_side(tmp_path: Path, modality: Any) -> None:
    item: Any = {
        "text": "i am happy",
        "audio": tiny.noise(0.4),
        "visual": Frames(np.full((1, 32, 32, 3), 90, np.uint8)),
    }
    place = tmp_path / "model"

    def vector(**settings: Any) -> Any:
        encoder = encoder_of(modality, place, **settings)
        found = tiny.vector(encoder.encode([item[modality]])[0])
        assert found.shape == (encoder.info.width,)
        return found

    one, two, default = vector(layers=1), vector(layers=2), vector()
    assert not np.allclose(one, two, atol=1e-3)
    np.testing.assert_array_equal(two, default)
    np.testing.assert_allclose(vector(layers="1-2"), (one + two) / 2, atol=1e-6)
    np.testing.assert_allclose(vector(layers=[1, "1-2"]), np.concatenate([one, (one + two) / 2]), atol=1e-6)
    infos = [encoder_of(modality, place, layers=layers).info for layers in (1, "1-2", [1, 2])]
    assert [info.settings["layers"] for info in infos] == ["1", "1-2", "1,2"]
    assert len({info.digest() for info in infos}) == 3
    with pytest.raises(ConfigError, match="numbers from 0 to 2"):
        vector(layers=3)


def test_whisper_has_layers_and_a_convolutional_network_has_none(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    whisper = f"hf:{tiny.whisper(tmp_path / 'whisper')}"
    sound = [tiny.noise(0.5)]
    default, last = (tiny.vector(load(whisper, "audio", settings=s).encode(sound)[0]) for s in ({}, {"layers": 1}))
    np.testing.assert_array_equal(default, last)
    with pytest.raises(ConfigError, match="`layers` needs a transformer whose layers are equally wide"):
        load(f"hf:{tiny.vision(tmp_path / 'convnext', 'convnext')}", "visual", settings={"layers": 1})
    clip = load(f"hf:{tiny.vision(tmp_path / 'clip', 'clip')}", "visual", settings={"layers": "0-1"})
    assert (clip.info.width, clip.info.settings["layers"]) == (16, "0-1")
