"""Rate and time left, in lines without a terminal and behind a bar in one."""

import pytest

from ada2i.prediction.progress import TerminalProgress, line

PROGRESS = {"kind": "progress", "done": 1024, "total": 12158, "per_second": 1812.5, "seconds_left": 64}


def test_lines() -> None:
    assert line(PROGRESS) == "    1,024/12,158 utterances  1,812/s  1:04 left"
    assert line({"kind": "planned", "shards": 3, "done": 1}) == "3 shards, 1 of them predicted before"


def test_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress() as progress:
        progress({"kind": "started", "workers": 2, "device": "cpu", "run_id": "run"})
        progress(PROGRESS)
    shown = capsys.readouterr().err
    assert "2 workers on cpu, prediction run" in shown
    assert "1,024/12,158" in shown


def test_the_choice_of_the_device_and_a_wait_for_nodes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "`workers` is 2; each has 0.5 of a GPU"
    with TerminalProgress() as progress:
        progress({"kind": "waiting", "message": "waiting for 2 GPUs (now 1), at most 900 s more"})
        progress({"kind": "started", "workers": 2, "device": "cuda", "reason": reason, "run_id": "run"})
    shown = " ".join(capsys.readouterr().err.split())
    assert "waiting for 2 GPUs (now 1), at most 900 s more" in shown
    assert f"2 workers on cuda ({reason}), prediction run" in shown


def test_one_bar() -> None:
    progress = TerminalProgress()
    progress.bars.disable = False
    for done in (1024, 2048):
        progress(PROGRESS | {"done": done})
    (bar,) = progress.bars.tasks
    assert (bar.description, bar.completed, bar.total) == ("predicting", 2048, 12158)
    assert bar.fields["rate"] == "1,812/s  1:04 left"
