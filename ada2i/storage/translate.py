"""Translates errors of folders, S3 and fsspec into this package's errors, without the secrets in their texts."""

import email.utils
import errno
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ada2i.errors import AccessError, Ada2iError, InputError, IntegrityError, NotFoundError, UnreachableError
from ada2i.storage import retry, s3
from ada2i.storage.uris import clean, public

_OPERATIONS: Final = ("GetObject", "PutObject", "HeadObject", "DeleteObject", "ListObjectsV2")
_SKEW_S: Final = 900.0  # the difference of clocks that S3 allows

# By the first pattern that "STATUS CODE" of an answer matches: what is wrong, and what to do.
_ANSWERS: Final = (
    (r"RequestTimeTooSkewed|RequestExpired", "this machine's clock is wrong", "Set it by NTP."),
    (r"KeyTooLong", "the name is too long: a key has at most 1024 bytes", "Shorten the root, or the name."),
    (
        r"Quota|StorageFull|InsufficientStorage|507",
        "the store is full, or its quota is used up",
        "Free some space, or raise the quota.",
    ),
    (r"EntityTooLarge", "the object is larger than the store allows", "Raise the store's limit."),
    (
        r"AuthorizationHeaderMalformed|PermanentRedirect|LocationConstraint|InvalidRegion|^3",
        "the request was signed for another region or sent to another address than the bucket's",
        "Set AWS_REGION, AWS_DEFAULT_REGION or the profile's region, and check AWS_ENDPOINT_URL.",
    ),
    (
        r"NotImplemented|501",
        "the store does not support the request: it cannot write only where nothing is (`If-None-Match`)",
        "Use a store with conditional writes.",
    ),
    (
        r"MethodNotAllowed|405",
        "the server does not allow the request",
        "Check that AWS_ENDPOINT_URL is the address of S3, not that of a web page.",
    ),
    (
        r"AccessDenied|Forbidden|Unauthorized|AccessKey|Signature|Token|Credential|Account|Security|40[13]$|^401",
        "",
        "",
    ),
)


@contextmanager
def translated(location: str) -> Iterator[None]:
    """Translate an error of a backend into one of this package's errors."""
    try:
        yield
    except Ada2iError:
        raise
    except Exception as problem:
        uri = public(location)
        ours = _s3_error(uri, problem) if location.startswith("s3://") else _other_error(uri, problem)
        if ours is None:
            raise
        raise ours from (problem if clean(problem) == str(problem) else None)


def _other_error(uri: str, problem: Exception) -> Ada2iError | None:
    # fsspec raises FileNotFoundError for any bad answer of HTTP, caused by the error with the status.
    cause = problem.__cause__ if isinstance(problem, FileNotFoundError) else None
    if (status := getattr(cause or problem, "status", None)) and isinstance(status, int):
        return _http_answer(uri, status)
    if isinstance(problem, OSError):
        return _folder_error(uri, problem)
    if type(problem).__module__.partition(".")[0] == "aiohttp":
        return UnreachableError(f"{uri} failed: {_text(problem)}. Check the location.", uri=uri)
    return None


def _http_answer(uri: str, status: int) -> Ada2iError:
    if status in (404, 410):
        return NotFoundError(f"{uri} does not exist: its server answered {status}. Check the location.", uri=uri)
    if status == 429 or status >= 500:
        return UnreachableError(f"{uri}: its server answered {status}. Try again later.", uri=uri)
    return AccessError(
        f"{uri}: its server answered {status}, a refusal. Check the location, its user, password or signature; a "
        "signed location expires.",
        uri=uri,
    )


def _folder_error(uri: str, problem: OSError) -> Ada2iError:
    if isinstance(problem, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return NotFoundError(f"{uri} does not exist. Check the location.", uri=uri)
    if isinstance(problem, PermissionError):
        return AccessError(f"{uri} may not be read or written: {clean(problem)}. Correct the permissions.", uri=uri)
    if problem.errno == errno.ENAMETOOLONG:
        return AccessError(f"{uri} cannot be written: the name is too long. Shorten the root, or the name.", uri=uri)
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnreachableError(f"{uri} cannot be written: the disk is full. Free some space and run again.", uri=uri)
    return UnreachableError(f"{uri} failed: {_text(problem)}. Check the location.", uri=uri)


def _text(problem: Exception) -> str:
    return f"{type(problem).__name__}: {clean(problem)}"


# --- S3 ---


def _s3_error(uri: str, problem: Exception) -> Ada2iError | None:
    from botocore import exceptions as aws

    endpoint = public(s3.endpoint())
    if isinstance(problem, aws.NoCredentialsError | aws.PartialCredentialsError | aws.ProfileNotFound):
        return AccessError(
            f"{uri} needs S3 credentials, but found none. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE.",
            uri=uri,
        )
    if isinstance(problem, RecursionError):  # botocore asks for the bucket's region, and is redirected again
        problem = aws.ClientError({"Error": {"Code": "PermanentRedirect", "Message": "endless"}}, _OPERATIONS[0])
    if isinstance(problem, aws.ClientError):
        return _s3_answer(uri, endpoint, problem) if problem.operation_name in _OPERATIONS else _no_access(uri, problem)
    if isinstance(problem, aws.FlexibleChecksumError | aws.ChecksumError):
        return IntegrityError(
            f"{uri} must hold the bytes with the checksum that S3 recorded, but is damaged: {clean(problem)}. Restore "
            "it, or write it again.",
            uri=uri,
        )
    if isinstance(problem, aws.ParamValidationError):
        return InputError(f"{uri} must be a location that S3 allows, but: {clean(problem)}. Correct it.", uri=uri)
    if _is_at_endpoint(problem):
        return UnreachableError(
            f"{uri} must be reachable at {endpoint}, but: {clean(problem)}. Check AWS_ENDPOINT_URL and that the server "
            "is up.",
            uri=uri,
        )
    return _no_access(uri, problem) if isinstance(problem, aws.BotoCoreError | ValueError | OSError) else None


def _is_at_endpoint(problem: Any) -> bool:
    """Return whether S3's own address does not answer, rather than that of a service of credentials."""
    if isinstance(problem, ValueError) and "endpoint" in str(problem).lower():
        return True
    place = str(getattr(problem, "kwargs", {}).get("endpoint_url", ""))
    return retry.is_unreachable(problem) and not re.match(r"https?://(sts|oidc|portal\.sso|signin|169\.254)\.", place)


def _no_access(uri: str, problem: Exception) -> Ada2iError:
    return AccessError(
        f"{uri} needs S3 credentials, but these could not be got: {_text(problem)}. Log in again, or correct the "
        "profile, role, token file or program that AWS_PROFILE and the AWS config name.",
        uri=uri,
    )


def _s3_answer(uri: str, endpoint: str, problem: Any) -> Ada2iError:
    error, status = problem.response.get("Error", {}), retry.status(problem)
    code = error.get("Code", "?")
    if code == "NoSuchBucket":
        return AccessError(f"{uri}: the bucket does not exist at {endpoint}. Create it, or correct the URI.", uri=uri)
    if status == 404:
        return NotFoundError(f"{uri} does not exist at {endpoint}. Check the location.", uri=uri)
    if retry.is_temporary_answer(problem) or status == 409:
        return UnreachableError(f"{uri}: {endpoint} answered {status} {code}. Try again later.", uri=uri)
    known = _ANSWERS[0] if _is_skewed(problem) else _reason(f"{status} {code}")
    if known is None:
        found = f"answered {status} {code}: {clean(error.get('Message', ''))[:200]}"
        return AccessError(f"{uri}: {endpoint} {found}. Correct the location, or the store's settings.", uri=uri)
    _, found, todo = known
    if not found:
        return AccessError(
            f"{uri}: {endpoint} refused the S3 credentials ({code}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and their permissions.",
            uri=uri,
        )
    return AccessError(f"{uri}: {endpoint} answered {status} {code}: {found}. {todo}", uri=uri)


def _reason(answer: str) -> tuple[str, str, str] | None:
    return next((entry for entry in _ANSWERS if re.search(entry[0], answer)), None)


def _is_skewed(problem: Any) -> bool:
    """Return whether the clocks differ so much that S3 refuses a signature; an answer to HEAD does not say so."""
    sent = problem.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    theirs = email.utils.parsedate_tz(sent)
    skew = time.time() - email.utils.mktime_tz(theirs) if theirs else 0.0
    return retry.status(problem) == 403 and abs(skew) > _SKEW_S
