"""`gs-backup verify`: put a stored backup to the proof, with nothing but the store and PostgreSQL's programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

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
    finish,
    settings_of,
    terminal_progress,
)
from gs_backup_assets.cli.listing import entry_document, show_entry
from gs_backup_assets.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.catalogue.catalogue import Entry, PhysicalEntry
    from gs_backup_assets.recovery.dumps.recording import Proved
    from gs_backup_assets.vault.opening import Vault, Which


def verify(  # noqa: PLR0917 - Typer makes its options of them
    backup: BackupArgument,
    copy: FromOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Fetch a backup, bring it back on a server of its own, and prove it. Needs no source database.

    A dump is restored and compared with its manifest; a base backup is recovered to its own end, and looked into.
    """
    from dataclasses import replace
    from datetime import datetime, timezone

    from gs_backup_assets.alerts.heartbeat import beat_after_proof
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
    from gs_backup_assets.recovery.dumps.proving import prove_and_record
    from gs_backup_assets.recovery.point_in_time.prove_base import prove_base
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database, store)
    vault = open_vault(settings)
    which = chosen_copy(copy) or vault.best
    entry = _find(vault, which, settings.name, backup)
    by, silence = Author.here("verify"), None
    proved: Proved
    proven: Entry | PhysicalEntry
    if isinstance(entry.manifest, PhysicalManifest):
        proved = prove_base(settings, vault, entry, terminal_progress(), by=by, which=which)
        proven = replace(entry, proof=proved.record)
    else:
        dump = cast("Entry", entry)
        proved = prove_and_record(settings, vault, dump, terminal_progress(), by=by, which=which)
        proven = replace(dump, proof=proved.record)
        silence = beat_after_proof(settings, proved.record, datetime.now(timezone.utc), on_record=proved.on_record)

    def show(console: Console) -> None:
        from rich.markup import escape

        show_entry(console, proven)
        for refusal in proved.not_kept:
            console.print(f"[yellow]![/] The proof is not on record in every store: {refusal}")
        if proved.not_logged is not None:
            console.print(f"[yellow]![/] The audit log could not be written: {escape(str(proved.not_logged))}")
        if proved.report_path is not None:
            console.print(f"\nReport: {proved.report_path}")

    for warning in (proved.not_reported, silence):
        if warning is not None:
            sys.stderr.write(f"{warning}\n")
    report = str(proved.report_path) if proved.report_path is not None else None
    emit({**entry_document(proven, detailed=True), "report": report}, json, show)
    finish(proved.record.exit_status)


def _find(vault: Vault, which: Which, database: str, wanted: str) -> Entry | PhysicalEntry:
    """A dump, or else a base backup. Errors as for `find_backup`."""
    from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue

    try:
        return find_backup(vault, which, database, wanted)
    except ConfigError as missing:
        try:
            return PhysicalCatalogue(vault.store(which), database).find(wanted)
        except ConfigError:
            raise missing from None
