"""Errors as HTTP answers: the usual message as JSON, with a fitting status."""

from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ada2i.errors import AccessError, Ada2iError, ConflictError, InputError, NotFoundError, UnreachableError

_STATUS = (  # of the first class that fits
    (AccessError, 401),
    (NotFoundError, 404),
    (ConflictError, 409),
    (InputError, 422),
    (UnreachableError, 503),
)
_RETRY_SECONDS = 1  # after which a request that could not be answered now may be sent again
_SHOWN = 5  # mistakes of a request that are listed


def response(problem: Ada2iError) -> JSONResponse:
    """Return the answer for an error: ``{"error": {"type", "message", "field"}}``; ``field`` if one is wrong."""
    status = int(problem.context.get("status") or next((s for kind, s in _STATUS if isinstance(problem, kind)), 500))
    error = {"type": type(problem).__name__, "message": problem.message}
    if "field" in problem.context:
        error["field"] = problem.context["field"]
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(problem.context.get("retry_after", _RETRY_SECONDS))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": error}, status, headers)


def of_body(problem: RequestValidationError) -> InputError:
    """Return the error for a body that has not the form of a request; nothing of its values is repeated."""
    mistakes = [(".".join(map(str, error["loc"][1:])), error["msg"]) for error in problem.errors()]
    listed = "; ".join(f"`{place or 'body'}`: {what}" for place, what in mistakes[:_SHOWN])
    more = f"; and {len(mistakes) - _SHOWN} more" if len(mistakes) > _SHOWN else ""
    return InputError(
        f"A request must have the form that /docs shows, but: {listed}{more}. Correct it.",
        field=mistakes[0][0] or "body",
    )


def of_path(problem: HTTPException) -> InputError:
    """Return the error for a path or method that does not exist, or a body that is not JSON."""
    if problem.status_code == 400:
        return InputError("A request's body must be JSON, but cannot be read. Correct it.", status=400, field="body")
    context: dict[str, Any] = {"status": problem.status_code}
    return InputError(f"A request must have a path and method that /docs lists, but: {problem.detail}.", **context)
