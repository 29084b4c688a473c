"""`gs-backup hold` and `gs-backup release`: keep a backup from being deleted, or let retention decide again."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import BackupArgument, ConfigOption, DatabaseOption, JsonOption, emit, settings_of
from gs_backup_assets.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.catalogue.holds import Held, Hold
    from gs_backup_assets.recovery.retention.holding import Holding
    from gs_backup_assets.vault.store import Store

ReasonOption = Annotated[str, typer.Option("--reason", help="Why it must stay, for those who meet the hold later.")]


def hold(
    backup: BackupArgument,
    reason: ReasonOption,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Keep a backup from being deleted, in every store that has it, whatever the retention says, until `release`."""
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.recovery.retention.holding import hold_backup
    from gs_backup_assets.vault.opening import open_vault

    if not reason.strip():
        raise ConfigError("REASON_MISSING", "--reason is empty.", "Say why the backup must stay.")
    settings = settings_of(config, database)
    held = hold_backup(
        open_vault(settings),
        settings.name,
        backup,
        by=Author.here("hold"),
        reason=reason.strip(),
        now=datetime.now(timezone.utc),
    )
    _tell(settings.name, held, json, "is held")


def release(
    backup: BackupArgument, config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False
) -> None:
    """Take the hold of a backup away: retention decides about it again."""
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.recovery.retention.holding import release_backup
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database)
    released = release_backup(open_vault(settings), settings.name, backup, by=Author.here("release"))
    _tell(settings.name, released, json, "is not held")


def hold_document(store: Store, backup: Held) -> dict[str, Any] | None:
    """A backup's hold as JSON; without names where it cannot be read."""
    from gs_backup_assets.catalogue.holds import read_hold

    try:
        return _document(read_hold(store, backup))
    except StoreError as error:
        if error.code != "HOLD_DAMAGED":
            raise
        return {"by": None, "reason": None, "placed_at": None}


def hold_words(document: dict[str, Any]) -> str:
    """A hold for people."""
    if document["by"] is None:
        return "held; by whom and why cannot be read"
    return f"held by {document['by']} since {document['placed_at'][:10]}: {document['reason']}"


def _document(hold: Hold | None) -> dict[str, Any] | None:
    return None if hold is None else hold.model_dump(mode="json")


def _tell(database: str, holding: Holding, as_json: bool, state: str) -> None:
    documents = {which: _document(hold) for which, hold in holding.holds.items()}

    def show(console: Console) -> None:
        console.print(f"{holding.id} ({holding.partition}) {state} in: {', '.join(documents)}.", markup=False)
        for which, document in documents.items():
            if document is not None:
                before = "" if state == "is held" else "was "
                console.print(f"  {which}: {before}{hold_words(document)}", markup=False)
        if holding.not_logged is not None:
            console.print(f"[yellow]![/] The audit log could not be written: {holding.not_logged}")

    emit({"database": database, "id": holding.id, "partition": holding.partition, "holds": documents}, as_json, show)
