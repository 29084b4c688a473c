"""`gs-backup anonymise`: a masked copy of a backup for developers, as a dump or as a new database."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import (
    BackupArgument,
    ConfigOption,
    DatabaseOption,
    FromOption,
    JsonOption,
    chosen_copy,
    emit,
    find_backup,
    human_bytes,
    settings_of,
    terminal_progress,
)

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.postgres.connection import Target

IntoOption = Annotated[
    str,
    typer.Option("--into", help="A new file, or the name of an environment variable with a new database's address."),
]


def _goal(into: str) -> Path | Target:
    from gs_backup_assets.errors import ConfigError
    from gs_backup_assets.postgres.connection import target_from_environment

    if "://" in into:  # not repeated: it may hold a password
        raise ConfigError(
            "INTO_INVALID", "--into takes no address.", "Put it into an environment variable and give its name."
        )
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", into) and into in os.environ:
        return target_from_environment(into)
    return Path(into)


def anonymise(  # noqa: PLR0917 - Typer makes its options of them
    backup: BackupArgument,
    into: IntoOption,
    copy: FromOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Restore a backup on a throwaway server, mask it, prove the masking, and hand out the masked copy."""
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.recovery.staging.anonymising import anonymise_backup
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database)
    vault = open_vault(settings)
    which = chosen_copy(copy) or vault.best
    entry = find_backup(vault, which, settings.name, backup)
    done = anonymise_backup(
        settings, vault, entry, _goal(into), terminal_progress(), which=which, by=Author.here("anonymise")
    )
    warnings = [f"{finding.code}: {finding.message}" for finding in done.check.findings]
    warnings += [str(done.not_logged)] if done.not_logged else []
    document: dict[str, Any] = {
        "backup_id": done.backup_id,
        "into": done.into,
        "stored_bytes": done.stored_bytes,
        "check": done.check.model_dump(mode="json"),
        "stage_seconds": done.stage_seconds,
        "warnings": warnings,
    }

    def show(console: Console) -> None:
        from rich.markup import escape

        console.print(f"[green]✔[/] {escape(done.check.summary)}")
        size = "" if done.stored_bytes is None else f", {human_bytes(done.stored_bytes)}"
        console.print(f"The masked copy of {done.backup_id} is [bold]{escape(done.into)}[/]{size}.")
        for warning in warnings:
            console.print(f"[yellow]![/] {escape(warning)}")

    emit(document, json, show)
