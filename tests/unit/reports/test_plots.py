"""Plots: sound SVG that shows what the records hold, safe to inline, the same every time."""

import re
import subprocess
import sys
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from ada2i.modalities import MODALITIES
from ada2i.records import RunResult
from ada2i.reports import plots
from tests.unit.evaluation.runs import IEMOCAP, build_run

SVG = "{http://www.w3.org/2000/svg}"
TEN = ("a$b$", "<b>x</b>", 'id="figure_1"', "anticipation of a loss", "无聊", "é", "", "joy", "a&b", "c|d")

Draw = Callable[[RunResult], str]
DRAW: dict[str, Draw] = {
    "learning": lambda run: plots.learning_curves(run.seeds, run.best_seed),
    "balance": lambda run: plots.balance_curves(run.seeds, run.best_seed, 4),
    "confusion": lambda run: plots.confusion_plot(run.tests[0].scores),
    "classes": lambda run: plots.class_scores([test.scores for test in run.tests]),
}
every_plot = pytest.mark.parametrize("name", DRAW)


@pytest.fixture(scope="module")
def run() -> RunResult:
    return build_run()


@pytest.fixture(scope="module")
def svgs(run: RunResult) -> dict[str, str]:
    return {name: draw(run) for name, draw in DRAW.items()}


def test_every_modality_has_its_own_colour() -> None:
    colours = plots.MODALITY_COLOURS
    assert len({colours[modality] for modality in MODALITIES}) == len(MODALITIES)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def dots(svg: str, colour: str) -> int:
    """Count the dots of a colour; each curve has one, at its best epoch."""
    marks = ElementTree.fromstring(svg).iter(f"{SVG}use")
    return sum(f"fill: {colour}" in mark.get("style", "") for mark in marks)


@every_plot
def test_same_records_give_the_same_bytes(name: str, run: RunResult, svgs: dict[str, str]) -> None:
    assert DRAW[name](run) == svgs[name]


@every_plot
def test_svg_is_safe_to_inline(name: str, svgs: dict[str, str]) -> None:
    svg = svgs[name]
    assert svg.startswith("<svg ")
    assert svg.endswith("</svg>")
    assert ElementTree.fromstring(svg).get("role") == "img"
    assert ElementTree.fromstring(svg).get("aria-label")
    assert set(re.findall(r"https?://[^\"' ]*", svg)) == {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}
    for unwanted in ("<style", "<script", "<image", "<metadata", "<!DOCTYPE"):
        assert unwanted not in svg


def test_plots_of_a_page_share_no_id_and_miss_none(svgs: dict[str, str]) -> None:
    page = "".join(svgs.values())
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'[("]#([^)"]*)[)"]', page)) == set(ids)


@every_plot
def test_odd_class_names_and_one_epoch_are_drawn(name: str) -> None:
    assert texts(DRAW[name](build_run(TEN, seeds=(1, 2), epochs=1)))


@every_plot
def test_two_classes_and_one_seed_are_drawn(name: str) -> None:
    assert texts(DRAW[name](build_run(("negative", "positive"), seeds=(7,))))


def test_learning_curves_have_a_curve_per_seed(run: RunResult, svgs: dict[str, str]) -> None:
    svg = svgs["learning"]
    assert dots(svg, "#1f2430") == 3 * len(run.seeds)  # two losses and weighted F1
    assert dots(svg, "#b0578d") == len(run.seeds)
    assert {"epoch", "nats per utterance", "mean L1 distance", "F1, 0 to 1", "weighted", "macro"} <= set(texts(svg))


def test_balance_curves_have_one_colour_per_modality(run: RunResult, svgs: dict[str, str]) -> None:
    svg = svgs["balance"]
    for modality in MODALITIES:
        assert dots(svg, plots.MODALITY_COLOURS[modality]) == 2 * len(run.seeds)
    assert {*MODALITIES, "modulation from epoch 4"} <= set(texts(svg))


@pytest.mark.parametrize("start_epoch", [None, 13])
def test_balance_curves_mark_no_modulation_that_never_starts(run: RunResult, start_epoch: int | None) -> None:
    svg = plots.balance_curves(run.seeds, run.best_seed, start_epoch)
    assert not any("modulation from" in text for text in texts(svg))


def test_confusion_shows_every_count(run: RunResult, svgs: dict[str, str]) -> None:
    scores = run.tests[0].scores
    shown = texts(svgs["confusion"])
    assert shown.count("true class") == 1
    assert [text for text in shown if text.isdigit()] == [str(n) for row in scores.confusion for n in row]
    assert [text for text in shown if text in IEMOCAP] == [*IEMOCAP, *IEMOCAP]


def test_class_scores_show_mean_and_support(run: RunResult, svgs: dict[str, str]) -> None:
    shown = texts(svgs["classes"])
    for rows in zip(*(test.scores.classes for test in run.tests), strict=True):
        assert f"{rows[0].label} ({rows[0].support})" in shown
        assert f"{sum(row.f1 for row in rows) / len(rows):.4f}" in shown


def test_long_names_are_cut_and_text_that_looks_like_markup_stays() -> None:
    shown = texts(DRAW["confusion"](build_run(TEN, seeds=(1,))))
    assert {"anticipation of a…", "a$b$", "<b>x</b>", 'id="figure_1"'} <= set(shown)


def test_nothing_shared_is_touched(run: RunResult) -> None:
    import matplotlib as mpl

    def settings() -> dict[str, object]:
        return {name: mpl.rcParams[name] for name in mpl.rcParams if name != "backend"}  # to read it is to choose one

    before = settings()
    DRAW["learning"](run)
    assert settings() == before
    assert "matplotlib.pyplot" not in sys.modules


def test_import_needs_no_matplotlib() -> None:
    code = "import sys, ada2i.reports.report; sys.exit(bool({'matplotlib', 'jinja2', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
