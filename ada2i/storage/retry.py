"""Asking again a place that is away, broken or busy: what may pass, for how long, and after which pauses."""

import errno
import logging
import random
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Final, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE_S: Final = 90.0
_FIRST_PATIENCE_S: Final = 8.0  # seconds, of a place that never answered: a wrong address, most likely
_LONGEST_PAUSE_S: Final = 5.0
_PASSING: Final = frozenset({"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"})  # whatever the status

_answered: set[str] = set()  # places that did


def patiently(place: str, call: Callable[[], T]) -> T:
    """Make a call; try again what may pass, after pauses that grow and that differ from caller to caller."""
    begun = time.monotonic()
    for attempt in count():
        try:
            answer = call()
        except Exception as problem:
            if hasattr(problem, "response"):  # it does answer
                _answered.add(place)
            patience = _PATIENCE_S if place in _answered else _FIRST_PATIENCE_S
            if not _may_pass(problem) or time.monotonic() - begun > patience:
                raise
            if attempt == 3:  # the first ones are every day's
                log.warning("%s fails and is retried for %.0f s: %s", place, patience, problem)
            time.sleep(random.uniform(0.5, 1.0) * min(0.1 * 2**attempt, _LONGEST_PAUSE_S))
        else:
            _answered.add(place)
            return answer
    raise AssertionError  # the loop has no end


def _may_pass(problem: Exception) -> bool:
    """Return whether the same call may succeed a little later: S3 is away, broken or busy, rather than saying no."""
    from botocore import exceptions as aws
    from urllib3.exceptions import HTTPError

    if isinstance(problem, aws.ClientError):
        code = problem.response.get("Error", {}).get("Code", "")
        return status(problem) >= 500 or status(problem) == 429 or code in _PASSING
    if isinstance(problem, OSError):  # fsspec's; EBUSY is what it makes of a busy S3
        return isinstance(problem, ConnectionError | TimeoutError) or problem.errno == errno.EBUSY
    # The last two: an answer that breaks off while it is read.
    return isinstance(problem, aws.ConnectionError | aws.HTTPClientError | aws.IncompleteReadError | HTTPError)


def status(problem: Any) -> int:
    """Return the HTTP status of an S3 error response."""
    return int(problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
