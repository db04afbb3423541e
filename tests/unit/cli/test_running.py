"""What a command says when it is interrupted."""

import pytest

from ada2i.cli.running import interruptible


@pytest.mark.parametrize(("then", "told"), [("", "stopped.\n"), ("Again.", "stopped. Again.\n")])
def test_an_interrupted_command(then: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"), interruptible(then):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == f"Interrupted; what was started has been {told}"
