"""Opens the stores that the configuration names, or one by its address alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import ValidationError

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import LocalStoreConfig, S3StoreConfig, Stores
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import Store

Which = Literal["primary", "offsite"]
ClientFactory = Callable[[S3StoreConfig], Any]
_OPTIONS = frozenset({"region", "endpoint", "profile"})


def open_store(settings: DatabaseSettings, which: Which = "primary", *, client: ClientFactory | None = None) -> Store:
    """The database's primary or off-site store. `client` makes S3 clients in another way than boto3's own.

    Raises ConfigError (`NO_OFFSITE_STORE`, and what the client needs); opens no connection.
    """
    config = settings.stores.primary if which == "primary" else settings.stores.offsite
    if config is None:
        raise _no_offsite()
    return open_configured(config, settings.folder, client=client)


def open_configured(
    config: LocalStoreConfig | S3StoreConfig, folder: Path, *, client: ClientFactory | None = None
) -> Store:
    """The store of one section of the configuration."""
    if isinstance(config, LocalStoreConfig):
        return LocalStore((folder / config.path.expanduser()).resolve())
    from gs_backup_assets.vault.s3 import ObjectOptions, S3Store
    from gs_backup_assets.vault.s3_client import shared_client

    options = ObjectOptions(
        storage_class=config.storage_class,
        sse=config.sse,
        sse_kms_key_id=config.sse_kms_key_id,
        lock_mode=config.object_lock_mode,
        lock_days=config.object_lock_days,
    )
    return S3Store((client or shared_client)(config), config.bucket, config.prefix, options)


@dataclass(frozen=True)
class Vault:
    """A database's stores: the primary one, and the one in another place, if any."""

    primary: Store
    offsite: Store | None

    def store(self, which: Which | None = None) -> Store:
        """One of the stores; without a choice the best one.

        ConfigError (`NO_OFFSITE_STORE`).
        """
        if (which or self.best) == "primary":
            return self.primary
        if self.offsite is None:
            raise _no_offsite()
        return self.offsite

    @property
    def best(self) -> Which:
        """Which store one would restore from at the worst hour."""
        return "primary" if self.offsite is None else "offsite"

    def named(self) -> dict[Which, Store]:
        """The stores that there are, the primary one first."""
        return {"primary": self.primary} if self.offsite is None else {"primary": self.primary, "offsite": self.offsite}


def open_vault(settings: DatabaseSettings, *, client: ClientFactory | None = None) -> Vault:
    """Every store of the database; opens no connection."""
    offsite = open_store(settings, "offsite", client=client) if settings.stores.offsite is not None else None
    return Vault(open_store(settings, "primary", client=client), offsite)


def stores_at(address: str) -> Stores:
    """What an address alone says: a folder, or `s3://bucket/prefix?endpoint=...&region=...`.

    Raises ConfigError (`STORE_ADDRESS_INVALID`).
    """
    if not address:
        raise _invalid("it is empty")
    kind, has_kind, path = address.partition("://")
    if not has_kind or kind == "file":
        return Stores(primary=LocalStoreConfig(path=Path(path if has_kind else address).absolute()))
    if kind != "s3":
        raise _invalid(f"{kind}:// is no kind of store")
    try:
        parts = urlsplit(address)
    except ValueError as error:  # brackets that hold no address of the network
        raise _invalid(str(error)) from None
    options = dict(parse_qsl(parts.query))
    if unknown := options.keys() - _OPTIONS:
        raise _invalid(f"unknown options: {', '.join(sorted(unknown))}")
    options.setdefault("endpoint", os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    try:
        config = S3StoreConfig(
            kind="s3",
            bucket=parts.netloc,
            prefix=parts.path,
            **{name: value for name, value in options.items() if value},
        )
    except ValidationError as error:
        raise _invalid("; ".join(str(problem["msg"]) for problem in error.errors(include_input=False))) from None
    return Stores(primary=config)


def _no_offsite() -> ConfigError:
    return ConfigError(
        "NO_OFFSITE_STORE", "backup.yaml names no off-site store.", "Add stores.offsite; docs/offsite.md shows how."
    )


def _invalid(words: str) -> ConfigError:
    return ConfigError(
        "STORE_ADDRESS_INVALID",
        f"The address of the store cannot be used: {words}.",
        "Write a folder, or s3://bucket/prefix?endpoint=https://s3.example.com&region=eu-central-1.",
    )
