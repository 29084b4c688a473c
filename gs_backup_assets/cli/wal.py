"""`gs-backup wal`: stream the write-ahead log into the archive, give it back, and say how it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    FromOption,
    JsonOption,
    chosen_copy,
    emit,
    finish,
    human_bytes,
)
from gs_backup_assets.errors import ExitStatus

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.config import DatabaseSettings
    from gs_backup_assets.vault.store import Store

app = typer.Typer(help="The write-ahead log: stream it, push it, fetch it, and see how it is.", no_args_is_help=True)

NewClusterOption = Annotated[
    bool, typer.Option("--new-cluster", help="The address leads to a cluster that was made anew: begin its archive.")
]

FileArgument = Annotated[str, typer.Argument(help="The file's name, %f.")]
PathArgument = Annotated[Path, typer.Argument(help="The file's place, %p.")]
SystemOption = Annotated[
    str | None,
    typer.Option("--system-identifier", help="Of which cluster.", show_default="that of the data directory here"),
]
PatienceOption = Annotated[
    float, typer.Option("--patience", help="For how many seconds a store that cannot be reached is tried again.")
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
    from gs_backup_assets.recovery.wal.stream import require_configured, stream_wal
    from gs_backup_assets.recovery.wal.words import Words
    from gs_backup_assets.vault.opening import open_vault

    settings = load_config(config).database(database)
    require_configured(settings)
    vault = open_vault(settings)
    target = target_from_environment(settings.wal_url_env)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    words = Words(_to_stderr, as_json=json)
    streamed = stream_wal(
        settings, vault.primary, target, stop=stop, words=words, offsite=vault.offsite, new_cluster=new_cluster
    )
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
            f" {document['archived_lsn']}."
            if streamed.archived_lsn is not None
            else "The server was never reached; what the spool had of an earlier stream was archived.",
            markup=False,
        )

    emit(document, json, show)


@app.command("fetch")
def fetch(  # noqa: PLR0917 - Typer makes its options of them
    name: FileArgument,
    path: PathArgument,
    system_identifier: SystemOption = None,
    patience: PatienceOption = 30.0,
    copy: FromOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> None:
    """For restore_command: put a file of the archive at a path. Status 1: it is not there. Above 125: who knows."""
    from gs_backup_assets.recovery.wal.fetching import cluster_here, fetch_wal, prefetching

    settings, store = _settings_and_store(config, database, copy)
    where = [] if config is None else ["--config", str(config.absolute())]
    where += [] if copy is None else ["--from", copy]
    found = fetch_wal(
        settings,
        store,
        name,
        path,
        system_identifier=system_identifier or cluster_here(Path.cwd()),
        patience=patience,
        prefetcher=prefetching("--database", settings.name, *where),
    )
    if not found:
        sys.stderr.write(f"{name} is not in the archive.\n")
    finish(ExitStatus.GOOD if found else ExitStatus.FAILED)


@app.command("prefetch", hidden=True)
def prefetch(
    folder: PathArgument,
    system_identifier: FileArgument,
    copy: FromOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> None:
    """Started by `fetch`: keeps the next segments ready for some seconds."""
    from gs_backup_assets.recovery.wal.access import open_archive
    from gs_backup_assets.recovery.wal.fetching import fetch_ahead

    settings, store = _settings_and_store(config, database, copy)
    archive = open_archive(settings, store, system_identifier)
    size = archive.stored_segment_bytes()
    if size is not None:
        fetch_ahead(open_archive(settings, store, system_identifier, segment_bytes=size), folder)


@app.command("push")
def push(
    path: PathArgument,
    system_identifier: SystemOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> None:
    """For archive_command: take a file of pg_wal into the archive. The same again is no error, another one is."""
    from gs_backup_assets.recovery.wal.fetching import cluster_here
    from gs_backup_assets.recovery.wal.pushing import push_wal

    settings, store = _settings_and_store(config, database)
    new = push_wal(settings, store, path, system_identifier=system_identifier or cluster_here(Path.cwd()))
    sys.stderr.write(f"{path.name} {'is archived' if new else 'was there, or need not be kept'}.\n")


@app.command("status")
def status(config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False) -> None:
    """What is archived, and how far behind the server. 1: a gap, too far, or the slot is lost. 3: no server."""
    from datetime import datetime, timezone

    from gs_backup_assets.cli.wal_show import show_state, state_document
    from gs_backup_assets.postgres.connection import target_from_environment
    from gs_backup_assets.recovery.wal.state import wal_state
    from gs_backup_assets.recovery.wal.stream import require_configured

    settings, store = _settings_and_store(config, database)
    require_configured(settings)
    assert settings.wal is not None
    target = target_from_environment(settings.wal_url_env)
    state = wal_state(settings, store, target, now=datetime.now(timezone.utc))
    exit_status = state.exit_status(settings.wal.max_lag)
    document = {"database": settings.name, "status": exit_status.name.lower(), **state_document(state, settings.wal)}
    emit(document, json, lambda console: show_state(console, document))
    finish(exit_status)


def _settings_and_store(
    config: Path | None, database: str | None, copy: str | None = None
) -> tuple[DatabaseSettings, Store]:
    from gs_backup_assets.config import load_config
    from gs_backup_assets.vault.opening import open_store

    settings = load_config(config).database(database)
    return settings, open_store(settings, chosen_copy(copy) or "primary")


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
