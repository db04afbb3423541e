"""A proxy in front of an S3 server that fails by plan: what a network and a busy store do, on demand.

It forwards what clients send byte for byte, Host included, so their signatures stay valid.
"""

import http.client
import itertools
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["500", "503", "reset", "lost", "stall", "expired"]
"""``reset``: the connection breaks before the server sees the request; ``lost``: after the server has done it."""

EVERY_FAULT: tuple[Fault, ...] = ("500", "503", "reset", "lost", "stall")
_ANSWERS: dict[Fault, tuple[int, str]] = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "expired": (400, "ExpiredToken"),
}

Plan = Callable[[str, str], Fault | None]  # from method and path


def never(method: str, path: str) -> Fault | None:
    """Break nothing."""
    return None


def every(n: int, faults: Iterable[Fault] = EVERY_FAULT) -> Plan:
    """Break each n-th request, with one fault after the other."""
    turn, kinds, lock = itertools.count(1), itertools.cycle(faults), threading.Lock()

    def plan(method: str, path: str) -> Fault | None:
        with lock:
            return next(kinds) if next(turn) % n == 0 else None

    return plan


def first(method: str, part: str, faults: Iterable[Fault]) -> Plan:
    """Break the first requests of a method whose path holds some text, one fault each."""
    left, lock = iter(tuple(faults)), threading.Lock()

    def plan(seen_method: str, path: str) -> Fault | None:
        with lock:
            return next(left, None) if seen_method == method and part in path else None

    return plan


@dataclass
class Proxy:
    """A running proxy.

    Attributes:
        upstream: Host and port of the S3 server.
        plan: What to break; may be replaced at any time.
        stall: Seconds that a stalled request waits before it is forwarded.
        seen: Requests by method.
        injected: Faults by kind, ``outage`` included.
    """

    upstream: str
    plan: Plan = never
    stall: float = 10.0
    port: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    down: threading.Event = field(default_factory=threading.Event)
    _server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        """What clients take for the S3 server."""
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Take connections, after an outage on the same port as before."""
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_port
        self.down.clear()
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def refuse(self) -> None:
        """Break all connections and refuse new ones."""
        if self._server is not None:
            self.down.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def outage(self, seconds: float) -> threading.Thread:
        """Be gone for some seconds, from now on; the thread that is returned ends when all works again."""
        self.injected["outage"] += 1
        self.refuse()

        def come_back() -> None:
            time.sleep(seconds)
            self.listen()

        thread = threading.Thread(target=come_back)
        thread.start()
        return thread


@contextmanager
def proxied(endpoint: str, plan: Plan = never, *, stall: float = 10.0) -> Iterator[Proxy]:
    """Run a proxy in front of an S3 server."""
    proxy = Proxy(urlsplit(endpoint).netloc, plan, stall)
    proxy.listen()
    try:
        yield proxy
    finally:
        proxy.refuse()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that give up are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        proxy = self.server.proxy
        proxy.seen[self.command] += 1
        body = self._body()
        fault = proxy.plan(self.command, self.path)
        if proxy.down.is_set():  # on a connection that is older than the outage
            self._break()
            return
        if fault is not None:
            proxy.injected[fault] += 1
        if fault in _ANSWERS:
            self._answer_error(fault)
        elif fault == "reset":
            self._break()
        else:
            time.sleep(proxy.stall if fault == "stall" else 0.0)
            self._forward(body, answer=fault != "lost")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while True:
            head = self.rfile.readline()
            chunk = self.rfile.read(int(head.split(b";")[0], 16) + 2)
            whole += head + chunk
            if chunk == b"\r\n":
                return whole

    def _forward(self, body: bytes, *, answer: bool) -> None:
        connection = http.client.HTTPConnection(self.server.proxy.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):  # never signed
                    connection.putheader(name, value)
            connection.endheaders(body)
            answered = connection.getresponse()
            content = answered.read()
        finally:
            connection.close()
        if not answer:
            self._break()
            return
        self.send_response_only(answered.status, answered.reason)
        for name, value in answered.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = answered.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    def _answer_error(self, fault: Fault) -> None:
        status, code = _ANSWERS[fault]
        content = f"<Error><Code>{code}</Code><Message>by plan</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _break(self) -> None:
        """End the connection by a reset, which clients cannot take for an answer's end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
