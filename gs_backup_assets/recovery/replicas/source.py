"""Where a replica's files and its log come from besides the primary: a base backup of the store, and the archive."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue
from gs_backup_assets.catalogue.chains import chain_of
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import KmsEncryption, RawKeyConfig, S3StoreConfig
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.physical.unpacking import unpack_chain
from gs_backup_assets.recovery.replicas.create import Fill
from gs_backup_assets.system.account import Account
from gs_backup_assets.vault.opening import Vault


def restore_command(settings: DatabaseSettings, config: Path | None) -> str | None:
    """The restore_command that fetches from the archive, with full paths; None without an archive.

    Servers run it with their own environment: what the store and the key need must be there. Every failure is told to
    the standby as "not there": it asks again, and streams meanwhile. What `wal fetch` says when the store cannot be
    reached would end the server, which is right for a recovery and wrong for a replica.
    """
    if settings.wal is None:
        return None
    program = shutil.which("gs-backup") or str(Path(sys.executable).with_name("gs-backup"))
    file = (config or settings.folder / "backup.yaml").absolute()
    words = [program, "wal", "fetch", "--config", str(file), "--database", settings.name]
    return f"{' '.join(shlex.quote(word) for word in words).replace('%', '%%')} %f %p || exit 1"


def archive_environment(settings: DatabaseSettings) -> dict[str, str]:
    """The variables that `restore_command` needs to open the stores, and no others, as far as they are set."""
    stores = [store for store in (settings.stores.primary, settings.stores.offsite) if isinstance(store, S3StoreConfig)]
    names = {name for store in stores for name in (store.access_key_env, store.secret_key_env)}
    if stores or isinstance(settings.encryption, KmsEncryption):
        names |= {name for name in os.environ if name.startswith("AWS_")}
    if settings.encryption is not None:
        keys = (settings.encryption, *settings.encryption.previous)
        names |= {key.key_env for key in keys if isinstance(key, RawKeyConfig)}
    return {name: os.environ[name] for name in names if name is not None and name in os.environ}


def from_store(settings: DatabaseSettings, vault: Vault, wanted: str) -> Fill:
    """Fills a data directory from a base backup: an id, a week, or `latest`.

    Raises ConfigError: `NO_ARCHIVE` without an archive of the log, as what was written since the backup must come from
    there; `BACKUP_NOT_FOUND`. Filling raises what unpacking does.
    """
    if settings.wal is None:
        raise ConfigError(
            "NO_ARCHIVE",
            "A replica from a base backup needs the log that was written since: backup.yaml has no `wal`.",
            "Leave out --from-backup: the files come from the primary.",
        )
    store = vault.store()
    catalogue = PhysicalCatalogue(store, settings.name)
    chain = chain_of(catalogue.entries(), catalogue.find(wanted))

    def fill(into: Path, account: Account, progress: Progress) -> None:
        # The links to tablespaces are absolute: these are unpacked where they stay, the data directory beside them.
        around = into.with_name(f"{into.name}.tablespaces")
        around.mkdir(mode=0o700)
        os.chown(around, account.uid, account.gid)
        unpacked = unpack_chain(settings, store, chain, around, progress, account=account)
        into.rmdir()
        unpacked.data.rename(into)

    return fill
