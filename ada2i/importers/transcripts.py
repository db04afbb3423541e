"""Texts of published files: CSV of any length, and repair of Windows-1252 or UTF-8 that was decoded as Latin-1."""

import csv
import io
import re
import sys
from contextlib import suppress

_CONTROL = re.compile("[\x80-\x9f]")  # control codes, where Windows-1252 has quotes and dashes
_UTF8 = re.compile("[\xc2-\xf4][\x80-\xbf]")


def csv_lines(text: str) -> io.StringIO:
    """Return the lines of a CSV for a reader of ``csv``, which from then on takes texts of any length."""
    csv.field_size_limit(sys.maxsize)
    return io.StringIO(text, newline="")


def repaired(text: str) -> str:
    """Return a text with its original characters; most texts need no change."""
    if _UTF8.search(text):
        with suppress(UnicodeError):  # it has characters outside Latin-1, or its bytes are not UTF-8
            text = text.encode("latin-1").decode("utf-8")
    text = _CONTROL.sub(_meant, text)
    return text.encode("utf-8", "replace").decode("utf-8")  # an unpaired surrogate becomes a question mark


def _meant(found: re.Match[str]) -> str:
    return found[0].encode("latin-1").decode("cp1252", "ignore") or found[0]
