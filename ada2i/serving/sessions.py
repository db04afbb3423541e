"""Live sessions of one process: bounded in number, turns and memory; each expires some time after its last turn."""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ada2i.errors import NotFoundError, ResourceError
from ada2i.serving.limits import Limits
from ada2i.serving.live import Context


@dataclass
class Session:
    """A live session.

    Attributes:
        used: When it was opened, or had its last turn.
        context: What it keeps of its turns; None before the first one.
        lock: Held while a turn is answered: turns of one session follow each other.
    """

    used: float
    context: Context | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    """The open sessions, by id. Ids are secrets, since they are never reused and cannot be guessed."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        ended: Callable[[Context], None] = lambda _: None,
    ) -> None:
        """Store the limits, the clock, and what gets the context of each session that ends with at least one turn."""
        self._limits, self._clock, self._ended = limits, clock, ended
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        self._sweep()
        return len(self._open)

    def open(self) -> str:
        """Open a session and return its id.

        Raises:
            ResourceError: There are as many sessions as there may be.
        """
        self._sweep()
        if len(self._open) >= self._limits.sessions:
            oldest = min(session.used for session in self._open.values())
            raise ResourceError(
                f"At most {self._limits.sessions} sessions may be open, and are. Close one, or try again later.",
                status=429,
                retry_after=max(1, round(oldest + self._limits.session_seconds - self._clock())),
            )
        name = secrets.token_urlsafe(24)
        self._open[name] = Session(self._clock())
        return name

    def find(self, name: str) -> Session:
        """Return an open session.

        Raises:
            NotFoundError: There is none: it expired, was closed, or never was.
        """
        self._sweep()
        if name not in self._open:
            raise NotFoundError(
                f"The session must be open, but is not: a session ends {self._limits.session_seconds:g} s after its "
                "last turn, when it is closed, and when the server restarts. Open a new one, and send its turns again."
            )
        return self._open[name]

    def check_room(self, session: Session) -> None:
        """Refuse one more turn of a session that is full.

        Raises:
            ResourceError: It has as many turns, or takes as much memory, as a session may.
        """
        held = session.context
        if held is None or (held.turns < self._limits.session_turns and held.nbytes < self._limits.session_bytes):
            return
        raise ResourceError(
            f"A session must have at most {self._limits.session_turns} turns and {self._limits.session_bytes} bytes of "
            f"context, but has {held.turns} turns and {held.nbytes} bytes. Open a new one.",
            status=413,
        )

    def keep(self, session: Session, context: Context) -> None:
        """Keep a session's context after a turn was answered."""
        session.context, session.used = context, self._clock()

    def close(self, name: str) -> None:
        """Close a session; raises as ``find`` does."""
        self.find(name)
        self._end(name)

    def _sweep(self) -> None:
        limit = self._clock() - self._limits.session_seconds
        for name in [name for name, one in self._open.items() if one.used < limit and not one.lock.locked()]:
            self._end(name)

    def _end(self, name: str) -> None:
        context = self._open.pop(name).context
        if context is not None:
            self._ended(context)
