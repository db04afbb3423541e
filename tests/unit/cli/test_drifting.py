"""Drift from the command line: tables, JSON and the page."""

import json
import tempfile
from pathlib import Path

import pytest
import typer

from ada2i import usecases
from ada2i.data.manifest import open_features
from ada2i.importers.demo import write_demo_corpus
from ada2i.prediction.request import PredictSpec
from ada2i.store import Store
from tests.unit.cli.commands import Run, ok, refused
from tests.unit.prediction import tiny


@pytest.fixture
def predicted(root: Path) -> None:
    """A version that has predicted its test split."""
    features = open_features(write_demo_corpus(root.as_uri(), dialogues=60))
    tiny.registered(root.as_uri(), features.info())
    spec = PredictSpec(version="tiny", source=features.uri, split="test", local=True)
    usecases.predict(spec, Store.open(str(root)), hooks=usecases.Hooks(), extraction_run="x")


@pytest.mark.usefixtures("predicted")
def test_windows_are_compared_and_the_page_is_opened(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Windows of tiny@1" in ok(run, "drift", "tiny", "--root", str(root))
    (window,) = json.loads(ok(run, "drift", "tiny", "--json", "--root", str(root)))
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    monkeypatch.setenv("DISPLAY", ":0")
    file = Path(ok(run, "drift", "tiny", "--open", "--root", str(root)).strip())
    assert opened == [file.as_uri()]
    assert file.read_bytes() == (root / "drift" / "tiny" / "1" / "report.html").read_bytes()
    for statistic in window["statistics"]:
        assert f">{statistic['name']}</th><td>{statistic['value']:.4f}</td>" in file.read_text()


def test_a_version_without_windows_is_refused(run: Run, root: Path) -> None:
    tiny.registered(root.as_uri(), open_features(write_demo_corpus(root.as_uri(), dialogues=20)).info())
    assert "tiny@1 must have a window of at least 5 dialogues" in refused(run, "drift", "tiny", "--root", str(root))
