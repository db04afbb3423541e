"""The difference between this machine's clock and a server's."""

import time
from email.utils import parsedate_to_datetime
from typing import Final

from ada2i import storage
from ada2i.doctor.check import Check, fail, ok, warn
from ada2i.jobs import http

_ODD: Final = 60.0  # seconds
_REFUSED: Final = 14 * 60.0  # S3 refuses signatures that are 15 minutes off
_TODO: Final = "Set this machine's clock, for example with `timedatectl set-ntp true`."


def check_clock(name: str, url: str) -> Check:
    """Compare this machine's clock with a web server's, whatever the server answers."""
    begun = time.time()
    date = http.date(url)
    if date is None:
        return fail(name, f"{storage.public(url)} does not answer", "Correct the address, or start the server.")
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return warn(name, f"{storage.public(url)} sends no valid Date header", "Compare the clocks yourself.")
    skew = (begun + time.time()) / 2 - theirs
    found = f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {storage.public(url)}"
    if abs(skew) > _REFUSED:
        return fail(name, found, f"S3 refuses signatures that are 15 minutes off. {_TODO}")
    if abs(skew) > _ODD:
        return warn(name, found, _TODO)
    return ok(name, f"within {max(1.0, abs(skew)):.0f} s of {storage.public(url)}")
