"""`gs-backup base-backup`: take a base backup of the whole cluster now."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    JsonOption,
    emit,
    finish,
    human_bytes,
    terminal_progress,
)
from gs_backup_assets.errors import ExitStatus
from gs_backup_assets.words import counted

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.recovery.physical.base_backup_verb import BaseBackup

FullOption = Annotated[bool, typer.Option("--full", help="A full one, also where one that adds to the last would do.")]


def base_backup(
    full: FullOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Copy the whole cluster's files into the store, full or incremental, read them back, and copy them off-site."""
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.catalogue.periods import WEEK
    from gs_backup_assets.catalogue.verdict import Status
    from gs_backup_assets.config import load_config
    from gs_backup_assets.recovery.physical import base_backup_verb
    from gs_backup_assets.vault.opening import open_vault

    settings = load_config(config).database(database)
    progress = terminal_progress()
    taken = base_backup_verb.base_backup(
        settings,
        open_vault(settings),
        WEEK.of(datetime.now(timezone.utc), settings.zone),
        progress,
        full=full,
        by=Author.here("base-backup"),
        told=_warn,
    )
    document = _document(taken, progress.seconds)
    emit(document, json, lambda console: _show(console, document))
    good = all(check.status is Status.PASSED for check in taken.checks)
    finish(ExitStatus.GOOD if good else ExitStatus.FAILED)


def _warn(words: str) -> None:
    sys.stderr.write(f"{words}\n")


def _document(taken: BaseBackup, seconds: dict[str, float]) -> dict[str, Any]:
    manifest = taken.entry.require_manifest()
    return {
        "database": manifest.database,
        "id": manifest.id,
        "partition": manifest.partition,
        "base": manifest.base,
        "chain_length": taken.chain_length,
        "folder": manifest.folder,
        "system_identifier": manifest.system_identifier,
        "timeline": manifest.timeline,
        "start_lsn": manifest.start_lsn,
        "stop_lsn": manifest.stop_lsn,
        "consistent_at": manifest.consistent_at.isoformat(),
        "cluster_bytes": manifest.cluster_bytes,
        "stored_bytes": manifest.stored_bytes,
        "wal_bytes": taken.wal_bytes,
        "copied_bytes": taken.copied_bytes,
        "compression": manifest.compression,
        "encrypted": manifest.encryption is not None,
        "tablespaces": [space.model_dump() for space in manifest.tablespaces],
        "warnings": list(manifest.warnings),
        "checks": [check.model_dump(mode="json") for check in taken.checks],
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _show(console: Console, document: dict[str, Any]) -> None:
    from rich.markup import escape

    what = f"adds to {document['base']}" if document["base"] else "full"
    console.print(f"[bold]{document['id']}[/]  base backup of {escape(document['database'])}, {what}")
    sizes = f"{human_bytes(document['cluster_bytes'])} cluster, {human_bytes(document['stored_bytes'])} stored"
    console.print(f"  {sizes}; a restore needs {counted(document['chain_length'], 'backup')}")
    console.print(
        f"  consistent at {document['stop_lsn']} on timeline {document['timeline']}, {document['consistent_at']}"
    )
    for check in document["checks"]:
        sign = "[green]✔[/]" if check["status"] == "passed" else "[red]✘[/]"
        console.print(f"  {sign} {check['name']}: {escape(check['summary'])}")
        for finding in check["findings"][:10]:
            console.print(f"    [bold]{finding['code']}[/] {escape(finding['message'])} {escape(finding['hint'])}")
