"""Gathers what the cost report is made of: one listing of each store of a database."""

from __future__ import annotations

from datetime import datetime, timedelta

from gs_backup_assets.catalogue.catalogue import Catalogue, PhysicalCatalogue
from gs_backup_assets.catalogue.cost_report import StoreContents, build_report
from gs_backup_assets.catalogue.costs import CostReport
from gs_backup_assets.catalogue.forecast import Rules
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import LocalStoreConfig, S3StoreConfig
from gs_backup_assets.recovery.doctor.bucket_rules import ARCHIVED_ABOVE_BYTES, ARCHIVES, moves
from gs_backup_assets.vault.opening import Vault, Which
from gs_backup_assets.vault.store import Store


def cost_report(settings: DatabaseSettings, vault: Vault, now: datetime) -> CostReport:
    """List the database's stores and make its cost report.

    Raises StoreError when one cannot be read, and ConfigError (`TRANSITIONS_INVALID`).
    """
    return build_report(
        settings.name,
        [_contents(settings, which, store) for which, store in vault.named().items()],
        costs=settings.costs,
        retention=settings.retention,
        zone=settings.zone,
        now=now,
    )


def _contents(settings: DatabaseSettings, which: Which, store: Store) -> StoreContents:
    listing = list(store.objects(settings.name))
    config = settings.stores.offsite if which == "offsite" else settings.stores.primary
    return StoreContents(
        name=which,
        address=store.describe(),
        listing=listing,
        summaries=Catalogue(store, settings.name).summaries(listing),
        rules=_rules(config or settings.stores.primary),
        base_backups=len(PhysicalCatalogue(store, settings.name).summaries(listing)),
    )


def _rules(config: LocalStoreConfig | S3StoreConfig) -> Rules:
    """The rules of a store as the configuration wants them, and as `gs-backup doctor --fix-bucket` writes them."""
    if isinstance(config, LocalStoreConfig):
        return Rules(storage_class="local", lock=None, transitions={})
    lock = timedelta(days=config.object_lock_days) if config.object_lock_days else None
    transitions = {str(move.storage_class): timedelta(days=move.days) for move in moves(config)}
    if ARCHIVES & transitions.keys():
        return Rules(config.storage_class, lock, transitions, smallest_moved=ARCHIVED_ABOVE_BYTES + 1)
    return Rules(config.storage_class, lock, transitions)
