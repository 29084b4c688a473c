"""`gs-backup restore-point`: name a point in the log, with a fingerprint of exactly what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, emit, finish, terminal_progress
from gs_backup_assets.errors import ExitStatus

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.catalogue.restore_points import RestorePointRecord

NameArgument = Annotated[str, typer.Argument(help="Letters, digits, dots, hyphens and underscores, at most 63.")]
FingerprintOption = Annotated[
    bool,
    typer.Option("--fingerprint/--no-fingerprint", help="Read every table of the database under the point's snapshot."),
]


def restore_point(
    name: NameArgument,
    fingerprint: FingerprintOption = True,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Create a named restore point, for example before a migration: `gs-backup recover --to NAME` leads back to it."""
    from gs_backup_assets.catalogue.audit import Author, note
    from gs_backup_assets.config import load_config
    from gs_backup_assets.postgres.connection import target_from_environment
    from gs_backup_assets.recovery.point_in_time.restore_points import create_restore_point, keep_offsite
    from gs_backup_assets.vault.opening import open_vault

    settings = load_config(config).database(database)
    vault = open_vault(settings)
    record = create_restore_point(
        settings,
        target_from_environment(settings.url_env),
        vault.primary,
        name,
        terminal_progress(),
        fingerprint=fingerprint,
    )
    not_kept = keep_offsite(vault, record)
    not_logged = note(
        vault.primary,
        settings.name,
        Author.here("restore-point"),
        "restore_point",
        ids={"point": record.name},
        result="created" if record.reason is None or not fingerprint else "without_fingerprint",
        details={"lsn": record.lsn},
        otherwise=vault.offsite,
    )
    document: dict[str, Any] = {
        "name": record.name,
        "lsn": record.lsn,
        "timeline": record.timeline,
        "at": record.at.isoformat(),
        "system_identifier": record.system_identifier,
        "fingerprint": record.fingerprint is not None,
        "reason": record.reason,
        "tables": len(record.fingerprint.tables) if record.fingerprint else 0,
        "rows": record.fingerprint.rows if record.fingerprint else 0,
        "warnings": [str(error) for error in (not_kept, not_logged) if error],
    }
    emit(document, json, lambda console: _show(console, record, document["warnings"]))
    finish(ExitStatus.NOT_VERIFIED if fingerprint and record.fingerprint is None else ExitStatus.GOOD)


def _show(console: Console, record: RestorePointRecord, warnings: list[str]) -> None:
    from rich.markup import escape

    console.print(
        f"Restore point {record.name} at {record.lsn}, timeline {record.timeline}, {record.at}.", markup=False
    )
    if record.fingerprint is not None:
        tables, rows = len(record.fingerprint.tables), record.fingerprint.rows
        console.print(f"Its fingerprint holds {tables} tables with {rows} rows, as they were at that position.")
    else:
        console.print(f"[yellow]![/] It has no fingerprint: {escape(record.reason or '')}.")
    console.print("It can be recovered to as soon as the log is archived up to it.")
    for warning in warnings:
        console.print(f"[yellow]![/] Not on record everywhere: {escape(warning)}")
