"""Brings a dump out of a store into a folder, checked and decrypted, for those who want single tables or rows of it."""

from __future__ import annotations

import errno
from pathlib import Path

from gs_backup_assets.catalogue.catalogue import Entry
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError, ProgramError, ProofFailed
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.restore import fetch_sound
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.store import Store

_ANOTHER = "Free space there, or name a folder elsewhere, in one that this account may write to."


def fetch_into(settings: DatabaseSettings, store: Store, entry: Entry, into: Path, progress: Progress) -> int:
    """Fetch a dump's files into the new folder `into`, mode 0700, and return their size in bytes.

    Every byte was compared with the manifest. The folder gets its name last: until then the files lie in a private
    folder beside it, which goes whatever ends this process.

    Raises ConfigError (`INTO_EXISTS`, `INTO_UNUSABLE`); ProofFailed when the stored bytes are not those that were
    backed up; StoreError; ProgramError (`NO_SPACE`); NotVerifiable (`KEY_MISSING`, `KEY_WRONG`).
    """
    if into.exists() or into.is_symlink():
        raise _exists(into)
    if entry.manifest is None:
        damage = entry.require_damage()
        raise ProofFailed(damage.code, damage.message, damage.hint)
    try:
        with workspace("fetch", parent=into.parent) as aside:
            files = aside / "files"
            files.mkdir(mode=0o700)
            fetch_sound(settings, store, entry, files, progress)
            _give_name(files, into)
    except ProgramError as error:
        if error.code == "WORKSPACE_UNUSABLE":
            raise ConfigError("INTO_UNUSABLE", error.message, _ANOTHER) from error
        if error.code == "NO_SPACE":
            raise ProgramError(error.code, error.message, _ANOTHER) from error
        raise
    return sum(file.size for file in entry.manifest.files)


def _give_name(files: Path, into: Path) -> None:
    try:
        files.rename(into)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise _exists(into) from error


def _exists(into: Path) -> ConfigError:
    return ConfigError("INTO_EXISTS", f"{into} exists already.", "Name a folder that does not exist yet.")
