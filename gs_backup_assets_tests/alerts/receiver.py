"""A real HTTP server on a free port of this host that accepts, refuses, delays, drips, redirects or hangs up."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Behaviour = Literal["accept", "refuse", "delay", "drip", "redirect", "hang_up"]


class Receiver:
    """Receives while it is entered; `behaviour` may be changed at any time. `received` holds the posts it accepted,
    `visits` counts what it was asked for without a post."""

    def __init__(self, behaviour: Behaviour = "accept") -> None:
        self.behaviour: Behaviour = behaviour
        self.received: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.attempts = 0
        self.visits = 0
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return self._server.server_port

    def url(self, path: str = "hook", query: str = "") -> str:
        """The Apprise URL that leads here."""
        return f"json://127.0.0.1:{self.port}/{path}{query}"

    @property
    def titles(self) -> list[str]:
        return [post["title"] for post in self.received]

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.attempts += 1
                receiver.paths.append(self.path)
                self._behave(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def do_GET(self) -> None:
                receiver.visits += 1
                receiver.paths.append(self.path)
                if self.path == "/login":  # a page for people, whatever the others do
                    self._answer(200)
                else:
                    self._behave(None)

            def _behave(self, post: dict[str, Any] | None) -> None:
                behaviour = receiver.behaviour
                if behaviour == "hang_up":
                    self.close_connection = True
                    self.connection.close()
                elif behaviour == "delay":
                    receiver._over.wait(20)
                elif behaviour == "drip":
                    self._drip()
                elif behaviour == "redirect":
                    self._answer(302)
                elif behaviour == "refuse":
                    self._answer(500)
                else:
                    if post is not None:
                        receiver.received.append(post)
                    self._answer(200)

            def finish(self) -> None:
                with suppress(OSError, ValueError):
                    super().finish()

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _answer(self, status: int) -> None:
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/login")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")  # the word by which Slack says that it accepted

            def _drip(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "200")
                self.end_headers()
                with suppress(OSError):
                    for _ in range(200):
                        if receiver._over.wait(0.1):
                            return
                        self.wfile.write(b".")
                        self.wfile.flush()

        return Handler
