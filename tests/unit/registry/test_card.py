"""The model card: YAML that any parser reads, the run's numbers, and code that loads the model."""

import re
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save

from ada2i import presets, storage
from ada2i.model.ada2i import Ada2I
from ada2i.model.build import build_model
from ada2i.records import FolderManifest, RunResult, put_folder_file
from ada2i.registry.card import render_card
from ada2i.registry.versions import register, version_uri
from ada2i.reports.report import markdown_summary
from tests.unit.evaluation.runs import build_run
from tests.unit.registry.finished import ENVIRONMENT, finished_run


def card(result: RunResult, environment: dict[str, Any] = ENVIRONMENT) -> tuple[dict[str, Any], str]:
    """Return a card's front matter, parsed, and its markdown."""
    text = render_card(result, environment, markdown_summary(result), name="ada2i-x@3")
    empty, front, body = re.split(r"^---\n", text, maxsplit=2, flags=re.MULTILINE)
    assert empty == ""
    return yaml.safe_load(front), body


@pytest.fixture(scope="module")
def result() -> RunResult:
    return build_run(epochs=1)


def test_front_matter_is_that_of_the_hub(result: RunResult) -> None:
    front, _ = card(result)
    assert (front["language"], front["license"], front["library_name"]) == ("en", "unknown", "ada2i")
    assert {"multimodal", "text", "audio", "visual"} <= set(front["tags"])
    assert "synthetic" not in front["tags"]
    (index,) = front["model-index"]
    (found,) = index["results"]
    assert index["name"] == "ada2i-x@3"
    assert found["dataset"] == {
        "type": "iemocap",
        "name": "iemocap",
        "split": "test",
        "revision": "3f9a1c0b77d2",
        "args": {"protocol": result.protocol},
    }
    best = next(test.scores for test in result.tests if test.seed == result.best_seed)
    values = {metric["name"]: metric["value"] for metric in found["metrics"]}
    assert values[f"weighted F1 of these weights (seed {result.best_seed})"] == round(best.weighted_f1, 4)
    assert values["accuracy, mean over 3 seeds"] == round(result.test_summary["accuracy"].mean, 4)
    assert {metric["type"] for metric in found["metrics"]} == {"f1", "accuracy"}
    assert len(values) == 6


def test_the_text_says_on_which_gpus(result: RunResult) -> None:
    _, body = card(result, {**ENVIRONMENT, "placement": {"reason": "one worker for each GPU"}, "gpus": ["NVIDIA H200"]})
    assert "(one worker for each GPU) |\n| GPUs | NVIDIA H200 |" in body
    assert "GPUs" not in card(result, {**ENVIRONMENT, "gpus": []})[1]


def test_the_text_says_where_the_model_comes_from(result: RunResult) -> None:
    _, body = card(result, {**ENVIRONMENT, "code": "4f2c9e1", "ray_job_id": "run-a-0"})
    for fact in (
        "# ada2i-x@3\n",
        "## Intended use",
        "## Limitations",
        "fingerprint `3f9a1c0b77d2`",
        "| run | `r-20250314-091500` |",
        "| Ray job | `run-a-0` |",
        "| code | `4f2c9e1` |",
        "| seeds | 12, 13, 14; these weights:",
        "| python | 3.11.2 |",
        "| torch | 2.10.0 |",
        '["happy", "sad", "neutral", "angry", "excited", "frustrated"]',
        "text 768, audio 512, visual 1024.",
        "### By class",
        "The model attends to padding",
    ):
        assert fact in body
    assert "s3://emotion" not in body  # a card does not show storage locations
    assert "SYNTHETIC" not in body
    assert [len(marks) for marks in re.findall(r"^(#+) ", body, re.MULTILINE)].count(1) == 1


def test_what_is_not_known_is_not_said() -> None:
    result = build_run(epochs=1, seeds=(12,), dataset="mine", synthetic=True, protocol='He said: "x": {y} # z\\')
    front, body = card(result, {})
    assert front["language"] == "und"
    assert "synthetic" in front["tags"]
    assert len(front["model-index"][0]["results"][0]["metrics"]) == 3
    assert front["model-index"][0]["results"][0]["dataset"]["args"]["protocol"] == 'He said: "x": {y} # z\\'
    assert "**SYNTHETIC data: numbers show that the pipeline works" in body
    assert "| code | not recorded |" in body
    assert "Ray job" not in body


def test_licences_of_corpus_and_encoders_are_named(result: RunResult) -> None:
    licences = {"corpus": "CC-BY 4.0", "text": "minilm, Apache-2.0", "audio": "is10, non-commercial use only"}
    _, body = card(result.model_copy(update={"licences": licences}))
    assert "| corpus | CC-BY 4.0 |\n| text encoder | minilm, Apache-2.0 |\n| audio encoder | is10, non-comm" in body
    assert body.count("Restricted use, also of models trained on such vectors. audio: is10, non-commercial") == 2
    assert "The licence of the training data is not recorded" not in body
    _, body = card(result)
    assert "The licence of the training data is not recorded" in body
    assert "Restricted use" not in body


def test_limitations_are_those_of_the_config(result: RunResult) -> None:
    config = presets.resolve(preset="corrected", settings="iemocap", overrides={"model.encoder.causal": True})
    _, body = card(result.model_copy(update={"config": config}))
    for absent in ("The model attends to padding", "is read as zeros", "reads whole dialogues"):
        assert absent not in body


def test_the_same_run_gives_the_same_card(result: RunResult) -> None:
    assert card(result) == card(build_run(epochs=1))


def test_the_code_on_the_card_loads_the_model(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"model.hidden_dim": 8, "model.afw.rank": 2, "model.encoder.feedforward_dim": 8}
    config = presets.resolve(preset="reference", settings="demo", overrides=small)
    result = finished_run(root, "run-a")
    features = result.features.model_copy(update={"widths": {"text": 4, "audio": 3, "visual": 2}})
    model = build_model(config, widths=features.widths, classes=len(features.labels))
    best = next(seed for seed in result.seeds if seed.seed == result.best_seed)
    entry = put_folder_file(best.checkpoint_uri, "weights.safetensors", save(model.state_dict()))
    manifest = FolderManifest(files={"weights.safetensors": entry})
    storage.put(storage.join(best.checkpoint_uri, "manifest.json"), manifest.to_json())
    result = result.model_copy(update={"config": config, "features": features})
    storage.put(storage.join(result.run_uri, "result.json"), result.to_json())
    version = register(result.run_uri, root=root)
    text = storage.get(storage.join(root, "registry", version.model, "versions", "1", "README.md")).decode()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    monkeypatch.chdir(storage.local_path(version_uri(root, version)) or "")
    exec(code, names)
    loaded = names["model"].module
    assert isinstance(loaded, Ada2I)
    assert not loaded.training
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
