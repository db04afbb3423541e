"""Retries calls to stores that are unreachable, failing or busy: which errors, for how long, and with which pauses."""

import errno
import logging
import random
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Final, TypeVar

from ada2i.storage.uris import clean

log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_S: Final = 90.0  # seconds for which a call is retried
_FIRST_RETRY_S: Final = 8.0  # the same for a store that has never answered: its address is probably wrong
_LONGEST_PAUSE_S: Final = 5.0
_PERMANENT: Final = (501, 505, 507)  # statuses: the request is not supported, or the store is full
# Codes of answers that are temporary with any status.
_TEMPORARY: Final = frozenset({"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"})

_answered: set[str] = set()  # stores that have answered


def retried(place: str, call: Callable[[], T]) -> T:
    """Make a call; retry it after temporary errors, with growing, randomised pauses."""
    begun = time.monotonic()
    for attempt in count():
        try:
            answer = call()
        except Exception as problem:
            if hasattr(problem, "response"):  # the store has answered
                _answered.add(place)
            longest = _RETRY_S if place in _answered else _FIRST_RETRY_S
            if not _is_temporary(problem) or time.monotonic() - begun > longest:
                raise
            if attempt == 3:  # the first failures are common
                log.warning("%s fails and is retried for %.0f s: %s", clean(place), longest, clean(problem))
            time.sleep(random.uniform(0.5, 1.0) * min(0.1 * 2**attempt, _LONGEST_PAUSE_S))
        else:
            _answered.add(place)
            return answer
    raise AssertionError  # unreachable: the loop is infinite


def _is_temporary(problem: Exception) -> bool:
    """Return whether the same call may soon succeed: the store is unreachable, failing or busy, not refusing."""
    from botocore.exceptions import ClientError

    if isinstance(problem, ClientError):
        return is_temporary_answer(problem)
    if is_unreachable(problem):
        return True
    return isinstance(problem, ConnectionError | TimeoutError) or getattr(problem, "errno", 0) == errno.EBUSY


def is_temporary_answer(answer: Any) -> bool:
    """Return whether the server may soon answer the same S3 request differently."""
    code = answer.response.get("Error", {}).get("Code", "")
    return code in _TEMPORARY or status(answer) == 429 or (status(answer) >= 500 and status(answer) not in _PERMANENT)


def is_unreachable(problem: Exception) -> bool:
    """Return whether an S3 server did not answer, or its answer was cut off."""
    from botocore import exceptions as aws
    from urllib3.exceptions import HTTPError

    return isinstance(problem, aws.ConnectionError | aws.HTTPClientError | aws.IncompleteReadError | HTTPError)


def status(problem: Any) -> int:
    """Return the HTTP status of an S3 error response."""
    return int(problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
