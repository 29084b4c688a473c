"""Recovers to a point in time: unpack, replay, promote, and check that the target was really reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.recover_plan import RecoveryPlan
from gs_backup_assets.vault.opening import Vault

STAGES = ("fetch", "combine", "start", "replay", "promote", "checks")


@dataclass(frozen=True)
class Achieved:
    """The point that was reached: the end of the last record that was replayed, and the new timeline from there on.

    `at` is when the last transaction that was replayed ended, by the server's clock; None when none was replayed.
    """

    lsn: Lsn
    at: datetime | None
    timeline: int


@dataclass(frozen=True)
class Recovered:
    """A recovered server that runs on a private socket, for as long as the block lasts. `seconds` by stage.

    `superuser` may log in on it without a password; nobody else can reach it. `data` is its data directory.
    """

    plan: RecoveryPlan
    data: Path
    toolchain: Toolchain
    server: Target
    achieved: Achieved
    seconds: Mapping[str, float]

    def target(self, database: str) -> Target:
        """A superuser's target for one of its databases."""
        return self.server.with_database(database)


@contextmanager
def recovered(
    plan: RecoveryPlan,
    settings: DatabaseSettings,
    vault: Vault,
    into: Path,
    progress: Progress,
    *,
    durable: bool = True,
) -> Iterator[Recovered]:
    """Recover into the folder `into`, which must not exist or be empty, and hand the running server out.

    The server archives nothing, listens on no address and asks no other server. At the end of the block it is shut
    down cleanly; after an error at once. Not `durable`: for a server that is thrown away. The folder stays; it is
    marked as unfinished until `finish_folder` was called. Raises ConfigError (`INTO_NOT_EMPTY`, `INTO_UNUSABLE`),
    ProofFailed (`TARGET_NOT_REACHED`, `WAL_DAMAGED`, what the stored bytes show), ProgramError (`RECOVERY_FAILED`,
    `NO_SPACE`), StoreError, NotVerifiable.
    """
    raise NotImplementedError
    yield
