"""Brings a dump out of a store into a folder, checked and decrypted, for those who want single tables or rows of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from gs_backup_assets.catalogue.catalogue import Entry
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError, ProofFailed
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.restore import fetch_sound
from gs_backup_assets.vault.store import Store


def fetch_into(settings: DatabaseSettings, store: Store, entry: Entry, into: Path, progress: Progress) -> int:
    """Fetch a dump's files into the new folder `into`, mode 0700, and return their size in bytes.

    Every byte was compared with the manifest. The folder gets its name last: a fetch that was broken off leaves nothing
    under it, at most `<into>.unfinished`, which the next one removes.

    Raises ConfigError (`INTO_EXISTS`); ProofFailed when the stored bytes are not those that were backed up; StoreError;
    NotVerifiable (`KEY_MISSING`, `KEY_WRONG`).
    """
    if into.exists() or into.is_symlink():
        raise ConfigError("INTO_EXISTS", f"{into} exists already.", "Name a folder that does not exist yet.")
    if entry.manifest is None:
        damage = entry.require_damage()
        raise ProofFailed(damage.code, damage.message, damage.hint)
    unfinished = into.with_name(f"{into.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700, parents=True)
    try:
        fetch_sound(settings, store, entry, unfinished, progress)
        unfinished.rename(into)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return sum(file.size for file in entry.manifest.files)
