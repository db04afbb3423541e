"""Prediction from the command line: what is refused before a cluster is started, and what a complete one shows."""

from pathlib import Path

import pytest

from ada2i.data.manifest import FeatureSet
from ada2i.prediction.records import PredictionManifest
from tests.unit.cli.commands import Run, ok, refused
from tests.unit.prediction import tiny


@pytest.fixture
def features(root: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureSet:
    found = tiny.demo(root.as_uri(), monkeypatch)
    tiny.registered(root.as_uri(), found.info())
    return found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny@champion", "demo"], "must hold the alias tiny@champion, but tiny has none"),
        (["tiny@2", "demo"], "must hold a version tiny@2"),
        (["tiny", "nowhere.parquet"], "nowhere.parquet must be a .parquet file or a folder with such"),
        (["tiny", "corpus:meld"], "must be named corpus:KIND:LOCATION"),
        (["tiny", "demo-media"], "tiny@1 must record the encoders of its features"),
        (["tiny", "demo", "--split", "tset"], "must have the split 'tset'"),
        (["tiny", "demo", "--workers", "0"], "`workers` must be 1 or more, but is 0"),
    ],
)
def test_refused_before_anything_starts(
    run: Run, root: Path, features: FeatureSet, arguments: list[str], message: str
) -> None:
    assert message in refused(run, "predict", *arguments, "--root", str(root))
    assert not (root / "predictions").exists()


def test_a_complete_prediction_is_shown_again(run: Run, root: Path, features: FeatureSet) -> None:
    uri = tiny.run(root.as_uri(), features.uri, split="test")
    manifest = tiny.manifest_of(uri)
    arguments = ["predict", "tiny@1", features.uri, "--split", "test", "--root", str(root)]
    shown = ok(run, *arguments)
    assert f"{manifest.scores[0].weighted_f1:.4f}" in shown
    assert shown.splitlines()[-1].endswith("/part-*.parquet")
    assert PredictionManifest.model_validate_json(ok(run, *arguments, "--json")) == manifest
