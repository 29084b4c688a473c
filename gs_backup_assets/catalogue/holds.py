"""Holds: an object beside a backup that says who keeps it from being deleted, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.sealed import seal, unseal
from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.store import Store, unless_there


class Hold(BaseModel):
    """Who held a backup, why and when. `placed_at` is aware, in UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    reason: str
    placed_at: AwareDatetime


class Held(Protocol):
    """A backup that lies in a folder of a store: an entry of the catalogue, a summary, a manifest."""

    @property
    def folder(self) -> str: ...


def hold_key(folder: str) -> str:
    """Where the hold of the backup in a folder lies."""
    return f"{folder}/{manifests.HOLD}"


def hold(store: Store, backup: Held, *, by: str, reason: str, now: datetime) -> Hold:
    """Keep a backup from being deleted until it is released. One that is held already stays as it is.

    Returns the hold that stands. Raises StoreError: `BACKUP_GONE` when the backup was deleted this moment, and what
    the store raises.
    """
    placed = Hold(by=by, reason=reason, placed_at=now)
    with unless_there():
        store.put_bytes(seal("hold", placed.model_dump(mode="json")), hold_key(backup.folder), locked=False)
    # Looked at after the hold is there, as recovery.pruning looks for a hold after the manifest has gone.
    if not store.exists(f"{backup.folder}/{manifests.NAME}"):
        store.delete(hold_key(backup.folder))
        raise StoreError(
            "BACKUP_GONE",
            f"{backup.folder} is being deleted in {store.describe()}: the hold came too late.",
            "Hold another backup; `gs-backup list` shows them. Another store may still have this one.",
        )
    return read_hold(store, backup) or placed


def release(store: Store, backup: Held) -> Hold | None:
    """Let retention decide about a backup again; returns the hold that it had, if any.

    A hold that cannot be read is taken away as well.
    """
    try:
        standing = read_hold(store, backup)
    except StoreError as error:
        if error.code != "HOLD_DAMAGED":
            raise
        standing = None
    store.delete(hold_key(backup.folder))
    return standing


def read_hold(store: Store, backup: Held) -> Hold | None:
    """A backup's hold, if it has one.

    StoreError (`HOLD_DAMAGED`) when it cannot be read: the backup is held nevertheless.
    """
    key = hold_key(backup.folder)
    try:
        with store.open(key) as stream:
            return Hold.model_validate(unseal("hold", stream.read()))
    except StoreError as error:
        if error.code == "OBJECT_MISSING":
            return None
        raise
    except ValueError:  # pydantic's ValidationError is one
        raise StoreError(
            "HOLD_DAMAGED",
            f"{key} is not what was written; the backup stays held.",
            "`gs-backup release` takes it away, `gs-backup hold` places another.",
        ) from None
