"""The HTTP API: checks requests, holds the sessions, and asks the model replicas.

There is one endpoint process, so sessions are in one place and survive the end of a model replica.
"""

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from ada2i.errors import Ada2iError, UnreachableError
from ada2i.serving import failures, page
from ada2i.serving.guard import Guard
from ada2i.serving.limits import Limits
from ada2i.serving.live import Context
from ada2i.serving.metrics import CONTENT_TYPE, Metrics
from ada2i.serving.replica import Answered, Asked, Description
from ada2i.serving.sessions import Sessions
from ada2i.serving.turns import GivenDialogue, GivenTurn, checked


@serve.ingress()
class Endpoint:
    """The one process that answers HTTP."""

    def __init__(self, replicas: Any, limits: Limits, token: bytes) -> None:
        self._replicas, self._limits, self._token = replicas, limits, token
        self._sessions, self._metrics = Sessions(limits, ended=self._ended), Metrics()
        self._tasks: set[asyncio.Task[None]] = set()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application that Ray Serve runs in this process."""
        api = FastAPI(title="ada2i", openapi_url=None, docs_url=None, redoc_url=None)
        api.include_router(self._router())
        api.add_exception_handler(Ada2iError, _on_error)
        api.add_exception_handler(RequestValidationError, _on_body)
        api.add_exception_handler(HTTPException, _on_path)
        self._api = api
        return Guard(api, token=self._token, limits=self._limits, metrics=self._metrics)

    def _router(self) -> APIRouter:
        router = APIRouter()
        router.post("/predict", summary="Predict a whole dialogue")(self.predict)
        router.post("/sessions", status_code=201, summary="Open a live session")(self.open)
        router.post("/sessions/{session}/turns", summary="Predict the next turn of a live session")(self.turn)
        router.delete("/sessions/{session}", status_code=204, summary="Close a live session")(self.close)
        router.get("/healthz", summary="Whether the model answers, and its version")(self.healthz)
        router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)(self.metrics)
        router.get("/example", summary="A dialogue that /predict takes")(self.example)
        router.get("/openapi.json", include_in_schema=False)(self.openapi)
        router.get("/docs", include_in_schema=False, response_class=HTMLResponse)(self.docs)
        return router

    async def predict(self, given: GivenDialogue) -> JSONResponse:
        """Answer each turn of a dialogue, as `ada2i predict` does."""
        answered = await self._ask(Asked(checked(given.turns, self._limits)))
        return JSONResponse({"version": answered.version, "turns": answered.answers})

    async def open(self) -> JSONResponse:
        """Open a session; its id is a secret, and ends with the session."""
        return JSONResponse(
            {"session": self._sessions.open(), "expires_after_seconds": self._limits.session_seconds}, 201
        )

    async def turn(self, session: str, given: GivenTurn) -> JSONResponse:
        """Answer a session's next turn; an answer that is an error leaves the session as it was."""
        (turn,) = checked([given], self._limits)
        found = self._sessions.find(session)
        async with found.lock:
            self._sessions.check_room(found)
            answered = await self._ask(Asked((turn,), live=True, context=found.context))
            assert answered.context is not None
            self._sessions.keep(found, answered.context)
        return JSONResponse({"version": answered.version, "turn": answered.context.turns - 1, **answered.answers[0]})

    async def close(self, session: str) -> Response:
        """Close a session, and forget its turns."""
        self._sessions.close(session)
        return Response(status_code=204)

    async def healthz(self) -> JSONResponse:
        """Answer 200 if a model replica answers."""
        return JSONResponse({"status": "ok", "version": (await self._describe()).version})

    async def metrics(self) -> Response:
        """Return requests by status, their times, batch sizes, open sessions and the current version."""
        version = (await self._describe()).version
        return Response(self._metrics.text(sessions=len(self._sessions), version=version), media_type=CONTENT_TYPE)

    async def example(self) -> JSONResponse:
        """Return a request for the current version."""
        return JSONResponse({"turns": page.example(await self._describe())})

    async def openapi(self) -> JSONResponse:
        """Return the description of this API, with an example for the current version."""
        return JSONResponse(page.openapi(self._api, await self._describe()))

    async def docs(self) -> HTMLResponse:
        """Return a page that shows the API and sends its example."""
        return HTMLResponse(page.html(page.openapi(self._api, await self._describe())))

    async def _describe(self) -> Description:
        described: Description = await self._called("describe")
        self._metrics.windows(described.windows)
        return described

    def _ended(self, context: Context) -> None:
        """Have a replica count a session's dialogue for its drift windows; no request waits for it."""
        if context.sums is not None:
            task = asyncio.get_running_loop().create_task(self._count(context))
            self._tasks.add(task)  # the loop itself holds no reference
            task.add_done_callback(self._tasks.discard)

    async def _count(self, context: Context) -> None:
        with suppress(UnreachableError):
            await self._called("count", context.number, context.sums)

    async def _ask(self, asked: Asked) -> Answered:
        answered = await self._called("ask", asked)
        if isinstance(answered, Ada2iError):
            raise answered
        self._metrics.answered(answered.batch)
        return answered  # type: ignore[no-any-return]

    async def _called(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._replicas, method).remote(*arguments)
        except (RayActorError, RayServeException) as problem:
            raise UnreachableError(
                "A model replica must answer, but ended before it did. Send the request again: nothing was changed."
            ) from problem


async def _on_error(_: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, Ada2iError)
    return failures.response(problem)


async def _on_body(_: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, RequestValidationError)
    return failures.response(failures.of_body(problem))


async def _on_path(_: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, HTTPException)
    return failures.response(failures.of_path(problem))
