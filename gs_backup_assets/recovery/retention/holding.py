"""Holds and releases a backup in every store that has it, and tells the audit log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gs_backup_assets.catalogue.audit import Author, ids_of, note
from gs_backup_assets.catalogue.catalogue import AnyEntry, catalogue_of, find_any
from gs_backup_assets.catalogue.holds import Hold, hold, release
from gs_backup_assets.errors import ConfigError, StoreError
from gs_backup_assets.vault.opening import Vault, Which
from gs_backup_assets.vault.store import Store


@dataclass(frozen=True)
class Holding:
    """A backup of any kind, and its hold in each store that has it: the one that stands, or that was taken away.

    `not_logged` says why the audit log does not tell of it.
    """

    id: str
    partition: str
    holds: dict[Which, Hold | None]
    not_logged: StoreError | None


def hold_backup(vault: Vault, database: str, wanted: str, *, by: Author, reason: str, now: datetime) -> Holding:
    """Keep a backup from being deleted, in every store that has it; where it is held already, that hold stands.

    Raises ConfigError (`BACKUP_NOT_FOUND`), and StoreError when a store refuses, once the others were asked.
    """

    def place(store: Store, entry: AnyEntry) -> Hold:
        return hold(store, entry, by=by.actor, reason=reason, now=now)

    return _everywhere(vault, database, wanted, place, by=by, event="hold", details={"reason": reason})


def release_backup(vault: Vault, database: str, wanted: str, *, by: Author) -> Holding:
    """Let retention decide about a backup again, in every store that has it; errors as for `hold_backup`."""
    return _everywhere(vault, database, wanted, release, by=by, event="release", details={})


def _everywhere(
    vault: Vault,
    database: str,
    wanted: str,
    act: Callable[[Store, AnyEntry], Hold | None],
    *,
    by: Author,
    event: Literal["hold", "release"],
    details: dict[str, str],
) -> Holding:
    found: AnyEntry | None = None
    missing: ConfigError | None = None
    refusal: StoreError | None = None
    done: dict[Which, Hold | None] = {}
    for which, store in vault.named().items():
        try:
            entry = _find(store, database, wanted, found)
            if entry is not None:
                found = entry
                done[which] = act(store, entry)
        except ConfigError as error:
            missing = missing or error
        except StoreError as error:
            refusal = refusal or error
    not_logged = None
    if found is not None and done:
        not_logged = note(
            vault.primary,
            database,
            by,
            event,
            ids=ids_of(found),
            result="held" if event == "hold" else "released",
            details={**details, "stores": " ".join(done)},
            otherwise=vault.offsite,
        )
    if refusal is not None:
        so_far = f" It was done in the {' and the '.join(done)} store." if done else ""
        raise StoreError(refusal.code, f"{refusal.message}{so_far}", refusal.hint)
    if found is None:
        assert missing is not None
        raise missing
    return Holding(found.id, found.partition, done, not_logged)


def _find(store: Store, database: str, wanted: str, found: AnyEntry | None) -> AnyEntry | None:
    """The same backup in every store: `latest` may be another one in each."""
    if found is None:
        return find_any(store, database, wanted)
    return catalogue_of(store, database, found.kind).entry(found.partition, found.id)
