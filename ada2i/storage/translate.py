"""Translates errors of folders, S3 and fsspec into this package's errors."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ada2i.errors import AccessError, Ada2iError, NotFoundError, UnreachableError
from ada2i.storage import retry, s3


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Translate an error of a backend into one of this package's errors."""
    try:
        yield
    except Ada2iError:
        raise
    except OSError as problem:
        raise _folder_error(uri, problem) from problem
    except Exception as problem:
        if (ours := _s3_error(uri, problem)) is None:
            raise
        raise ours from problem


def _folder_error(uri: str, problem: OSError) -> Ada2iError:
    if isinstance(problem, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return NotFoundError(f"{uri} does not exist. Check the location.", uri=uri)
    if isinstance(problem, PermissionError):
        return AccessError(f"{uri} may not be read or written: {problem}. Correct the permissions.", uri=uri)
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnreachableError(f"{uri} cannot be written: the disk is full. Free some space and run again.", uri=uri)
    return UnreachableError(f"{uri} failed: {type(problem).__name__}: {problem}. Check the location.", uri=uri)


def _s3_error(uri: str, problem: Exception) -> Ada2iError | None:
    from botocore import exceptions as aws

    endpoint = s3.endpoint()
    if isinstance(problem, aws.NoCredentialsError | aws.PartialCredentialsError | aws.ProfileNotFound):
        return AccessError(
            f"{uri} needs S3 credentials, but found none. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE.",
            uri=uri,
        )
    if isinstance(problem, aws.ClientError):
        return _s3_answer(uri, endpoint, problem)
    if isinstance(problem, aws.BotoCoreError | ValueError):
        return UnreachableError(
            f"{uri} must be reachable at {endpoint}, but: {problem}. Check AWS_ENDPOINT_URL and that the server is up.",
            uri=uri,
        )
    return None


def _s3_answer(uri: str, endpoint: str, problem: Any) -> Ada2iError:
    code, status = problem.response.get("Error", {}).get("Code", "?"), retry.status(problem)
    if code == "NoSuchBucket":
        return AccessError(f"{uri}: the bucket does not exist at {endpoint}. Create it, or correct the URI.", uri=uri)
    if status == 404:
        return NotFoundError(f"{uri} does not exist at {endpoint}. Check the location.", uri=uri)
    if status in (400, 401, 403):
        return AccessError(
            f"{uri}: {endpoint} refused the S3 credentials ({code}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and their permissions.",
            uri=uri,
        )
    return UnreachableError(f"{uri}: {endpoint} answered {status} {code}. Try again later.", uri=uri)
