"""Models are loaded from weights that fit their config and are finite, or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from ada2i import storage
from ada2i.config import TrainConfig
from ada2i.data.manifest import open_features
from ada2i.errors import DataError
from ada2i.importers.demo import write_demo_corpus
from ada2i.inference import models
from ada2i.inference.models import load_model
from ada2i.inference.versions import open_version
from ada2i.records import FileEntry
from tests.unit.prediction.tiny import registered


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A root with a version."""
    root = (tmp_path / "store").as_uri()
    registered(root, open_features(write_demo_corpus(root, dialogues=20)).info())
    return root


def replace(root: str, name: str, data: bytes) -> None:
    """Replace a file of the version, with its digest in the manifest and a new seal."""
    uri, version = open_version(root, "tiny")
    entry = FileEntry(size=len(data), sha256=storage.digest(data))
    storage.put(storage.join(uri, name), data)
    manifest = version.model_copy(update={"files": {**version.files, name: entry}})
    storage.put(storage.join(uri, "manifest.json"), manifest.stored())


def read(root: str, name: str) -> bytes:
    return storage.get(storage.join(open_version(root, "tiny")[0], name))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(root: str, value: float) -> None:
    weights = load(read(root, "weights.safetensors"))
    name = max(weights)
    weights[name].view(-1)[0] = value
    replace(root, "weights.safetensors", save(weights))
    with pytest.raises(DataError, match=f"must hold finite weights, but {name} has others"):
        load_model(*open_version(root, "tiny"))


@pytest.mark.parametrize("field", ["hidden_dim", "encoder.feedforward_dim", "encoder.layers", "afw.rank", "afw.layers"])
def test_sizes_that_the_weights_do_not_have_cost_no_memory(
    root: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "build_model", lambda *_, **__: pytest.fail("built"))
    config = TrainConfig.model_validate_json(read(root, "config.json")).model_dump(mode="json")
    *group, name = field.split(".")
    (config["model"][group[0]] if group else config["model"])[name] = 2_000_000
    replace(root, "config.json", TrainConfig.model_validate(config).model_dump_json().encode())
    with pytest.raises(DataError, match=r"must hold weights of this version of ada2i, as its config describes them"):
        load_model(*open_version(root, "tiny"))


def test_widths_that_the_weights_do_not_have_cost_no_memory(root: str) -> None:
    uri, version = open_version(root, "tiny")
    widths = dict.fromkeys(version.features.widths, 10**12)
    changed = version.model_copy(update={"features": version.features.model_copy(update={"widths": widths})})
    with pytest.raises(DataError, match="must hold weights of this version of ada2i"):
        load_model(uri, changed)


@pytest.mark.parametrize("preset", ["reference", "paper"])
def test_models_of_all_kinds_are_loaded(root: str, preset: str) -> None:
    info = open_version(root, "tiny")[1].features
    for kind, name in (("lstm", "no_afw"), ("transformer", "no_amw")):
        changes: dict[str, Any] = {"model__encoder__kind": kind, f"ablations__{name}": True}
        other = f"{root}-{kind}"
        registered(other, info, preset, **changes)
        load_model(*open_version(other, "tiny"))


def test_a_weight_too_many_is_refused(root: str) -> None:
    weights = load(read(root, "weights.safetensors"))
    replace(root, "weights.safetensors", save({**weights, "other": torch.ones(1)}))
    with pytest.raises(DataError, match="as its config describes them, but: Error"):
        load_model(*open_version(root, "tiny"))
