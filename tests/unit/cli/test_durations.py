"""Times as people write them."""

import pytest

from ada2i.cli.durations import seconds
from ada2i.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "wanted"), [("0s", 0), ("45s", 45), ("30m", 1800), ("12h", 43200), ("90d", 7776000), ("2w", 1209600)]
)
def test_seconds(text: str, wanted: int) -> None:
    assert seconds("--x", text) == wanted


@pytest.mark.parametrize(
    "text", ["", "1", "d", "1y", "1.5d", "-1d", "1 d", "1d ", "²d", "1d\n", "9" * 400 + "d", "1234567890s"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match=r"`--x` must be a whole number followed by s, m, h, d or w, but is"):
        seconds("--x", text)
