"""Promotes a standby: first what speaks against it, then pg_promote, then whether it really is a primary now."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ConfigError, ProofFailed, SourceError
from gs_backup_assets.postgres.connection import Connection, connect, query, target_from_environment
from gs_backup_assets.postgres.standby import (
    PrimaryState,
    StandbyState,
    current_timeline,
    primary_state,
    standby_state,
)
from gs_backup_assets.postgres.wal import PAGE_BYTES, Lsn
from gs_backup_assets.recovery.wal.access import open_archive_as_stored
from gs_backup_assets.vault.opening import Vault

# A primary that has just died looks alive to a receiver until its end of the connection is closed.
_LAST_BREATH_SECONDS = 5.0

NEXT_STEPS = (
    "Keep the old primary from coming back: stop it for good, take its address away (fencing). Two primaries diverge.",
    "Point the application at the new primary, and backup.yaml as well: url_env, physical.url_env, wal.url_env.",
    "Take a new base backup: `gs-backup base-backup --full`. The log goes on on a new timeline.",
    "Make the old primary a standby of the new one with pg_rewind, or build it anew: `gs-backup replica create`.",
)


@dataclass(frozen=True)
class PromotionChecks:
    """What is known before a promotion; a failed check needs `force`."""

    state: StandbyState
    checks: tuple[CheckResult, ...]

    @property
    def against(self) -> tuple[CheckResult, ...]:
        """What speaks against it."""
        return tuple(check for check in self.checks if check.status is Status.FAILED)


@dataclass(frozen=True)
class Promoted:
    """A new primary, and the timeline and position at which it began."""

    name: str
    timeline: int
    lsn: str
    seconds: float


def check_promotion(settings: DatabaseSettings, vault: Vault, name: str) -> PromotionChecks:
    """Look at the replica, the primary and the archive; changes nothing.

    Raises ConfigError (`REPLICA_UNKNOWN`, `NO_STANDBY`), SourceError when the replica does not answer.
    """
    replica = settings.replicas.get(name)
    if replica is None:
        known = ", ".join(settings.replicas) or "none"
        raise ConfigError("REPLICA_UNKNOWN", f"backup.yaml has no replica {name!r}.", f"It knows: {known}.")
    with connect(target_from_environment(replica.url_env)) as connection:
        state = standby_state(connection)
        if not state.in_recovery:
            raise ConfigError("NO_STANDBY", f"{name} is a primary already: there is nothing to promote.", NEXT_STEPS[0])
        primary, refusal = _primary(settings)
        if primary is None:
            state = _settled(connection, state)
        from_archive = bool(query(connection, "SELECT current_setting('restore_command')")[0][0])
    caught_up, alive = _caught_up(name, state, primary), _primary_gone(state, primary, refusal)
    archive = _archive(settings, vault, state, from_archive=from_archive)
    return PromotionChecks(state, (alive, caught_up, archive))


def promote_replica(settings: DatabaseSettings, name: str, *, wait_seconds: int = 120) -> Promoted:
    """pg_promote, and wait; the caller has looked at `check_promotion`.

    Raises SourceError (`PROMOTION_REFUSED`), ProofFailed (`PROMOTION_NOT_SEEN`).
    """
    import psycopg2

    started = time.monotonic()
    with connect(target_from_environment(settings.replicas[name].url_env)) as connection:
        before = standby_state(connection)
        try:
            (promoted,) = query(connection, "SELECT pg_promote(true, %s)", (wait_seconds,))[0]
        except psycopg2.Error as error:
            raise SourceError(
                "PROMOTION_REFUSED",
                f"{name} refuses to be promoted: {' '.join(str(error).split())}",
                "GRANT EXECUTE ON FUNCTION pg_promote TO the role, on the primary in time; or `pg_ctl promote` there.",
            ) from error
        recovering, lsn = query(
            connection, "SELECT r, CASE WHEN NOT r THEN pg_current_wal_lsn()::text END FROM pg_is_in_recovery() AS r"
        )[0]
        timeline = None if recovering else current_timeline(connection)
    if not promoted or timeline is None or (before.timeline is not None and timeline <= before.timeline):
        raise ProofFailed(
            "PROMOTION_NOT_SEEN",
            f"{name} was told to promote, but is not a primary on a new timeline after {wait_seconds} s.",
            "It may still be replaying: ask `gs-backup replica status` again, and read its log.",
        )
    return Promoted(name, timeline, lsn, time.monotonic() - started)


def _primary(settings: DatabaseSettings) -> tuple[PrimaryState | None, str]:
    try:
        with connect(target_from_environment(settings.wal_url_env)) as connection:
            return primary_state(connection), ""
    except BackupError as error:
        return None, error.message


def _settled(connection: Connection, state: StandbyState) -> StandbyState:
    """The state when its connection to a dead primary has ended."""
    deadline = time.monotonic() + _LAST_BREATH_SECONDS
    while state.receiver is not None and time.monotonic() < deadline:
        time.sleep(0.1)
        state = standby_state(connection)
    return state


def _primary_gone(state: StandbyState, primary: PrimaryState | None, refusal: str) -> CheckResult:
    name, hint = "primary_gone", "Stop the primary first; --force promotes nevertheless, and then there are two."
    if primary is not None and not primary.in_recovery and primary.system_identifier in (None, state.system_identifier):
        words = "the primary is alive: two primaries would diverge"
        return _result(name, Status.FAILED, words, code="PRIMARY_ALIVE", hint=hint)
    if state.receiver is not None:
        words = "the primary does not answer here, but the replica is still connected to it"
        return _result(name, Status.FAILED, words, code="PRIMARY_ALIVE", hint=hint)
    words = f"the primary does not answer: {refusal}" if primary is None else "its address answers as another server"
    return CheckResult(name=name, status=Status.PASSED, summary=words)


def _caught_up(name: str, state: StandbyState, primary: PrimaryState | None) -> CheckResult:
    replayed = Lsn.parse(state.replay_lsn or "0/0")
    received = max(Lsn.parse(state.receive_lsn or "0/0"), replayed)
    metrics: dict[str, float | int] = {"received_not_replayed_bytes": received.value - replayed.value}
    if primary is None:
        words = f"the primary cannot be asked; {name} has replayed up to {replayed}, and received up to {received}"
        return CheckResult(name="caught_up", status=Status.NOT_VERIFIED, summary=words, metrics=metrics)
    lag = max(0, Lsn.parse(primary.lsn).value - received.value)
    metrics["lag_bytes"] = lag
    if lag == 0:
        words = f"{name} has received all that the primary has written"
        return CheckResult(name="caught_up", status=Status.PASSED, summary=words, metrics=metrics)
    words = f"{name} lacks {lag} bytes of the primary"
    hint = "Stop writing on the primary and wait; --force gives these bytes up."
    return _result("caught_up", Status.FAILED, words, code="NOT_CAUGHT_UP", hint=hint, metrics=metrics)


def _archive(settings: DatabaseSettings, vault: Vault, state: StandbyState, *, from_archive: bool) -> CheckResult:
    """Whether the archive has log that the replica has not, and whether the promotion would replay it."""
    name = "archive_replayed"
    if settings.wal is None or state.system_identifier is None or state.timeline is None:
        return CheckResult(name=name, status=Status.PASSED, summary="there is no archive of the write-ahead log")
    received = max(Lsn.parse(state.receive_lsn or "0/0"), Lsn.parse(state.replay_lsn or "0/0"))
    try:
        archive = open_archive_as_stored(settings, vault.primary, state.system_identifier)
        segments = archive.segments(state.timeline)
    except BackupError as error:
        return _result(
            name, Status.NOT_VERIFIED, f"the archive cannot be read: {error.message}", code=error.code, hint=error.hint
        )
    end = max((archived.end for archived in segments), default=Lsn(0))
    behind = max(0, end.value - received.value)
    behind = 0 if behind < PAGE_BYTES else behind  # the archive counts in whole pages
    metrics: dict[str, float | int] = {"archived_not_received_bytes": behind}
    if behind == 0:
        return CheckResult(name=name, status=Status.PASSED, summary=f"the archive ends at {end}", metrics=metrics)
    if from_archive:
        words = f"the archive has {behind} bytes more, up to {end}: restore_command brings them before the promotion"
        return CheckResult(name=name, status=Status.PASSED, summary=words, metrics=metrics)
    words = f"the archive has {behind} bytes, up to {end}, that the replica has not; it has no restore_command"
    hint = "Set its restore_command to `gs-backup wal fetch %f %p` and reload; --force gives these bytes up."
    return _result(name, Status.FAILED, words, code="BEHIND_ARCHIVE", hint=hint, metrics=metrics)


def _result(
    name: str,
    status: Status,
    summary: str,
    *,
    code: str,
    hint: str,
    metrics: dict[str, float | int] | None = None,
) -> CheckResult:
    finding = Finding(code=code, message=f"{summary}.", hint=hint)
    return CheckResult(name=name, status=status, summary=summary, findings=(finding,), metrics=metrics or {})
