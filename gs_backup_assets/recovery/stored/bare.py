"""Settings without a configuration: what a store's address and the environment say, for the worst hour."""

from __future__ import annotations

from pathlib import Path

from gs_backup_assets.catalogue.manifest import KINDS
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.recovery.stored.keyring import encryption_from_environment
from gs_backup_assets.vault.opening import open_configured, stores_at


def settings_at(address: str, database: str | None = None) -> DatabaseSettings:
    """The settings of a database whose backups lie in the store at `address`; its key is read from GS_BACKUP_KEY.

    Without `database` it is the only one that the store has. Raises ConfigError: `STORE_ADDRESS_INVALID`,
    `DATABASE_UNKNOWN`, `DATABASE_AMBIGUOUS`; StoreError.
    """
    stores = stores_at(address)
    store = open_configured(stores.primary, Path.cwd())
    there = [name for name in store.folders("") if any(store.folders(f"{name}/{kind}") for kind in KINDS)]
    if database is not None and database not in there:
        known = f"It has {', '.join(there)}." if there else "It has no backups at all: look at the address."
        raise ConfigError("DATABASE_UNKNOWN", f"{store.describe()} has no backups of {database!r}.", known)
    if database is None and len(there) != 1:
        if not there:
            hint = "Look at the address: it is the folder, or the prefix, in which the databases' folders are."
            raise ConfigError("DATABASE_UNKNOWN", f"{store.describe()} has no backups.", hint)
        words = f"{store.describe()} has backups of {', '.join(there)}."
        raise ConfigError("DATABASE_AMBIGUOUS", words, "Choose one with --database NAME.")
    return DatabaseSettings(
        name=database or there[0],
        url_env="DATABASE_URL",
        timezone="UTC",
        folder=Path.cwd(),
        stores=stores,
        encryption=encryption_from_environment(),
    )
