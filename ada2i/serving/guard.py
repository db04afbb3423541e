"""What stands before every request: the token, the limits of size, number and time, and the metrics.

Nothing of a request is logged: neither its body nor its path, since paths hold the ids of sessions.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ada2i.errors import AccessError, Ada2iError, InputError, ResourceError, UnreachableError
from ada2i.serving import failures
from ada2i.serving.limits import Limits
from ada2i.serving.metrics import Metrics

log = logging.getLogger(__name__)

OPEN: Final = frozenset({"/healthz", "/docs", "/example", "/openapi.json"})
"""Paths that need no token: they show no more than what the version takes."""


def digest(token: str) -> bytes:
    """Return the SHA-256 of a token: tokens are compared by it, in constant time."""
    return hashlib.sha256(token.encode()).digest()


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, *, token: bytes, limits: Limits, metrics: Metrics) -> None:
        self._app, self._token, self._limits, self._metrics = app, token, limits, metrics
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._running += 1
        try:
            await self._answer(scope, receive, observed)
        except Exception as problem:  # noqa: BLE001 - the message of an unknown error may hold what a client sent
            if not status:
                await failures.response(_public(problem, self._limits))(scope, receive, observed)
        finally:
            self._running -= 1
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.observe(route, status or 499, time.perf_counter() - begun)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["path"] not in OPEN:
            self._check_token(headers.get("authorization", ""))
        if self._running > self._limits.requests:
            raise ResourceError(
                f"At most {self._limits.requests} requests are answered at the same time, and are. Send it later.",
                status=429,
            )
        async with asyncio.timeout(self._limits.seconds):
            body = await self._body(headers, receive)
            sent = False

            async def replayed() -> Message:
                nonlocal sent
                if sent:
                    return await receive()
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}

            await self._app(scope, replayed, send)

    def _check_token(self, given: str) -> None:
        scheme, _, found = given.partition(" ")
        if not (scheme.lower() == "bearer" and hmac.compare_digest(digest(found.strip()), self._token)):
            raise AccessError(
                "A request must carry the server's token, but carries none or another. Send the header "
                "`Authorization: Bearer TOKEN`."
            )

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """Return a request's body; stop reading at the limit of its size."""
        most = self._limits.body_bytes
        declared = headers.get("content-length", "0")
        expected, received, more, parts = int(declared) if declared.isdecimal() else 0, 0, True, []
        while more and max(expected, received) <= most:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
            received += len(parts[-1])
        if max(expected, received) > most:
            raise InputError(
                f"A request must have at most {most} bytes, but has more. Send fewer turns, or a shorter clip.",
                status=413,
            )
        return b"".join(parts)


def _public(problem: Exception, limits: Limits) -> Ada2iError:
    """Return the error that a client gets; others than those of this package are logged by their class only."""
    if isinstance(problem, Ada2iError):
        return problem
    if isinstance(problem, TimeoutError):
        return UnreachableError(
            f"A request must be answered within {limits.seconds:g} s, but was not. Send it again when the server is "
            "less busy, or send fewer turns.",
            status=504,
        )
    log.error("A request failed with %s.", type(problem).__name__)
    return Ada2iError(f"The server failed with {type(problem).__name__}. Report it with the request.")
