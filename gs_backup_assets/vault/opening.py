"""Opens the store that the configuration names."""

from __future__ import annotations

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import Store


def open_store(settings: DatabaseSettings) -> Store:
    """The database's primary store."""
    return LocalStore(settings.store_path)
