"""Sessions: bounded in number, turns and memory; they expire."""

import numpy as np
import pytest

from ada2i.errors import NotFoundError, ResourceError
from ada2i.serving.limits import Limits
from ada2i.serving.live import Context
from ada2i.serving.sessions import Sessions
from ada2i.serving.turns import Vectors

GONE = r"The session must be open, but is not: a session ends 10 s after its last turn, .* Open a new one"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, **limits: int) -> Sessions:
    return Sessions(Limits(session_seconds=10, **limits), clock)


def context(turns: int, width: int = 4) -> Context:
    return Context(1, turns, (Vectors("A", {"text": np.zeros(width, np.float32), "audio": None}),) * turns)


def test_a_session_expires_after_its_last_turn(clock: Clock) -> None:
    sessions = made(clock)
    name = sessions.open()
    clock.now += 9
    kept = context(1)
    sessions.keep(sessions.find(name), kept)
    clock.now += 9
    assert sessions.find(name).context is kept
    clock.now += 1.5
    with pytest.raises(NotFoundError, match=GONE):
        sessions.find(name)
    assert len(sessions) == 0


@pytest.mark.anyio
async def test_a_session_whose_turn_is_being_answered_does_not_expire(clock: Clock) -> None:
    sessions = made(clock)
    name = sessions.open()
    async with sessions.find(name).lock:
        clock.now += 100
        assert sessions.find(name)


def test_a_closed_session_is_gone(clock: Clock) -> None:
    sessions = made(clock)
    name = sessions.open()
    sessions.close(name)
    for call in (sessions.find, sessions.close):
        with pytest.raises(NotFoundError, match=GONE):
            call(name)


def test_sessions_are_bounded(clock: Clock) -> None:
    sessions = made(clock, sessions=2)
    names = {sessions.open() for _ in range(2)}
    assert len(names) == len(sessions) == 2
    clock.now += 4
    with pytest.raises(ResourceError, match=r"At most 2 sessions may be open, and are\. Close one") as refused:
        sessions.open()
    assert refused.value.context == {"status": 429, "retry_after": 6}
    clock.now += 7
    assert sessions.open() not in names


@pytest.mark.parametrize("limits", [{"session_turns": 3}, {"session_bytes": 48}])
def test_a_full_session_takes_no_turn(clock: Clock, limits: dict[str, int]) -> None:
    sessions = made(clock, **limits)
    session = sessions.find(sessions.open())
    for turns in range(3):
        sessions.check_room(session)
        sessions.keep(session, context(turns + 1))
    with pytest.raises(ResourceError, match=r"but has 3 turns and 48 bytes\. Open a new one") as refused:
        sessions.check_room(session)
    assert refused.value.context["status"] == 413


def test_each_session_ends_once(clock: Clock) -> None:
    ended: list[Context] = []
    sessions = Sessions(Limits(session_seconds=10), clock, ended.append)
    closed, empty, expired = (sessions.open() for _ in range(3))
    contexts = [context(1), context(2)]
    for name, one in zip((closed, expired), contexts, strict=True):
        sessions.keep(sessions.find(name), one)
    sessions.close(closed)
    sessions.close(empty)
    assert ended == contexts[:1]
    clock.now += 11
    assert len(sessions) == 0
    assert len(sessions) == 0
    assert ended == contexts
