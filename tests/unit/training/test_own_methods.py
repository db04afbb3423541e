"""Classes of a user's own are refused before any job unless they do what their protocol says."""

import re
from pathlib import Path
from typing import Any

import pytest

from ada2i.data.manifest import open_features
from ada2i.errors import ConfigError
from ada2i.importers.demo import write_demo_corpus
from ada2i.jobs import code
from ada2i.presets import resolve
from ada2i.records import FeatureInfo
from ada2i.training.methods import check_methods
from tests.own import FIELDS, write_examples

HEAD = "import torch, random\nfrom torch import nn\nfrom ada2i.balance.none import NoBalancer\n"
ENCODER = """
class Own(nn.Module):
    def __init__(self, width, hidden_dim):
        super().__init__()
        self.linear = nn.Linear(width, hidden_dim)
        {init}
    def forward(self, features, layout, speakers, present):
        x = self.linear(features)
        {forward}
"""
FUSION = """
class Own(nn.Module):
    def __init__(self, modalities, hidden_dim, classes{more}):
        super().__init__()
        self.linear = nn.Linear(hidden_dim * len(modalities), classes)
        {init}
    def forward(self, encoded, present, layout):
        x = self.linear(torch.cat(list(encoded.values()), dim=1))
        {forward}
"""
BALANCE = """
class Own(NoBalancer):
    {body}
"""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureInfo:
    return open_features(write_demo_corpus(tmp_path_factory.mktemp("root").as_uri(), dialogues=20)).info()


def encoder(forward: str = "return x", init: str = "pass") -> tuple[str, str]:
    return "model.encoder", ENCODER.format(forward=forward, init=init)


def fusion(forward: str = "return x", init: str = "pass", more: str = "") -> tuple[str, str]:
    return "model.fusion", FUSION.format(forward=forward, init=init, more=more)


def balance(body: str) -> tuple[str, str]:
    return "balance.method", BALANCE.format(body=body)


def check(folder: Path, features: FeatureInfo, field: str, text: str, **options: Any) -> None:
    """Check a class ``Own`` of a module with a name that no other test has."""
    module = f"own_{abs(hash((str(folder), field, text)))}"
    (folder / f"{module}.py").write_text(HEAD + text)
    overrides = {field: f"{module}:Own", **{name.replace("__", "."): value for name, value in options.items()}}
    config = resolve(preset="corrected", settings="demo", overrides=overrides)
    with code.named(code.digests(config.own_code)):
        check_methods(config, features)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("own", [encoder(), fusion(), fusion("return x, torch.stack([x, x, x])"), balance("pass")])
def test_a_class_that_keeps_its_protocol_is_accepted(folder: Path, features: FeatureInfo, own: tuple[str, str]) -> None:
    check(folder, features, *own)


@pytest.mark.parametrize("preset", ["corrected", "reference", "paper"])
def test_the_examples_are_accepted_together(folder: Path, features: FeatureInfo, preset: str) -> None:
    write_examples(folder)
    config = resolve(preset=preset, settings="demo", overrides=dict(FIELDS))
    with code.named(code.digests(config.own_code)):
        check_methods(config, features)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (encoder("return x[:, 1:]"), r"must return (11, 48) torch.float32, but returned (11, 47) torch.float32"),
        (encoder("return x[1:]"), r"must return (11, 48) torch.float32, but returned (10, 48)"),
        (encoder("return x.double()"), "but returned (11, 48) torch.float64"),
        (encoder("return None"), "but returned a NoneType"),
        (encoder("return x / 0"), "must return finite values, but some are not"),
        (encoder("return x + torch.rand(1)"), "in evaluation"),
        (encoder("return x * random.random()"), "in evaluation"),
        (encoder("return x * random.random() if self.training else x"), "in training with one seed of torch"),
        (encoder("return x.detach()"), "must let gradients pass"),
        (encoder(init="self.idle = nn.Linear(2, 3)"), "no gradient reaches idle.weight, idle.bias"),
        (encoder("return self.norm(x)", "self.norm = nn.BatchNorm1d(hidden_dim)"), "must not change its buffers"),
        (encoder("return x - x.mean(dim=0)"), "the same result whatever else is in the batch"),
        (encoder("return x.nothing"), "must run on dialogues with missing vectors, but raised AttributeError"),
        (fusion("return x[:, 1:]"), "must return (11, 6) torch.float32, but returned (11, 5)"),
        (fusion("return x, torch.stack([x, x])"), "must return (3, 11, 6) torch.float32, but returned (2, 11, 6)"),
        (fusion("return x / 0"), "must return finite values"),
        (fusion("return x + torch.randn(1)"), "must return the same twice in evaluation"),
        (fusion("return x + x.mean()"), "the same result whatever else is in the batch"),
        (fusion("return x, torch.stack([self.own(x)] * 3)", "self.own = nn.Linear(classes, classes)"), "own.weight"),
        (fusion(more=", rank"), "must take its options and some of modalities, hidden_dim, classes, dropout by name"),
        (balance("def scales(self, s): return super().scales(s)._replace(metrics={})"), "a metric `ratio` of shape"),
        (
            balance(
                "def extra_losses(self, prediction, batch, totals): return {'l': prediction.logits.sum(dim=0)[:4]}"
            ),
            "scalar",
        ),
        (balance("def scales(self, s): return super().scales(s)._replace(update=torch.rand(()) / 0)"), "finite"),
        (balance("def scales(self, s): return super().scales(s)._replace(update=1 + random.random())"), "same weights"),
        (balance("def statistics(self, prediction, batch): raise RuntimeError('no')"), "but raised RuntimeError: no"),
        (balance("state = None"), "but lacks state"),
        (("model.fusion", "class Own: ..."), "must be a torch.nn.Module, but is a Own"),
        (("model.encoder", "def Own(width): return nn.Identity()"), "must be a class, but is a function"),
        (("balance.method", "Own = 3"), "must be a class, but is a int"),
        (("model.fusion", "class Other: ..."), "AttributeError: module 'own_"),
        (("model.fusion", "import not_there"), "ModuleNotFoundError: No module named 'not_there'"),
        (("model.encoder", "1 / 0"), "ZeroDivisionError: division by zero"),
        (("balance.method", "def x(:"), "SyntaxError"),
    ],
)
def test_a_class_that_breaks_its_protocol_is_refused(
    folder: Path, features: FeatureInfo, own: tuple[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as found:
        check(folder, features, *own)
    assert "own_" in found.value.message
    assert ":Own" in found.value.message


def test_options_reach_the_class_and_others_are_refused(folder: Path, features: FeatureInfo) -> None:
    own = fusion(init="assert rank == 4", more=", rank=2")
    check(folder, features, *own, model__fusion_options__rank=4)
    with pytest.raises(ConfigError, match="raised AssertionError"):
        check(folder, features, *own)
    with pytest.raises(ConfigError, match="got an unexpected keyword argument 'size'"):
        check(folder, features, *own, model__fusion_options__size=4)
