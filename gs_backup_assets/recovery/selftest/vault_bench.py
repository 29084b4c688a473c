"""The self-test's encrypted backups, their off-site copies and their audit log, of which copies are broken."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gs_backup_assets.catalogue.audit import AuditLog, Author
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import RawEncryption
from gs_backup_assets.errors import BackupError
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.offsite import copy_backup
from gs_backup_assets.recovery.selftest.breakages_in_vault import VaultBreakage, VaultCopy
from gs_backup_assets.recovery.stored.stored_bytes import write_sums
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.local import LocalStore

REFUSED = "REFUSED"
Examination = tuple[str, tuple[str, ...]]
_VERDICTS = {Status.PASSED: Verdict.PROVEN, Status.FAILED: Verdict.FAILED, Status.NOT_VERIFIED: Verdict.NOT_VERIFIED}


@dataclass(frozen=True)
class VaultBench:
    """A folder with a key, two encrypted backups in a store, their copies off-site, and the log of all that."""

    folder: Path
    settings: DatabaseSettings
    older: Manifest
    newer: Manifest

    def copy(self) -> VaultCopy:
        """A copy of everything; hard links, since what is broken is replaced."""
        place = self.folder.parent / f"vault-{secrets.token_hex(4)}"
        shutil.copytree(self.folder, place, copy_function=os.link)
        settings = self.settings.model_copy(update={"folder": place})
        return VaultCopy(place, settings, newer=self.newer, older=self.older)

    def broken(self, breakage: VaultBreakage) -> tuple[Callable[[], Examination], float]:
        """Breaks a copy; returns what examines it, and the seconds that it took."""
        started = time.monotonic()
        copy = self.copy()
        breakage.apply(copy)
        return partial(self.examine, copy, (breakage.look,)), time.monotonic() - started

    def examine(self, copy: VaultCopy, looks: Sequence[Callable[[VaultCopy], CheckResult]]) -> Examination:
        """Look at a copy, and remove it; the verdict of the first look that finds something, with its codes."""
        try:
            for look in looks:
                result = look(copy)
                if result.status is not Status.PASSED:
                    return _VERDICTS[result.status].value, tuple(dict.fromkeys(f.code for f in result.findings))
        except BackupError as error:
            return REFUSED, (error.code,)
        finally:
            shutil.rmtree(copy.folder)
        return Verdict.PROVEN.value, ()


def make_vault_bench(
    folder: Path, settings: DatabaseSettings, take: Callable[[DatabaseSettings, LocalStore], Manifest]
) -> VaultBench:
    """Take two encrypted backups with `take`, copy them off-site, and put all of it on record."""
    folder.mkdir(mode=0o700)
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(f"{new_raw_key()}\n", encoding="ascii")
    encryption = RawEncryption(kind="raw-aes-256", key_file=Path(key.name))
    settings = settings.model_copy(update={"folder": folder, "encryption": encryption})
    primary, offsite = LocalStore(folder / "primary"), LocalStore(folder / "offsite")
    log, by = AuditLog(primary, settings.name), Author.here("selftest")
    made = []
    for _ in range(2):
        manifest = take(settings, primary)
        ids = {"backup": manifest.id, "partition": manifest.partition}
        log.append(by, "backup", ids, "stored")
        entry = Catalogue(primary, settings.name).find(manifest.id)
        write_sums(primary, entry)
        copy_backup(primary, offsite, entry, Progress())
        log.append(by, "copy", ids, "passed")
        made.append(manifest)
        time.sleep(1.0)  # ids name seconds
    return VaultBench(folder, settings, older=made[0], newer=made[1])
