import pytest

from ada2i.reports.templates import _code


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Add `--allow CODE`.", "Add <code>--allow CODE</code>."),
        ("a `<b>` & <i>", "a <code>&lt;b&gt;</code> &amp; &lt;i&gt;"),
        ("one ` alone <b>", "one ` alone &lt;b&gt;"),
        ("none", "none"),
    ],
)
def test_backticks_become_code_and_everything_is_escaped(text: str, html: str) -> None:
    assert str(_code(text)) == html
