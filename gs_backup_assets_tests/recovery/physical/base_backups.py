"""Takes base backups of a test's production server, and starts servers on what comes back.

    python -m gs_backup_assets_tests.recovery.physical.base_backups FOLDER MAX_RATE

takes one in a process of its own, for tests that kill it; the server's address is in TEST_DATABASE_URL.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry
from gs_backup_assets.catalogue.chains import chain_of
from gs_backup_assets.catalogue.periods import WEEK
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.connection import Target, target_from_environment
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.physical.base_backup import take_base_backup
from gs_backup_assets.recovery.physical.unpacking import Unpacked, unpack_chain
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.vault.store import Store, keys
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.production import Production


@dataclass(frozen=True)
class Shelf:
    """One store for base backups, and the settings that go with it."""

    settings: DatabaseSettings
    store: Store

    def take(self, source: Production | Target, *, full: bool | None = None) -> PhysicalManifest:
        """Take one; ids name seconds, so it waits for the next one."""
        before = {entry.id for entry in self.entries}
        now = datetime.now(timezone.utc)
        while before and f"{now:%Y%m%dT%H%M%SZ}" <= max(before):
            time.sleep(0.05)
            now = datetime.now(timezone.utc)
        target = source if isinstance(source, Target) else source.target()
        week = WEEK.of(now, self.settings.zone)
        return take_base_backup(self.settings, target, self.store, week, Progress(), full=full)

    @property
    def entries(self) -> list[PhysicalEntry]:
        """All of them, newest first."""
        return PhysicalCatalogue(self.store, self.settings.name).entries()

    def chain(self, backup_id: str) -> tuple[PhysicalEntry, ...]:
        entries = self.entries
        return chain_of(entries, next(entry for entry in entries if entry.id == backup_id))

    @property
    def leftovers(self) -> list[str]:
        """Everything that rests below the folder of base backups."""
        return list(keys(self.store, f"{self.settings.name}/physical"))

    @contextmanager
    def unpacked(self, backup_id: str) -> Iterator[Unpacked]:
        account = server_account()
        with workspace("unpacked", owner=account) as into:
            yield unpack_chain(self.settings, self.store, self.chain(backup_id), into, Progress(), account=account)


def shelf_in(folder: Path, *, physical: Mapping[str, Any] | None = None, **overrides: Any) -> Shelf:
    settings = settings_in(folder, physical=dict(physical or {}), **overrides)
    return Shelf(settings, open_store(settings))


@contextmanager
def started(unpacked: Unpacked) -> Iterator[Production]:
    """A server on an unpacked cluster, recovered with the WAL that came with it."""
    server = Production(unpacked.toolchain, unpacked.data.parent)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def pgbench_balances(server: Production) -> list[object]:
    """Four sums that every transaction of pgbench keeps equal."""
    return [
        *server.sql(
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),"
            " (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"
        )[0]
    ]


class _Told:
    """Prints a line when the program has begun to write."""

    def stage_started(self, stage: str) -> None:
        os.write(1, f"started {stage}\n".encode())

    def stage_advanced(self, stage: str, done: int, total: int | None, unit: str, seconds: float) -> None:
        os.write(1, f"advanced {stage} {done}\n".encode())

    def stage_ended(self, stage: str, seconds: float, ok: bool) -> None: ...


def main(folder: str, max_rate: str) -> None:
    shelf = shelf_in(Path(folder), physical={"max_rate": max_rate, "compression": "none"})
    week = WEEK.of(datetime.now(timezone.utc), shelf.settings.zone)
    target = target_from_environment(shelf.settings.url_env)
    take_base_backup(shelf.settings, target, shelf.store, week, Progress(_Told()))


if __name__ == "__main__":
    main(*sys.argv[1:])
