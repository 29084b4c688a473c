"""A run in a process of its own, for tests that kill it: tells every stage as it begins, advances and ends.

    python -m gs_backup_assets_tests.recovery.dumps.runner take|checksum|prove|restore FOLDER [RULES]

The source's address is in TEST_DATABASE_URL, the target's of a restore in TEST_INTO_URL. Signals are handled as by
`gs-backup`, so that both ways are shown: cleaning up by itself, and, after SIGKILL, by the guardian.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime, timezone
from pathlib import Path

from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.cli.main import _terminated
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.connection import target_from_environment
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.proving import prove_and_record
from gs_backup_assets.recovery.dumps.restore import restore_backup
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes
from gs_backup_assets.vault.opening import Vault, open_store


def tell(line: str) -> None:
    """One line in one write: dump and fingerprint tell theirs from two threads."""
    os.write(1, f"{line}\n".encode())


class Printer:
    """A listener that prints one line for each event, at once."""

    def __init__(self) -> None:
        self._advanced: set[str] = set()

    def stage_started(self, stage: str) -> None:
        tell(f"started {stage}")

    def stage_advanced(self, stage: str, done: int, total: int | None, unit: str, seconds: float) -> None:
        if stage not in self._advanced:
            self._advanced.add(stage)
            tell(f"advanced {stage}")

    def stage_ended(self, stage: str, seconds: float, ok: bool) -> None:
        tell(f"ended {stage} {ok}")


def settings_of(folder: Path, rules: str = "none") -> DatabaseSettings:
    return DatabaseSettings(name="shop", url_env="TEST_DATABASE_URL", timezone="UTC", folder=folder, rules=rules)


def main(what: str, folder: str, rules: str = "none") -> None:
    signal.signal(signal.SIGTERM, _terminated)
    settings = settings_of(Path(folder), rules)
    store = open_store(settings)
    progress = Progress(Printer())
    if what == "take":
        day = DAY.of(datetime.now(timezone.utc), settings.zone)
        take_backup(settings, target_from_environment(settings.url_env), store, day, progress)
        return
    entry = Catalogue(store, settings.name).find("latest")
    if what == "checksum":
        with progress.stage("checksum") as stage:
            status = check_stored_bytes(store, entry, stage).status
        tell(status.value)
    elif what == "prove":
        proved = prove_and_record(settings, Vault(store, None), entry, progress, by=Author.here("verify"))
        tell(proved.record.verdict.value)
    else:
        into = target_from_environment("TEST_INTO_URL")
        tell(restore_backup(settings, store, entry, into, progress).verdict.value)


if __name__ == "__main__":
    main(*sys.argv[1:])
