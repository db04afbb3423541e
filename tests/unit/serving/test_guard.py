"""What stands before every request, around an application that does what a test needs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from ada2i.errors import ConflictError
from ada2i.serving.guard import Guard, digest
from ada2i.serving.limits import Limits
from ada2i.serving.metrics import Metrics

TOKEN = "secret-of-this-test"
SECRET = "what a client sent"

Answer = Callable[[bytes], Awaitable[Any]]

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client(answer: Answer, *, token: str = TOKEN, **limits: Any) -> httpx.AsyncClient:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        found = await answer(await Request(scope, receive).body())
        await JSONResponse(found)(scope, receive, send)

    guard = Guard(app, token=digest(TOKEN), limits=Limits(**limits), metrics=Metrics())
    transport = httpx.ASGITransport(guard)
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers={"Authorization": f"Bearer {token}"})


async def size(body: bytes) -> int:
    return len(body)


async def test_a_request_with_the_token_is_answered() -> None:
    async with client(size) as http:
        assert (await http.post("/predict", content=b"abc")).json() == 3


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer other", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN])
async def test_another_token_is_refused_before_the_body_is_read(header: str) -> None:
    async with client(size) as http:
        found = await http.post("/predict", content=b"x" * 100, headers={"Authorization": header})
        assert found.status_code == 401
        assert "must carry the server's token" in found.json()["error"]["message"]
        assert (await http.get("/healthz", headers={"Authorization": header})).status_code == 200


async def chunks() -> Any:
    for _ in range(20):
        yield b"x"


async def test_a_body_above_the_limit_is_refused_also_without_a_declared_size() -> None:
    async with client(size, body_bytes=10) as http:
        assert (await http.post("/predict", content=b"x" * 10)).json() == 10
        for content in (b"x" * 11, chunks()):
            found = await http.post("/predict", content=content)
            assert found.status_code == 413
            assert "must have at most 10 bytes" in found.json()["error"]["message"]


async def test_too_many_requests_are_asked_to_come_later() -> None:
    free = asyncio.Event()

    async def slow(body: bytes) -> int:
        await free.wait()
        return len(body)

    async with client(slow, requests=2) as http:
        first = [asyncio.create_task(http.post("/predict")) for _ in range(2)]
        await asyncio.sleep(0.1)
        refused = await http.post("/predict")
        free.set()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert [(await one).status_code for one in first] == [200, 200]
        assert (await http.post("/predict")).status_code == 200


async def test_a_request_that_takes_too_long_is_ended() -> None:
    ended = []

    async def slow(body: bytes) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(body)

    async with client(slow, seconds=0.1) as http:
        found = await http.post("/predict", content=b"abc")
    assert found.status_code == 504
    assert "must be answered within 0.1 s" in found.json()["error"]["message"]
    assert ended == [b"abc"]


async def test_an_unknown_error_reveals_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(body: bytes) -> None:
        raise ValueError(body.decode())

    with caplog.at_level(logging.DEBUG):
        async with client(broken) as http:
            found = await http.post("/predict", content=SECRET.encode())
    assert found.status_code == 500
    assert "A request failed with ValueError." in caplog.text
    assert SECRET not in found.text + caplog.text


async def test_our_errors_keep_message_and_status() -> None:
    async def refused(_: bytes) -> None:
        raise ConflictError("One must, but is not. Do.", field="x")

    async with client(refused) as http:
        found = await http.post("/predict")
    assert found.status_code == 409
    assert found.json() == {"error": {"type": "ConflictError", "message": "One must, but is not. Do.", "field": "x"}}
