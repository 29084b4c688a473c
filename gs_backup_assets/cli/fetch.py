"""`gs-backup fetch`: a dump's files in a folder, decrypted, for pg_restore and single tables or rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gs_backup_assets.cli.common import (
    BackupArgument,
    ConfigOption,
    DatabaseOption,
    FromOption,
    JsonOption,
    StoreOption,
    chosen_copy,
    emit,
    find_backup,
    settings_of,
    terminal_progress,
)

if TYPE_CHECKING:
    from rich.console import Console

IntoOption = Annotated[Path, typer.Option("--into", help="A folder that does not exist yet; only you can enter it.")]


def fetch(  # noqa: PLR0917 - Typer makes its options of them
    backup: BackupArgument,
    into: IntoOption,
    copy: FromOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a dump into a folder, checked and decrypted, as pg_restore reads it. Needs no server and no Dagster."""
    from gs_backup_assets.catalogue.audit import Author, failure_noted, note
    from gs_backup_assets.recovery.dumps.fetching import fetch_into
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database, store)
    vault = open_vault(settings)
    which = chosen_copy(copy) or vault.best
    entry = find_backup(vault, which, settings.name, backup)
    folder, by = into.absolute(), Author.here("fetch")
    # What leaves the store is on record like a restore: it is the same data.
    ids = {"backup": entry.id, "partition": entry.partition, "into": str(folder)}
    with failure_noted(vault.primary, settings.name, by, "restore", ids=ids, otherwise=vault.offsite):
        size = fetch_into(settings, vault.store(which), entry, folder, terminal_progress())
    not_logged = note(
        vault.primary,
        settings.name,
        by,
        "restore",
        ids=ids,
        result="fetched",
        details={"store": which, "bytes": size},
        otherwise=vault.offsite,
    )

    def show(console: Console) -> None:
        from rich.markup import escape

        console.print(f"{escape(entry.id)} is in [bold]{escape(str(folder))}[/], {size} bytes, in the clear.")
        console.print(f"Look into it: pg_restore --list {escape(str(folder / 'dump'))}")
        if not_logged is not None:
            console.print(f"[yellow]![/] The audit log could not be written: {escape(str(not_logged))}")

    emit({"backup": entry.id, "store": which, "folder": str(folder), "bytes": size}, json, show)
