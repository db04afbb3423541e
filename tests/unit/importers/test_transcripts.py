import pytest

from ada2i.importers.transcripts import repaired


@pytest.mark.parametrize(
    ("read", "meant"),
    [
        ("don\x92t", "don\u2019t"),
        ("\x93so\x85\x94", "“so…”"),
        ("caf\xe9 \x96 ok", "café \u2013 ok"),
        ("donâ\x80\x99t", "don\u2019t"),
        ("cafÃ©", "café"),
        ("五\x92", "五\u2019"),
        ("\x81", "\x81"),  # no character of Windows-1252
        ("\ud800", "?"),
    ],
)
def test_bytes_read_as_latin_1(read: str, meant: str) -> None:
    assert repaired(read) == meant


@pytest.mark.parametrize("text", ["", "don\u2019t", "café", "naïve Â", "五", "plain"])
def test_sound_text_stays(text: str) -> None:
    assert repaired(text) == text
