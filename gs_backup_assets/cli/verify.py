"""`gs-backup verify`: put a stored backup to the proof, with nothing but the store and PostgreSQL's programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, emit, finish, terminal_progress
from gs_backup_assets.cli.listing import BackupArgument, entry_document, show_entry

if TYPE_CHECKING:
    from rich.console import Console


def verify(
    backup: BackupArgument, config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False
) -> None:
    """Fetch a backup, restore it on a server of its own, and compare it with its manifest. Needs no source database."""
    from gs_backup_assets.catalogue.catalogue import Catalogue
    from gs_backup_assets.config import load_config
    from gs_backup_assets.recovery.proving import prove_and_record
    from gs_backup_assets.vault.opening import open_store

    settings = load_config(config).database(database)
    store = open_store(settings)
    catalogue = Catalogue(store, settings.name)
    entry = catalogue.find(backup)
    proved = prove_and_record(settings, store, entry, terminal_progress())
    proven = catalogue.find(entry.id)

    def show(console: Console) -> None:
        show_entry(console, proven)
        console.print(f"\nReport: {proved.report_path}")

    emit({**entry_document(proven, detailed=True), "report": str(proved.report_path)}, json, show)
    finish(proved.record.exit_status)
