"""Rate and time left, in lines without a terminal."""

import pytest

from ada2i.extraction.progress import TerminalProgress, line

PROGRESS = {
    "kind": "progress",
    "modality": "text",
    "done": 512,
    "total": 12158,
    "per_second": 181.25,
    "seconds_left": 64,
}


def test_lines() -> None:
    assert line(PROGRESS) == "text      512/12158  181.2/s  1:04 left"
    work = {"text": {"encoded": 1, "reused": 2, "utterances": 3}, "audio": {"encoded": 0, "reused": 2, "utterances": 2}}
    reported = line({"kind": "planned", "work": work})
    assert reported == "text: 1 to encode, 2 encoded before; audio: 0 to encode, 2 encoded before"


def test_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress() as progress:
        progress({"kind": "started", "workers": 2, "device": "cpu", "run_id": "run"})
        progress("some noise")
        for done in (512, 1024, 12158):
            progress(PROGRESS | {"done": done})
    shown = capsys.readouterr().err
    assert "2 workers on cpu, extraction run" in shown
    assert "512/12158" in shown
    assert "1024/12158" not in shown  # too soon after the first
    assert "12158/12158" in shown
    assert "noise" not in shown
