"""What a command says when it is interrupted."""

import pytest

from ada2i.cli.running import TerminalHooks


def test_an_interrupted_command_says_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    hooks = TerminalHooks("The same command with `--run r1` resumes it.")
    with pytest.raises(KeyboardInterrupt), hooks.job("predict", "file:///p/r1", "http://127.0.0.1:1"):
        raise KeyboardInterrupt
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "r1: the same command with `--run r1` resumes it."
    stopped = "Interrupted. All processes of the job have been stopped."
    assert lines[-1] == f"{stopped} The same command with `--run r1` resumes it."
