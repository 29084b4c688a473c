"""Gathers what the cost report is made of: one listing of each store of a database."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.cost_report import StoreContents, build_report
from gs_backup_assets.catalogue.costs import CostReport
from gs_backup_assets.catalogue.forecast import Rules
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_sections import LocalStoreConfig, S3StoreConfig
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.vault.opening import Vault, Which
from gs_backup_assets.vault.store import Store


def cost_report(settings: DatabaseSettings, vault: Vault, now: datetime) -> CostReport:
    """List the database's stores and make its cost report. StoreError when one cannot be read."""
    return build_report(
        settings.name,
        [_contents(settings, which, store) for which, store in vault.named().items()],
        costs=settings.costs,
        retention=settings.retention,
        zone=settings.zone,
        now=now,
    )


def month_of(moment: datetime, zone: ZoneInfo) -> str:
    """The month's partition key of a moment, its first day, in the configured time zone."""
    return moment.astimezone(zone).date().replace(day=1).isoformat()


def require_this_month(partition: str, now: datetime, zone: ZoneInfo) -> None:
    """A partition never lies: a store can be listed only as it is now.

    Raises ConfigError: `PARTITION_NOT_THIS_MONTH`.
    """
    this_month = month_of(now, zone)
    if partition != this_month:
        raise ConfigError(
            "PARTITION_NOT_THIS_MONTH",
            f"A report made now belongs to {this_month} ({zone.key}), not to {partition}.",
            f"Run the partition {this_month}: what rested in another month cannot be listed any more.",
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
    )


def _rules(config: LocalStoreConfig | S3StoreConfig) -> Rules:
    if isinstance(config, LocalStoreConfig):
        return Rules(storage_class="local", lock=None, transitions={})
    lock = timedelta(days=config.object_lock_days) if config.object_lock_days else None
    return Rules(config.storage_class, lock, {str(name): after for name, after in config.transitions.items()})
