"""The status over HTTP: documents for programs, a page for people, and the way to start a backup."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.config import BackupConfig
from gs_backup_assets.errors import BackupError, ConfigError
from gs_backup_assets.status.access import COOKIE, LOOPBACK_HOSTS, SESSION_SECONDS, Access
from gs_backup_assets.status.dagster_api import DagsterApi, UnderWay
from gs_backup_assets.status.flight import SingleFlight, in_thread
from gs_backup_assets.status.metrics import render
from gs_backup_assets.status.page import render_login, render_page
from gs_backup_assets.status.snapshot import Snapshot, Snapshots
from gs_backup_assets.words import daily_job_name

_LOG = logging.getLogger(__name__)
_KEPT_SECONDS = 10.0
_PATIENCE_SECONDS = 30.0
_LONGEST_FORM = 4096
NO_DAGSTER = (
    "No backup can be started: no address of Dagster's webserver is configured. Start `gs-backup serve` with "
    "--dagster-url, or set GS_BACKUP_UI_URL."
)
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Dagster:
    """Where runs are started, and the address for people, for the link to a run."""

    api: DagsterApi
    link_base: str


class StatusApp:
    """The handlers of one server. Answers name no hosts and no paths, and hold no secrets."""

    def __init__(self, config: BackupConfig, access: Access, dagster: Dagster | None, kept_seconds: float) -> None:
        self._config = config
        self._access = access
        self._dagster = dagster
        snapshots = Snapshots(config)
        self._snapshots: SingleFlight[Snapshot] = SingleFlight(
            lambda: snapshots.take(datetime.now(timezone.utc)), seconds=kept_seconds, patience_seconds=_PATIENCE_SECONDS
        )
        self._starting = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Path by path, who may use it and how."""
        return [
            Route("/", self._for_people(self.page)),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/healthz", self.healthz),
            Route("/metrics", self._for_programs(self.metrics)),
            Route("/api/admin/backup-status", self._for_programs(self.status)),
            Route("/api/backup", self.start, methods=["GET", "POST"]),
        ]

    async def healthz(self, _request: Request) -> Response:
        """This process answers. It says nothing of the backups, and asks no store."""
        return _json({"status": "ok"})

    async def status(self, _request: Request) -> Response:
        """The status document; status 500 when there is nothing to fall back on, or nothing can be read."""
        try:
            snapshot = await self._snapshots.get()
        except TimeoutError:
            return _error(500, "The backup stores do not answer.")
        if not snapshot.readable:
            return _error(500, "No backup store can be read.")
        document = public_document(snapshot)
        return _json(document, 500 if document["status"] == "error" else 200)

    async def metrics(self, _request: Request) -> Response:
        """For Prometheus."""
        try:
            snapshot = await self._snapshots.get()
        except TimeoutError:
            return _error(503, "The backup stores do not answer.")
        body, content_type = render(snapshot)
        return Response(body, headers={**_HEADERS, "Content-Type": content_type})

    async def page(self, _request: Request) -> Response:
        """For people."""
        try:
            snapshot = await self._snapshots.get()
        except TimeoutError:
            return HTMLResponse("The backup stores do not answer.", status_code=500)
        return _html(lambda nonce: render_page(snapshot, nonce=nonce, sessions=self._access.needed))

    async def login(self, request: Request) -> Response:
        """A session's cookie in exchange for the token, which comes in the body: an address would be logged."""
        given = await _form_field(request, "token")
        if given is None or not self._access.is_token(given.strip()):
            return _html(lambda nonce: render_login(nonce=nonce, refused=True), status=403)
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(
            COOKIE,
            self._access.new_cookie(time.time()),
            max_age=SESSION_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    async def logout(self, _request: Request) -> Response:
        """Ends the session in this browser."""
        answer = RedirectResponse("/", status_code=303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    async def start(self, request: Request) -> Response:
        """Start today's daily job. Only with the token itself: a browser could be made to ask for an address.

        GET as well: hosted cron services such as Vercel's ask so, with the token in the header.
        """
        if request.method not in ("GET", "POST"):  # HEAD comes along with GET, and must start nothing
            return Response(status_code=405, headers={"Allow": "GET, POST"})
        if not self._access.needed:
            return _error(403, "Starting a backup needs a token, and this server has none.")
        if not self._access.has_bearer(request.headers.get("authorization")):
            return _unauthorized()
        if self._dagster is None:
            return _error(502, NO_DAGSTER, code="DAGSTER_NOT_CONFIGURED")
        try:
            settings = self._config.database(request.query_params.get("database"))
        except ConfigError as error:
            return _error(400, f"{error.message} Add ?database=NAME.")
        job = daily_job_name(settings.name)
        partition = DAY.of(datetime.now(timezone.utc), settings.zone)
        api = self._dagster.api
        try:
            async with self._starting:  # of two who ask at once, one must see the other's run
                outcome = await in_thread(lambda: api.start(job, partition), "start")
        except BackupError as error:
            return _error(502, f"{error.message} {error.hint}", code=error.code)
        under_way = isinstance(outcome, UnderWay)
        document = {
            "status": "running" if under_way else "started",
            "message": "A backup is running already." if under_way else "The backup was started.",
            "database": settings.name,
            "run_id": outcome.run_id,
            "link": f"{self._dagster.link_base.rstrip('/')}/runs/{outcome.run_id}",
        }
        return _json(document, 409 if under_way else 202)

    def _for_programs(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            return await handler(request) if self._may_look(request) else _unauthorized()

        return guarded

    def _for_people(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            if self._may_look(request):
                return await handler(request)
            return _html(lambda nonce: render_login(nonce=nonce, refused=False), status=401)

        return guarded

    def _may_look(self, request: Request) -> bool:
        access = self._access
        if not access.needed:
            return True
        cookie = request.cookies.get(COOKIE)
        return access.has_bearer(request.headers.get("authorization")) or access.has_cookie(cookie, time.time())


def build_app(
    config: BackupConfig, access: Access, dagster: Dagster | None = None, *, kept_seconds: float = _KEPT_SECONDS
) -> Starlette:
    """The ASGI application. What was read of the stores is kept for `kept_seconds`."""
    app = StatusApp(config, access, dagster, kept_seconds)
    # Without a token a web site could rebind its own name to this machine and read the answers.
    hosts = ["*"] if access.needed else list(LOOPBACK_HOSTS)
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)]
    return Starlette(routes=app.routes(), middleware=middleware, exception_handlers={Exception: _unexpected})


def public_document(snapshot: Snapshot) -> dict[str, Any]:
    """The status document for readers from elsewhere: problems in short, without paths, hosts and addresses."""
    document = snapshot.document.model_dump(mode="json")
    for one in document["databases"]:
        one["problems"] = one.pop("headlines")
    if document["status"] == "error":
        first = next(one for one in snapshot.document.databases if one.status == "error")
        document["message"] = first.headlines[0] if first.headlines else f"{first.database} has no proven backup."
    return document


async def _unexpected(_request: Request, error: Exception) -> Response:
    _LOG.error("A fault of gs-backup", exc_info=error)
    return _error(500, "The status could not be made: the server's log says why.")


async def _form_field(request: Request, name: str) -> str | None:
    """A field of a posted form; None when it is not there, or the body is longer than any form of ours."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            return None
    return parse_qs(body.decode("utf-8", "replace")).get(name, [None])[0]


def _html(make: Callable[[str], str], status: int = 200) -> Response:
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'"
    )
    headers = {**_HEADERS, "Content-Security-Policy": policy}
    return HTMLResponse(make(nonce), status_code=status, headers=headers)


_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def _error(status: int, message: str, *, code: str | None = None) -> Response:
    document = {"status": "error", "message": message, **({"code": code} if code else {})}
    return _json(document, status)


def _json(document: dict[str, Any], status: int = 200) -> Response:
    return JSONResponse(document, status_code=status, headers=_HEADERS)


def _unauthorized() -> Response:
    document = {"status": "error", "message": "The token is missing or wrong."}
    return JSONResponse(document, status_code=401, headers={"WWW-Authenticate": "Bearer", **_HEADERS})
