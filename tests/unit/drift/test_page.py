"""The page of a comparison says what was found, escaped, and loads nothing."""

import re
from pathlib import Path

import numpy as np
import pytest

from ada2i.data.manifest import open_features
from ada2i.drift import Reference, Window, judge, limits, reference_of, render
from ada2i.drift.reference import split_sums
from ada2i.importers.demo import write_demo_corpus
from ada2i.registry.versions import Version
from tests.unit.prediction.tiny import registered
from tests.unit.reports.test_report import Nesting, tables

NASTY, NIGHT = "<b>[red]x[/red]", 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Version, Reference, list[Window]]:
    """A version, its reference, and two windows, of which the second lacks every sound."""
    root = tmp_path_factory.mktemp("page").as_uri()
    version = registered(root, open_features(write_demo_corpus(root, dialogues=100)).info())
    reference, sums = reference_of(root, version), split_sums(root, version, "test")
    usual = sums[:NIGHT].sum(axis=0)
    silent = usual.copy()
    silent[reference.columns.places["present.audio"]] = 0
    windows = [Window.of_endpoint(version.model, version.number, NIGHT, found) for found in (usual, silent)]
    return version, reference, [windows[0], windows[1].model_copy(update={"source": NASTY})]


def page(made: tuple[Version, Reference, list[Window]], windows: list[Window], *left_out: str) -> str:
    version, reference, _ = made
    bounds = limits(reference, NIGHT)
    judged = [(window, judge(reference, np.array(window.sums), NIGHT, bounds)) for window in windows]
    return render(version, reference, judged, left_out)


def test_page_is_well_nested_and_loads_nothing(made: tuple[Version, Reference, list[Window]]) -> None:
    text, nesting = page(made, made[2], NASTY), Nesting()
    nesting.feed(text)
    assert nesting.open == []
    assert page(made, made[2], NASTY) == text
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\((?!#)|\ssrc=|\son\w+=", text)
    assert "<b>[red]" not in text


def test_page_says_what_was_found(made: tuple[Version, Reference, list[Window]], tmp_path: Path) -> None:
    version, reference, windows = made
    text = page(made, windows, "The window old is left out: its sums differ.")
    shown, statistics = tables(text)
    assert [row[1] for row in shown[1:]] == ["live requests", NASTY]
    assert (shown[1][3], shown[2][3].partition(",")[0]) == ("none", "missing.audio")
    result = judge(reference, np.array(windows[1].sums), NIGHT)
    assert [row[0] for row in statistics[1:]] == [one.name for one in result.statistics]
    assert [row[3] for row in statistics[1:]] == [f"{one.limit:.4f}" for one in result.statistics]
    assert text.count('<svg role="img"') == text.count("<figcaption>") == 2
    assert "of the last window above the limit: missing.audio" in text
    for said in ("10,000 windows", "SYNTHETIC", "The window old is left out", f"trained on {version.features.dataset}"):
        assert said in text, said


def test_page_of_a_usual_window_says_so(made: tuple[Version, Reference, list[Window]]) -> None:
    text = page(made, made[2][:1])
    assert "No statistic of the last window is above its limit" in text
    assert "Left out" not in text
