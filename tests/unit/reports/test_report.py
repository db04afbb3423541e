"""The report's page, markdown and table say what the records say, escaped, and warn where they must."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest

from ada2i.errors import DataError
from ada2i.records import RunResult
from ada2i.reports import report
from tests.unit.evaluation.runs import IEMOCAP, build_run

VOID = {"meta"}  # elements of the page that have no end tag; SVG closes its own
DEAD = "Classes with test F1 = 0"
NASTY = ('<script>alert("x")</script>', "a|b", "*c*", "plain & simple")


@pytest.fixture(scope="module")
def run() -> RunResult:
    return build_run()


@pytest.fixture(scope="module")
def page(run: RunResult) -> str:
    return report.render_report(run)


def tables(page: str) -> list[list[list[str]]]:
    """Return the text of every table's cells."""
    return [
        [
            [" ".join(unescape(re.sub(r"<[^>]*>", "", cell)).split()) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
            for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        ]
        for table in re.findall(r"<table.*?</table>", page, re.DOTALL)
    ]


def four(value: float) -> str:
    return f"{value:.4f}"


class Nesting(HTMLParser):
    """Raises on an end tag that does not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_nested_and_the_same_every_time(run: RunResult, page: str) -> None:
    nesting = Nesting()
    nesting.feed(page)
    assert nesting.open == []
    assert report.render_report(run) == page


def test_page_says_where_the_run_was_trained_and_why(run: RunResult, page: str) -> None:
    machine = {"placement": {"reason": "one worker for each GPU"}, "gpus": ["NVIDIA <H200>"]}
    known = report.render_report(run, machine)
    assert "(one worker for each GPU); NVIDIA &lt;H200&gt;</td></tr>" in known
    assert "for each GPU" not in page


def test_page_loads_nothing(page: str) -> None:
    assert set(re.findall(r"https?://[^\"' <)]*", page)) == {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\((?!#)|\ssrc=|\son\w+=", page)


def test_page_is_structured(page: str) -> None:
    assert page.startswith("<!DOCTYPE html>")
    assert '<html lang="en">' in page
    assert len(re.findall(r"<h1\b", page)) == 1
    assert len(re.findall(r'<svg role="img" aria-label="[^"]+"', page)) == 4
    assert page.count("<figcaption>") == 4
    assert page.count("<table") == page.count("<caption>") == 5
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_headlines_are_the_summaries(run: RunResult, page: str) -> None:
    shown = re.findall(r"<dd>([\d.]+) <small>± ([\d.]+)</small></dd>", page)
    summaries = [run.test_summary[name] for name in ("weighted_f1", "macro_f1", "accuracy")]
    assert shown == [(four(score.mean), four(score.sd or 0)) for score in summaries]
    assert run.protocol in page
    best = run.tests[-1]
    bounds = f"{four(best.weighted_f1_interval.low)} to {four(best.weighted_f1_interval.high)}"
    assert f"Seed 14, the best on dev: weighted F1 {four(best.scores.weighted_f1)}, 95% interval {bounds} (200 " in page
    assert "Mean ± sd over 3 seeds, 1550 test utterances." in page


def test_seed_table_is_the_records(run: RunResult, page: str) -> None:
    head, *rows, mean = tables(page)[0]
    assert head[:2] == ["seed", "dev weighted F1"]
    for row, seed, test in zip(rows, run.seeds, run.tests, strict=True):
        interval, scores = test.weighted_f1_interval, test.scores
        assert row[:4] == [str(seed.seed), four(seed.dev.weighted_f1), str(seed.best_epoch), "12"]
        assert row[4:7] == [four(scores.weighted_f1), four(scores.macro_f1), four(scores.accuracy)]
        assert row[7:9] == [four(interval.low), four(interval.high)]
        assert abs(int(row[9]) - 812) < 60
    summary = run.test_summary["macro_f1"]
    assert mean[0] == "mean ± sd"
    assert mean[5] == f"{four(summary.mean)} ± {four(summary.sd or 0)}"


def test_class_and_confusion_tables_are_the_records(run: RunResult, page: str) -> None:
    _, classes, confusion, *_ = tables(page)
    for row, records in zip(classes[1:], zip(*(test.scores.classes for test in run.tests), strict=True), strict=True):
        assert row[:2] == [records[0].label, str(records[0].support)]
        means = [sum(getattr(record, name) for record in records) / 3 for name in ("precision", "recall", "f1")]
        assert [cell.split()[0] for cell in row[2:]] == [four(mean) for mean in means]
    assert confusion[0] == ["true class", *IEMOCAP]
    assert [row[1:] for row in confusion[1:]] == [[str(n) for n in row] for row in run.tests[-1].scores.confusion]


def test_config_and_features_are_shown(run: RunResult, page: str) -> None:
    *_, facts, config = tables(page)
    fields = dict(row for row in config[1:])
    assert fields["model.afw.beta"] == "0.012"
    assert fields["training.seeds"] == "[12, 13, 14]"
    assert fields["ablations.no_afw"] == "false"
    shown = dict(row for row in facts)
    assert shown["Features"] == run.features.uri
    assert shown["Fingerprint"] == run.features.fingerprint
    assert shown["Widths"] == "text 768, audio 512, visual 1024"
    assert shown["Labels"] == ", ".join(IEMOCAP)


def test_one_seed_claims_no_deviation() -> None:
    run = build_run(("negative", "positive"), seeds=(7,), dataset="mosei-2")
    page, markdown = report.render_report(run), report.markdown_summary(run)
    assert "One seed, 1550 test utterances. Seed 7: weighted F1" in page
    for text in (page, markdown):
        assert "±" not in text
        assert "best on dev" not in text
    assert [row["seed"] for row in report.scores_table(run)] == [7]


def test_ablations_are_named_and_hide_the_start_of_modulation(run: RunResult) -> None:
    ablations = run.config.ablations.model_copy(update={"no_afw": True, "no_modulation": True})
    changed = run.model_copy(update={"config": run.config.model_copy(update={"ablations": ablations})})
    page = report.render_report(changed)
    assert "text + audio + visual, without AFW, without modulation and noise" in page
    assert "modulation from epoch" not in page


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_data_are_announced(synthetic: bool) -> None:
    run = build_run(("a", "b"), seeds=(1,), epochs=1, synthetic=synthetic)
    for text in (report.render_report(run), report.markdown_summary(run)):
        assert (report.SYNTHETIC_NOTE in text) == synthetic


def test_a_restricted_licence_is_warned_of(page: str, run: RunResult) -> None:
    licences = {"audio": "is10, <non-commercial> use only"}
    restricted = run.model_copy(update={"licences": licences})
    assert "trained on such vectors. audio: is10, &lt;non-commercial&gt; use only.</p>" in report.render_report(
        restricted
    )
    assert "**Restricted use, also of models" in report.markdown_summary(restricted)
    assert "Restricted use" not in page + report.markdown_summary(run)


def test_dead_classes_are_warned_of_only_where_there_are_some(page: str, run: RunResult) -> None:
    assert report.dead_classes(run) == []
    assert DEAD not in page
    assert DEAD not in report.markdown_summary(run)
    dead = build_run(dead=(4,), epochs=1)
    supports = {test.scores.classes[4].support for test in dead.tests}
    line = f"excited: F1 = 0 in 3 of 3 seeds ({min(supports)} to {max(supports)} utterances)"
    assert report.dead_classes(dead) == [line]
    assert f"<li>{line}</li>" in report.render_report(dead)
    assert f"**{DEAD}:** {line}." in report.markdown_summary(dead)


def test_a_class_without_test_utterances_differs_from_one_with_f1_0() -> None:
    run = build_run(("a", "b"), seeds=(1,), epochs=1)
    scores = run.tests[0].scores
    rows = (*scores.classes, scores.classes[0].model_copy(update={"label": "c", "f1": 0.0, "support": 0}))
    test = run.tests[0].model_copy(update={"scores": scores.model_copy(update={"classes": rows})})
    assert report.dead_classes(run.model_copy(update={"tests": (test,)})) == [
        "c: no test utterances, so it counts as 0 in macro F1"
    ]


def test_a_class_is_counted_in_the_folds_that_test_it() -> None:
    run = build_run(("a", "b"), seeds=(1, 2), epochs=1, dead=(1,))
    first, second = run.tests
    tests = []
    for support in (0, 7, 9):  # the first fold does not test the class
        rows = (first.scores.classes[0], first.scores.classes[1].model_copy(update={"support": support}))
        tests.append(first.model_copy(update={"scores": first.scores.model_copy(update={"classes": rows})}))
    folds = run.model_copy(update={"tests": tuple(tests)})
    assert report.dead_classes(folds) == ["b: F1 = 0 in 2 of 2 tests (7 to 9 utterances)"]
    assert second.scores.classes[1].f1 == 0


def test_names_are_escaped() -> None:
    run = build_run(NASTY, seeds=(1, 2), epochs=1, dead=(0, 1), protocol="a <b>bold</b> claim")
    run = run.model_copy(update={"features": run.features.model_copy(update={"dataset": "<i>corpus</i>"})})
    page, markdown = report.render_report(run), report.markdown_summary(run)
    for text in (page, markdown):
        assert not re.search(r"<script|<i>|<b>", text)
    assert "&lt;i&gt;corpus&lt;/i&gt;" in page
    assert tables(page)[1][1][0] == NASTY[0]
    assert r"| a\|b |" in markdown
    assert r"\*c\*" in markdown


def test_markdown_tables_are_whole(run: RunResult) -> None:
    markdown = report.markdown_summary(run)
    assert markdown.startswith("# Ada2I on iemocap, preset reference\n")
    assert run.protocol in markdown
    blocks = [block.splitlines() for block in markdown.split("\n\n") if block.startswith("|")]
    assert [len(block) for block in blocks] == [5, 6, 8]
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1
    weighted = run.test_summary["weighted_f1"]
    assert blocks[0][2] == f"| weighted F1 | {four(weighted.mean)} ± {four(weighted.sd or 0)} |"


def test_scores_table_rows_share_their_heads(run: RunResult) -> None:
    rows = report.scores_table(run)
    assert len(rows) == 4
    assert all(list(row) == list(rows[0]) for row in rows)
    assert [row["test accuracy"] for row in rows[:3]] == [round(test.scores.accuracy, 4) for test in run.tests]
    assert rows[3]["selected epoch"] == ""


@pytest.mark.parametrize(
    "change", [{"tests": ()}, {"best_seed": 99}, {"test_summary": {}}], ids=["no tests", "no best", "no summary"]
)
def test_incomplete_runs_are_refused(run: RunResult, change: dict[str, object]) -> None:
    broken = run.model_copy(update=change)
    for show in (report.render_report, report.markdown_summary, report.scores_table):
        with pytest.raises(
            DataError, match="Run r-20250314-091500 must have a test result of every seed, including the best"
        ):
            show(broken)
