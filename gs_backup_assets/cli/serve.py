"""`gs-backup serve`: the status over HTTP, for monitors, Prometheus, people, and a hosted cron that starts backups."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import typer

from gs_backup_assets.cli.common import ConfigOption, JsonOption, emit
from gs_backup_assets.errors import ProgramError

_TOKEN_VARIABLE = "GS_BACKUP_API_TOKEN"  # noqa: S105 - a variable's name
_UI_URL_VARIABLE = "GS_BACKUP_UI_URL"


def serve(  # noqa: PLR0917 - Typer makes its options of them
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8420,
    token_env: Annotated[
        str, typer.Option(help="The variable that holds the token. Only 127.0.0.1 is served without one.")
    ] = _TOKEN_VARIABLE,
    dagster_url: Annotated[
        str | None,
        typer.Option(help="Where Dagster's webserver is, for POST /api/backup.", show_default=f"${_UI_URL_VARIABLE}"),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Serve status document, metrics, status page and the start of backups until it is stopped. See docs/status.md."""
    import uvicorn

    from gs_backup_assets.config import load_config
    from gs_backup_assets.status.access import choose_access
    from gs_backup_assets.status.app import NO_DAGSTER, Dagster, build_app
    from gs_backup_assets.status.dagster_api import DagsterApi

    access = choose_access(host, token_env, os.environ)
    ui_url = os.environ.get(_UI_URL_VARIABLE, "")
    asked = dagster_url or ui_url
    app = build_app(load_config(config), access, Dagster(DagsterApi(asked), ui_url or asked) if asked else None)
    listener = _listen(host, port)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=5,
        )
    )
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}/"
    emit({"url": url, "token": access.needed}, json, lambda console: console.print(f"Serving on {url}"))
    sys.stdout.flush()
    if not asked:
        sys.stderr.write(f"{NO_DAGSTER}\n")
    with listener:
        server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise ProgramError(
            "ADDRESS_UNAVAILABLE",
            f"{host}:{port} cannot be listened on: {error.strerror}.",
            "Choose another address or port with --host and --port.",
        ) from None
