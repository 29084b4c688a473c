"""Recovers to a point in time: unpack, replay, promote, and check that the target was really reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ProofFailed
from gs_backup_assets.postgres.connection import Connection, Target, connect, query
from gs_backup_assets.postgres.recovery_log import RecoveryLog
from gs_backup_assets.postgres.recovery_server import RecoveringServer, recovering_server, require_closed
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.physical.unpacking import Unpacked, unpack_chain
from gs_backup_assets.recovery.point_in_time.recover_files import leave_startable
from gs_backup_assets.recovery.point_in_time.recover_folder import finish_folder, unfinished_folder
from gs_backup_assets.recovery.point_in_time.recover_plan import RecoveryPlan
from gs_backup_assets.recovery.stored.checked_reading import CheckedReading
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.recovery.wal.prefetch import Prefetcher
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.opening import Vault
from gs_backup_assets.vault.store import Store

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

    `server` is a superuser's target on it; nobody else can reach it. `unpacked` tells where its files are. So many
    `prepared` transactions wait for their second phase.
    """

    plan: RecoveryPlan
    unpacked: Unpacked
    server: Target
    achieved: Achieved
    seconds: Mapping[str, float]
    prepared: int

    @property
    def data(self) -> Path:
        return self.unpacked.data

    @property
    def toolchain(self) -> Toolchain:
        return self.unpacked.toolchain

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
    inspect: Callable[[Unpacked], None] = lambda _unpacked: None,
) -> Iterator[Recovered]:
    """Recover into the folder `into`, which must not exist or be empty, and hand the running server out.

    The data directory is `into`/data, tablespaces are in `into`/tablespaces. The server archives nothing, listens on
    no address and asks no other server. At the end of the block it is shut down with a checkpoint; after an error at
    once. Not `durable`: for a server that is thrown away. `inspect` sees the files before the server changes them.
    The folder stays, marked as unfinished: `recover_into` is what makes a usable one. Raises ConfigError
    (`INTO_NOT_EMPTY`, `INTO_BUSY`, `INTO_UNUSABLE`), ProofFailed (`TARGET_NOT_REACHED`, `WAL_GAP` and what else the
    server says of the backups), ProgramError (`RECOVERY_FAILED`, `NO_SPACE`), StoreError, NotVerifiable.
    """
    account = server_account()
    with (
        unfinished_folder(into, str(plan.target), account),
        _running(plan, settings, vault.store(plan.which), into, progress, durable=durable, inspect=inspect) as found,
    ):
        yield found


@dataclass(frozen=True)
class Outcome:
    """A finished recovery: a data directory that can be started, and what has to be known before that."""

    plan: RecoveryPlan
    data: Path
    toolchain: Toolchain
    account: str
    achieved: Achieved
    seconds: Mapping[str, float]
    notes: tuple[str, ...]


def recover_into(
    plan: RecoveryPlan, settings: DatabaseSettings, vault: Vault, into: Path, progress: Progress
) -> Outcome:
    """Recover into a folder, stop the server cleanly, and leave its data directory ready to be started by others.

    Raises what `recovered` does.
    """
    store = vault.store(plan.which)
    with unfinished_folder(into, str(plan.target), server_account()):
        with _running(plan, settings, store, into, progress, durable=True) as found:
            pass
        with progress.stage("finish"):
            reading = CheckedReading.of(settings, store, plan.base)
            notes = leave_startable(found.unpacked, reading, into, prepared=found.prepared)
            finish_folder(into)
    seconds = {**found.seconds, "finish": progress.seconds["finish"]}
    account = found.unpacked.account.name
    return Outcome(plan, found.data, found.toolchain, account, found.achieved, seconds, notes)


@contextmanager
def _running(
    plan: RecoveryPlan,
    settings: DatabaseSettings,
    store: Store,
    into: Path,
    progress: Progress,
    *,
    durable: bool,
    inspect: Callable[[Unpacked], None] = lambda _unpacked: None,
) -> Iterator[Recovered]:
    account = server_account()
    unpacked = unpack_chain(settings, store, plan.chain, into, progress, account=account)
    inspect(unpacked)
    archive = open_archive(settings, store, plan.system_identifier, segment_bytes=plan.base.wal_segment_bytes)
    with (
        workspace("wal", parent=into, owner=account) as folder,
        Prefetcher(
            archive, plan.segments, plan.histories, folder, account, has_target=not plan.to_the_end
        ) as prefetcher,
        recovering_server(
            unpacked.toolchain, unpacked.data, account, _restore(plan, prefetcher), durable=durable
        ) as server,
    ):
        _replay(server, prefetcher, plan, progress)
        with progress.stage("checks"):
            target = server.login()
            with connect(target) as connection:
                require_closed(connection)
                achieved = _achieved(connection)
                (prepared,) = query(connection, "SELECT count(*) FROM pg_prepared_xacts")[0]
            require_reached(plan, server.log, achieved)
        seconds = {stage: progress.seconds[stage] for stage in STAGES if stage in progress.seconds}
        yield Recovered(plan, unpacked, target, achieved, seconds, int(prepared))


def _restore(plan: RecoveryPlan, prefetcher: Prefetcher) -> dict[str, str]:
    """How far the server is to go, in its own settings (PostgreSQL manual, "Recovery Target")."""
    target = plan.target
    restore = {"restore_command": prefetcher.command, "recovery_target_timeline": str(plan.timeline)}
    if plan.to_the_end:
        return restore
    restore["recovery_target_inclusive"] = "on" if target.inclusive else "off"
    if target.at is not None:
        restore["recovery_target_time"] = f"{target.at:%Y-%m-%d %H:%M:%S.%f}+00"
    elif target.lsn is not None:
        restore["recovery_target_lsn"] = str(target.lsn)
    elif target.name is not None:
        restore["recovery_target_name"] = target.name
    return restore


def _replay(server: RecoveringServer, prefetcher: Prefetcher, plan: RecoveryPlan, progress: Progress) -> None:
    """Wait for the promotion, stage by stage; what kept the log from the server is told first."""
    log, size = server.log, plan.base.wal_segment_bytes
    total = len(plan.segments) * size

    def wait(done: Callable[[], object], tell: Callable[[], None] = lambda: None) -> None:
        try:
            server.wait_until(done, tell)
        except BackupError as error:
            raise prefetcher.error or error from None

    with progress.stage("start"):
        wait(lambda: log.redo_started or log.ready)
    with progress.stage("replay") as stage:
        wait(lambda: log.redo_ended or log.ready, lambda: stage.update(prefetcher.served * size, total))
    with progress.stage("promote"):
        wait(lambda: log.ready)


def _achieved(connection: Connection) -> Achieved:
    """The server tells where it ended: what it replayed last, and the timeline that it writes now."""
    rows = query(
        connection,
        "SELECT pg_last_wal_replay_lsn()::text, pg_last_xact_replay_timestamp(),"
        " pg_walfile_name(pg_current_wal_insert_lsn())",
    )
    lsn, at, segment = rows[0]
    return Achieved(Lsn.parse(lsn), None if at is None else at.astimezone(timezone.utc), int(segment[:8], 16))


def require_reached(plan: RecoveryPlan, log: RecoveryLog, achieved: Achieved) -> None:
    """Compare what the server said and did with the plan. Raises ProofFailed (`TARGET_NOT_REACHED`)."""
    target, last = plan.target, plan.last_commit
    said = log.stopped or "it went on to the end of the log"
    if plan.to_the_end:
        good = achieved.lsn >= plan.end and (last is None or achieved.lsn > last.lsn)
    elif target.at is not None:
        stopped = log.stopped_at
        good = stopped is not None and (stopped > target.at or (stopped == target.at and not target.inclusive))
        good = good and (achieved.at is None or achieved.at <= target.at)
    elif target.lsn is not None:
        stop = log.stopped_at_lsn
        good = stop is not None and stop >= target.lsn
        good = good and (target.inclusive or achieved.lsn <= max(stop or target.lsn, target.lsn))
    else:
        good = log.stopped_at_point == target.name
    if not good:
        raise ProofFailed(
            "TARGET_NOT_REACHED",
            f"The server recovered to {achieved.lsn} ({achieved.at}), not to {target}: {said}.",
            "The folder stays marked as unfinished. `gs-backup coverage` shows the points that there are.",
        )
