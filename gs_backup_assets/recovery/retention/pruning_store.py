"""Retention of everything in one store: dumps, then base backups, then the write-ahead log that they leave over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.retention.pruning import Pruned, PrunePlan, apply, make_plan
from gs_backup_assets.recovery.retention.wal_pruning import WalPlan, WalPruned, make_wal_plan, prune_wal
from gs_backup_assets.vault.store import Store


@dataclass(frozen=True)
class StorePlan:
    """What stays and what goes in one store. The log's plan goes by that of the base backups."""

    dumps: PrunePlan
    base_backups: PrunePlan
    wal: WalPlan

    @property
    def freed_bytes(self) -> int:
        return self.dumps.freed_bytes + self.base_backups.freed_bytes + self.wal.freed_bytes


@dataclass(frozen=True)
class StorePruned:
    """What was done in one store."""

    dumps: Pruned
    base_backups: Pruned
    wal: WalPruned


def plan_store(store: Store, settings: DatabaseSettings, now: datetime) -> StorePlan:
    """Decide about everything in a store, by itself. Raises ConfigError (`NO_RETENTION`) and StoreError."""
    dumps = make_plan(store, settings, now)
    base_backups = make_plan(store, settings, now, "physical")
    return StorePlan(dumps, base_backups, make_wal_plan(store, settings.name, base_backups))


def prune_store(store: Store, plan: StorePlan, *, by: Author, progress: Progress, now: datetime) -> StorePruned:
    """Delete what goes, and sweep unfinished attempts; errors as for `pruning.apply` and `wal_pruning.prune_wal`."""
    dumps = apply(store, plan.dumps, by=by, progress=progress, now=now)
    base_backups = apply(store, plan.base_backups, by=by, progress=progress, now=now)
    return StorePruned(dumps, base_backups, prune_wal(store, plan.wal, by=by, progress=progress))
