"""HTTP to Ray's dashboard, Prefect and the local stack's servers."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ada2i.errors import AccessError

if TYPE_CHECKING:
    import httpx

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


def auth_headers() -> dict[str, str]:
    """Return the HTTP headers that the cluster requires, from this process's current environment.

    Pass them to Ray's clients, which look for a token only once: when ``ray`` is imported, or at their first request.

    Raises:
        AccessError: The token's file cannot be read.
    """
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token_headers(token)
    if not (path := os.environ.get("RAY_AUTH_TOKEN_PATH")):
        return {}  # an open cluster, or Ray's client finds the token in its own usual place
    try:
        return token_headers(Path(path).read_text())
    except OSError as problem:
        raise AccessError(
            f"RAY_AUTH_TOKEN_PATH must name a file with the cluster's token, but {path} cannot be read: "
            f"{problem.strerror}. Correct the variable.",
            path=path,
        ) from problem


def token_headers(token: str) -> dict[str, str]:
    """Return the HTTP headers that carry a token."""
    return {"Authorization": f"Bearer {token.strip()}"}


def request(
    url: str, headers: Mapping[str, str], *, method: str = "GET", body: bytes | None = None
) -> tuple[int, bytes]:
    """Send a request to a server; requests to this machine bypass the proxy that the environment names.

    Returns:
        The HTTP status and the body of the response; ``(0, b"")`` if there is no response in HTTP, or no such URL.
    """
    content = {"Content-Type": "application/json"} if body is not None else {}
    response = _send(url, {**headers, **content}, method, body)
    return (response.status_code, response.content) if response is not None else (0, b"")


def date(url: str) -> str | None:
    """Return the Date header of a server's response, empty if it has none; None if there is no response in HTTP."""
    response = _send(url, {}, "HEAD", None)
    return response.headers.get("Date", "") if response is not None else None


def _send(url: str, headers: Mapping[str, str], method: str, body: bytes | None) -> "httpx.Response | None":
    import httpx

    try:
        remote = httpx.URL(url).host not in _LOOPBACK
        with httpx.Client(timeout=5, trust_env=remote, follow_redirects=True) as client:
            return client.request(method, url, headers=headers, content=body)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):  # the error's text may hold the URL's password
        return None
