"""The difference between this machine's clock and a server's."""

import http.client
import time
import urllib.error
import urllib.request
from contextlib import closing
from email.utils import parsedate_to_datetime
from typing import Final

from ada2i import storage
from ada2i.doctor.check import Check, fail, ok, warn

_ODD: Final = 60.0  # seconds
_REFUSED: Final = 14 * 60.0  # S3 refuses signatures that are 15 minutes off
_TODO: Final = "Set this machine's clock, for example with `timedatectl set-ntp true`."


def check_clock(name: str, url: str) -> Check:
    """Compare this machine's clock with a web server's, whatever the server answers."""
    begun = time.time()
    try:
        date = _date(url)
    except (OSError, ValueError, http.client.HTTPException):  # the text of the error may hold the URL's password
        return fail(name, f"{storage.public(url)} does not answer", "Correct the address, or start the server.")
    if date is None:
        return warn(name, f"{storage.public(url)} sends no Date header", "Compare the clocks yourself.")
    skew = (begun + time.time()) / 2 - parsedate_to_datetime(date).timestamp()
    found = f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {storage.public(url)}"
    if abs(skew) > _REFUSED:
        return fail(name, found, f"S3 refuses signatures that are 15 minutes off. {_TODO}")
    if abs(skew) > _ODD:
        return warn(name, found, _TODO)
    return ok(name, f"within {max(1.0, abs(skew)):.0f} s of {storage.public(url)}")


def _date(url: str) -> str | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5) as answer:
            return str(answer.headers["Date"]) if "Date" in answer.headers else None
    except urllib.error.HTTPError as problem:
        with closing(problem):
            return problem.headers.get("Date")
