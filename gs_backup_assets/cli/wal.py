"""`gs-backup wal`: stream the write-ahead log into the archive, give it back, and say how it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, emit, finish, human_bytes
from gs_backup_assets.errors import BackupError, ExitStatus

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="The write-ahead log: stream it, push it, fetch it, and see how it is.", no_args_is_help=True)

NewClusterOption = Annotated[
    bool, typer.Option("--new-cluster", help="The address leads to a cluster that was made anew: begin its archive.")
]


@app.command("stream")
def stream(
    new_cluster: NewClusterOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Stream the write-ahead log from the server into the archive, until TERM or Ctrl-C; exit status 0 then."""
    import signal
    import threading

    from gs_backup_assets.config import load_config
    from gs_backup_assets.postgres.connection import target_from_environment
    from gs_backup_assets.recovery.wal_stream import require_configured, stream_wal
    from gs_backup_assets.recovery.wal_words import Words
    from gs_backup_assets.vault.opening import open_store

    settings = load_config(config).database(database)
    require_configured(settings)
    target = target_from_environment(settings.wal_url_env)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    words = Words(_to_stderr, as_json=json)
    streamed = stream_wal(settings, open_store(settings), target, stop=stop, words=words, new_cluster=new_cluster)
    document = {
        "database": settings.name,
        "system_identifier": streamed.system_identifier,
        "segments": streamed.segments,
        "bytes": streamed.bytes,
        "archived_lsn": None if streamed.archived_lsn is None else str(streamed.archived_lsn),
    }

    def show(console: Console) -> None:
        console.print(
            f"{streamed.segments} segments ({human_bytes(streamed.bytes)}) were archived, up to"
            f" {document['archived_lsn']}.",
            markup=False,
        )

    emit(document, json, show)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
