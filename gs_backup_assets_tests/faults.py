"""An HTTP proxy before an S3 server that does, at the request one names, what goes wrong in the field.

Bytes pass unchanged, with the Host that the client signed. Only the header Expect, which S3's signature leaves out,
stays here: the proxy itself asks for the body, so that it can break off anywhere in it.
"""

from __future__ import annotations

import re
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

_BLOCK = 64 << 10
_SECONDS = 120.0  # no test waits that long for a server
_Way = Literal["request", "response"]


@dataclass(frozen=True)
class Answer:
    """The proxy answers in the server's place, which hears nothing of the request; `meanwhile` is called before."""

    status: int
    code: str
    meanwhile: Callable[[], object] | None = None


@dataclass(frozen=True)
class Break:
    """Something happens on the way there or back, after `at` bytes of the body; None is before its head.

    `close` ends the connection: before the request it never arrives, before the response it has had its effect and
    nobody is told. `flip` inverts the byte at `at`. `stall` keeps everything waiting until `Proxy.release`. `pass`
    changes nothing. `meanwhile` is called at that moment, before the rest: a server can be killed there.
    """

    how: Literal["close", "flip", "stall", "pass"]
    way: _Way
    at: int | None = None
    meanwhile: Callable[[], object] | None = None


Fault = Answer | Break
SLOW_DOWN = Answer(503, "SlowDown")
INTERNAL_ERROR = Answer(500, "InternalError")
TOO_MANY = Answer(429, "TooManyRequests")
NEVER_ARRIVES = Break("close", "request")
ANSWER_LOST = Break("close", "response")


@dataclass(frozen=True)
class Seen:
    """A request that came in, with the bytes that its body was to have."""

    method: str
    target: str
    size: int

    def fits(self, method: str, pattern: str) -> bool:
        """Whether it has a method, `PUT` or one of `PUT|POST`, and `pattern` is found in its path and query."""
        return self.method in method.split("|") and re.search(pattern, self.target) is not None


@dataclass
class _Rule:
    method: str
    pattern: str
    fault: Fault
    skip: int
    times: int | None

    def fits(self, seen: Seen) -> bool:
        """Whether the fault is due at this request."""
        if not seen.fits(self.method, self.pattern):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class _Closed(Exception):
    """The connection is to end."""


class Proxy:
    """What is told of the proxy: the faults to come, and the requests that came."""

    def __init__(self, upstream: str, port: int) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "", parts.port or 80)
        self.endpoint = f"http://127.0.0.1:{port}"
        self.seen: list[Seen] = []
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._stalled = threading.Event()

    def on(self, method: str, pattern: str, fault: Fault, *, skip: int = 0, times: int | None = 1) -> None:
        """Let `fault` befall requests with a method (`PUT|POST`: either) in whose path and query `pattern` is found.

        The first `skip` of them pass, then `times` are hit; None is for ever.
        """
        with self._lock:
            self._rules.append(_Rule(method, pattern, fault, skip, times))

    def heal(self) -> None:
        """Nothing goes wrong any more, and the count of requests begins anew."""
        with self._lock:
            self._rules.clear()
            self.seen.clear()

    def release(self) -> None:
        """End the connections that stall."""
        self._released.set()

    def wait_until_stalled(self) -> None:
        """Return once a connection stalls."""
        assert self._stalled.wait(_SECONDS), "nothing stalls"

    def matching(self, method: str, pattern: str) -> list[Seen]:
        """The requests with a method and `pattern` in path and query, in their order."""
        with self._lock:
            return [seen for seen in self.seen if seen.fits(method, pattern)]

    def count(self, method: str, pattern: str) -> int:
        """How many of them came."""
        return len(self.matching(method, pattern))

    def note(self, seen: Seen) -> Fault | None:
        """Remember a request; the fault that is due at it."""
        with self._lock:
            self.seen.append(seen)
            return next((rule.fault for rule in self._rules if rule.fits(seen)), None)

    def stall(self) -> None:
        """Wait, and then end the connection."""
        self._stalled.set()
        self._released.wait(_SECONDS)
        raise _Closed


class _Head:
    """The head of a request or a response as it came, and what follows from it."""

    def __init__(self, stream: Any) -> None:
        self.lines = [stream.readline(_BLOCK)]
        while self.lines[-1] not in (b"\r\n", b"\n", b""):
            self.lines.append(stream.readline(_BLOCK))
        if self.lines[-1] == b"":
            raise _Closed
        self.first = self.lines[0].decode("latin-1").split()
        self.fields: dict[str, str] = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.decode("latin-1").partition(":") for line in self.lines[1:-1])
        }

    @property
    def length(self) -> int:
        return int(self.fields.get("content-length", 0))

    @property
    def chunked(self) -> bool:
        return self.fields.get("transfer-encoding", "").lower() == "chunked"

    def raw(self, *, without: str = "") -> bytes:
        return b"".join(line for line in self.lines if line.decode("latin-1").partition(":")[0].lower() != without)


class _Exchange(StreamRequestHandler):
    """One connection of a client, with one of its own to the server."""

    proxy: Proxy
    timeout = _SECONDS
    disable_nagle_algorithm = True

    def handle(self) -> None:
        server: socket.socket | None = None
        with suppress(_Closed, OSError):
            while True:
                self._wait_for_a_request(server)
                head = _Head(self.rfile)
                fault = self.proxy.note(Seen(head.first[0], head.first[1], head.length))
                if isinstance(fault, Answer):
                    self._answer(head, fault)
                self._reach("request", fault)
                if server is None:
                    server = socket.create_connection(self.proxy.upstream, timeout=_SECONDS)
                    back = server.makefile("rb")
                self._forward(head, fault, server, back)
        if server is not None:
            back.close()
            server.close()

    def _wait_for_a_request(self, server: socket.socket | None) -> None:
        """A server that dies ends its connections; then the client's ends as well, and it opens another."""
        if server is not None and server in select.select([self.connection, server], [], [], _SECONDS)[0]:
            raise _Closed

    def _answer(self, head: _Head, fault: Answer) -> NoReturn:
        if fault.meanwhile is not None:
            fault.meanwhile()
        if "expect" not in head.fields:
            self.rfile.read(head.length)
        body = f"<Error><Code>{fault.code}</Code><Message>by the proxy</Message></Error>".encode()
        status = f"{fault.status} {HTTPStatus(fault.status).phrase}"
        lines = (f"HTTP/1.1 {status}", "Content-Type: application/xml", f"Content-Length: {len(body)}")
        self.wfile.write("\r\n".join((*lines, "Connection: close", "", "")).encode() + body)
        raise _Closed

    def _forward(self, head: _Head, fault: Break | None, server: socket.socket, back: Any) -> None:
        if "expect" in head.fields:
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        server.sendall(head.raw(without="expect"))
        for block in self._body(self.rfile, head.length, "request", fault):
            with suppress(OSError):  # it may have answered before the end: the answer is what counts
                server.sendall(block)
        answer = _Head(back)
        self._reach("response", fault)
        self.wfile.write(answer.raw())
        if head.first[0] == "HEAD" or answer.first[1] in ("204", "304"):
            return
        if answer.chunked:
            self._relay_chunks(back)
            return
        for block in self._body(back, answer.length, "response", fault):
            self.wfile.write(block)

    def _body(self, stream: Any, length: int, way: _Way, fault: Break | None) -> Iterator[bytes]:
        """The blocks of a body of `length` bytes, with what happens in their midst."""
        at = fault.at if fault is not None and fault.way == way else None
        position = 0
        while position < length:
            if at is not None and position == at:
                assert fault is not None
                self._happen(fault)
            until = at if at is not None and position < at < length else length
            block: bytes = stream.read(min(_BLOCK, until - position))
            if not block:
                raise _Closed
            flipped = fault is not None and fault.how == "flip" and position == at
            position += len(block)
            yield bytes([block[0] ^ 0xFF]) + block[1:] if flipped else block

    def _relay_chunks(self, back: Any) -> None:
        while True:
            line = back.readline(_BLOCK)
            size = int(line.split(b";")[0] or b"0", 16)
            self.wfile.write(line + back.read(size) + back.readline(_BLOCK))
            if not size:
                return

    def _reach(self, way: _Way, fault: Break | None) -> None:
        if fault is not None and fault.way == way and fault.at is None:
            self._happen(fault)

    def _happen(self, fault: Break) -> None:
        if fault.meanwhile is not None:
            fault.meanwhile()
        if fault.how == "stall":
            self.proxy.stall()
        if fault.how == "close":
            raise _Closed


class _Listener(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


@contextmanager
def proxy_before(upstream: str) -> Iterator[Proxy]:
    """A proxy before the server at `upstream`, for as long as the block lasts."""
    with _Listener(("127.0.0.1", 0), _Exchange) as listener:
        proxy = Proxy(upstream, listener.server_address[1])
        listener.RequestHandlerClass = type("_Exchange", (_Exchange,), {"proxy": proxy})
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.release()
            listener.shutdown()
            thread.join()
