"""A root with 20 synthetic dialogues in several shards."""

from pathlib import Path

import pytest

from ada2i.data.manifest import FeatureSet
from tests.unit.prediction.tiny import demo


@pytest.fixture
def root(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def features(root: str, monkeypatch: pytest.MonkeyPatch) -> FeatureSet:
    return demo(root, monkeypatch)
