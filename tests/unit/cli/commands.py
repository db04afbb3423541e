"""Running a command, and what must come of it."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]  # arguments -> exit code, standard output, standard error


def refused(run: Run, *arguments: str) -> str:
    """Run a command that must be refused; return its message."""
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("error:") == 1
    assert "Traceback" not in err
    return err


def ok(run: Run, *arguments: str) -> str:
    """Run a command that must succeed without a word on standard error; return what it prints."""
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    return out
