"""`gs-backup verify`: put a stored backup to the proof, with nothing but the store and PostgreSQL's programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    FromOption,
    JsonOption,
    StoreOption,
    chosen_copy,
    emit,
    find_backup,
    finish,
    settings_of,
    terminal_progress,
)
from gs_backup_assets.cli.listing import BackupArgument, entry_document, show_entry

if TYPE_CHECKING:
    from rich.console import Console


def verify(  # noqa: PLR0917 - Typer makes its options of them
    backup: BackupArgument,
    copy: FromOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch a backup, restore it on a server of its own, and compare it with its manifest. Needs no source database."""
    from dataclasses import replace
    from datetime import datetime, timezone

    from gs_backup_assets.alerts.heartbeat import beat_after_proof
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.recovery.proving import prove_and_record
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database, store)
    vault = open_vault(settings)
    which = chosen_copy(copy) or vault.best
    entry = find_backup(vault, which, settings.name, backup)
    proved = prove_and_record(settings, vault, entry, terminal_progress(), by=Author.here("verify"), which=which)
    proven = replace(entry, proof=proved.record)
    silence = beat_after_proof(settings, proved.record, datetime.now(timezone.utc), on_record=proved.on_record)

    def show(console: Console) -> None:
        from rich.markup import escape

        show_entry(console, proven)
        for refusal in proved.not_kept:
            console.print(f"[yellow]![/] The proof is not on record in every store: {refusal}")
        if proved.not_logged is not None:
            console.print(f"[yellow]![/] The audit log could not be written: {escape(str(proved.not_logged))}")
        console.print(f"\nReport: {proved.report_path}")

    if silence is not None:
        sys.stderr.write(f"{silence}\n")
    emit({**entry_document(proven, detailed=True), "report": str(proved.report_path)}, json, show)
    finish(proved.record.exit_status)
