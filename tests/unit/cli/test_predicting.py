"""Prediction from the command line: what is refused before a cluster is started, and what a complete one shows."""

from pathlib import Path

import pytest

from ada2i.data.manifest import FeatureSet
from ada2i.prediction import request
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
        (["tiny", "nowhere.parquet"], "nowhere.parquet must be a file (.parquet, .csv"),
        (["tiny", "corpus:meld"], "must be named corpus:KIND:LOCATION"),
        (["tiny", "demo-media"], "tiny@1 must record the encoders of its features"),
        (["tiny", "demo", "--split", "tset"], "must have the split 'tset'"),
        (["tiny", "demo", "--workers", "0"], "`workers` must be 1 or more, but is 0"),
        (["tiny", "demo", "--min-confidence", "1"], "`min_confidence` must be a probability from 0 to below 1"),
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


def test_withheld_labels_are_counted(run: Run, root: Path, features: FeatureSet) -> None:
    uri = tiny.run(root.as_uri(), features.uri, split="test", min_confidence=0.5)
    arguments = ["predict", "tiny@1", features.uri, "--split", "test", "--min-confidence", "0.5", "--root", str(root)]
    shown, manifest = ok(run, *arguments), tiny.manifest_of(uri)
    assert manifest.withheld
    assert f"no label │ {manifest.withheld} " in " ".join(shown.replace("│", " │ ").split())
    assert "Of the utterances with a label" in shown


def test_a_small_source_is_predicted_in_this_process_to_the_same_bytes_as_by_workers(
    run: Run, root: Path, features: FeatureSet, tmp_path: Path
) -> None:
    by_workers = tiny.run(root.as_uri(), features.uri, split="test", out=(tmp_path / "workers").as_uri())
    here = tmp_path / "here"
    code, shown, err = run(
        "predict", "tiny@1", features.uri, "--split", "test", "--out", str(here), "--root", str(root)
    )
    assert code == 0, err  # the fixture refuses to start a cluster
    assert shown.splitlines()[-1] == f"{here}/part-*.parquet"
    parts = sorted(here.glob("part-*.parquet"))
    assert parts
    assert all(part.read_bytes() == (tmp_path / "workers" / part.name).read_bytes() for part in parts)
    assert by_workers


def test_workers_and_large_sources_start_a_cluster(
    run: Run, root: Path, features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("predict", "tiny@1", features.uri, "--root", str(root))
    with pytest.raises(AssertionError, match="a cluster was started"):
        run(*arguments, "--workers", "2")
    monkeypatch.setattr(request, "_SMALL_ROWS", 10)
    with pytest.raises(AssertionError, match="a cluster was started"):
        run(*arguments)
