"""The audit's page and tables say what the report says, escaped, and load nothing."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from ada2i.audit.audit import audit
from ada2i.audit.records import AuditReport
from ada2i.reports.audit_report import render_audit, terminal_report
from tests.unit.data.tables import corpus, write
from tests.unit.reports.test_report import Nesting, tables

NASTY = "<b>[red]x[/red]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    columns = corpus()
    columns["audio_feat"][3] = [float("nan"), 0.0]
    columns["label"] = [NASTY, *["calm"] * 7]
    return audit(str(write(tmp_path_factory.mktemp("audit") / "x.parquet", columns, dataset=NASTY)))


def shown(report: AuditReport, *allow: str) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    for part in terminal_report(report, allow=allow):
        console.print(part)
    return console.export_text()


def test_page_is_well_nested_and_loads_nothing(report: AuditReport) -> None:
    page, nesting = render_audit(report), Nesting()
    nesting.feed(page)
    assert nesting.open == []
    assert render_audit(report) == page
    assert set(re.findall(r"https?://[^\"' <)]*", page)) == {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\((?!#)|\ssrc=|\son\w+=", page)


def test_page_says_what_the_report_says(report: AuditReport) -> None:
    page = render_audit(report)
    findings, *_ = tables(page)
    assert [row[1] for row in findings[1:]] == [finding.code for finding in report.findings]
    assert [row[4] for row in findings[1:]] == [finding.message for finding in report.findings]
    assert "<b>[red]" not in page
    assert page.count('<svg role="img"') == page.count("<figcaption>") == 3
    assert "Training would refuse it (non-finite)." in page
    assert "Training accepts it, allowing non-finite." in render_audit(report, allow=["non-finite"])


def test_terminal_says_what_the_report_says(report: AuditReport) -> None:
    text = shown(report)
    assert f"Audit of {NASTY}: training would refuse it (non-finite)" in text
    for finding in report.findings:
        assert finding.code in text
    for head in ("Findings", "Splits", "Utterances by class", "Vectors", "What splits share"):
        assert head in text
    assert NASTY in text.partition("Utterances by class")[2]
    assert "training accepts it, allowing non-finite" in shown(report, "non-finite")


def test_a_table_with_next_to_nothing_is_shown(tmp_path: Path) -> None:
    bare = audit(str(write(tmp_path / "x.parquet", {"split": ["train", "test"]})))
    assert render_audit(bare).count("<svg") == 0
    assert "missing-columns" in shown(bare)
