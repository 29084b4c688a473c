"""Plans a recovery before anything is fetched: the base backup, the log that is needed, and what will be lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gs_backup_assets.catalogue.catalogue import PhysicalEntry
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.wal_archive import Archived
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.postgres.waldump import Commit
from gs_backup_assets.vault.opening import Vault, Which


@dataclass(frozen=True)
class RecoveryPlan:
    """A recovery that can be done. Sizes in bytes.

    `chain` is the base backup, full one first. `segments` are the archived ones from its end on. `end` is how far the
    log goes and `last_commit` the last commit in it, None when there is none behind the base backup. `stop_at` is the
    position before which the target lies, where the plan knows it (a position, or a restore point); `to_the_end` says
    that nothing behind the target is there: the server is not told to stop. `expected_loss_seconds` is what lies
    between the target and `planned_at`.
    """

    target: RecoveryTarget
    which: Which
    database: str
    system_identifier: str
    timeline: int
    chain: tuple[PhysicalEntry, ...]
    segments: tuple[Archived, ...]
    end: Lsn
    last_commit: Commit | None
    stop_at: Lsn | None
    to_the_end: bool
    planned_at: datetime
    expected_loss_seconds: float | None
    warnings: tuple[str, ...] = ()

    @property
    def base(self) -> PhysicalManifest:
        """The manifest of the backup that recovery begins at: the last one of the chain."""
        return self.chain[-1].require_manifest()

    @property
    def fetch_bytes(self) -> int:
        """Bytes to be fetched from the store, as they rest there."""
        bases = sum(entry.require_manifest().stored_bytes for entry in self.chain)
        return bases + sum(archived.stored_bytes or 0 for archived in self.segments)


def plan_recovery(
    settings: DatabaseSettings, vault: Vault, target: RecoveryTarget, *, which: Which | None = None, now: datetime
) -> RecoveryPlan:
    """Choose the base backup and the log for a target, from one store and nothing else.

    The newest sound backup that is consistent before the target, on the wanted timeline (else the newest). Raises
    ConfigError: `TARGET_IN_FUTURE`; ProofFailed, whose hint names the nearest points that can be recovered to:
    `NO_BASE_BACKUP`, `TARGET_BEFORE_FIRST_BACKUP`, `TARGET_AFTER_END`, `TARGET_NOT_COVERED`, `WAL_GAP`,
    `RESTORE_POINT_UNKNOWN`, `TIMELINE_UNKNOWN`; StoreError, NotVerifiable, ProgramError.
    """
    raise NotImplementedError
