"""Plans a recovery before anything is fetched: the base backup, the log that is needed, and what will be lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from gs_backup_assets.catalogue.catalogue import PhysicalEntry
from gs_backup_assets.catalogue.coverage import Reach, reaches
from gs_backup_assets.catalogue.drills import DrillRecord, read_drills
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget, moment_text
from gs_backup_assets.catalogue.restore_points import recorded_target
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.catalogue.wal_archive import Archived
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.wal import Lsn, Segment
from gs_backup_assets.postgres.waldump import Commit
from gs_backup_assets.recovery.point_in_time.coverage_survey import Surveyed, latest_time, survey
from gs_backup_assets.recovery.point_in_time.uncovered import explain_uncovered, no_base_backup
from gs_backup_assets.recovery.wal.log_end import LogEnd
from gs_backup_assets.vault.opening import Vault, Which

_DRILLS = 5  # the newest that are looked at for an estimate
_DRILLED = ("fetch", "combine", "start", "replay", "promote", "checks")


@dataclass(frozen=True)
class RecoveryPlan:
    """A recovery that can be done. Sizes in bytes.

    `chain` is the base backup, full one first. `segments` are the archived ones from its end on, `histories` the
    timelines whose history is archived: the new timeline must get a number that none has. `end` is how far the log
    goes and `last_commit` the last commit in it, None when there is none behind the base backup. `stop_at` is the
    position of the target, where the plan knows it (a position, or a restore point); `to_the_end` says that nothing
    behind the target is there: the server is not told to stop. `expected_loss_seconds` is what lies between the
    target and `planned_at`. `estimated_seconds` is how long it may take, by the last good drill of this cluster.
    """

    target: RecoveryTarget
    which: Which
    database: str
    system_identifier: str
    timeline: int
    histories: tuple[int, ...]
    chain: tuple[PhysicalEntry, ...]
    segments: tuple[Archived, ...]
    end: Lsn
    last_commit: Commit | None
    stop_at: Lsn | None
    to_the_end: bool
    planned_at: datetime
    expected_loss_seconds: float | None
    warnings: tuple[str, ...] = ()
    estimated_seconds: float | None = None

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

    The newest sound backup that is consistent before the target, on the wanted timeline (else the newest). Without
    `which` the store is `vault.best`. Raises ConfigError (`TARGET_IN_FUTURE`); ProofFailed, whose hint names the
    nearest points that can be recovered to: `NO_BASE_BACKUP`, `TARGET_BEFORE_FIRST_BACKUP`, `TARGET_AFTER_END`,
    `WAL_GAP`, `TARGET_NOT_COVERED`, `RESTORE_POINT_UNKNOWN`, `TIMELINE_UNKNOWN`; StoreError, NotVerifiable,
    ProgramError.
    """
    if target.at is not None and target.at > now:
        raise ConfigError(
            "TARGET_IN_FUTURE",
            f"{target} is in the future: it is {moment_text(now)} now.",
            "Write a time that has passed, with its zone, or latest.",
        )
    which = which or vault.best
    target = recorded_target(vault.store(which), settings.name, target)
    clusters = survey(settings, vault.store(which))
    if not any(base.unusable is None for surveyed in clusters for base in surveyed.cluster.bases):
        raise no_base_backup(clusters, settings.name, vault.store(which))
    for surveyed in clusters:
        timeline = _timeline(surveyed, target)
        found = None if timeline is None else _Search(surveyed, target, timeline).find()
        if found is not None:
            if surveyed is not clusters[0]:
                found = replace(found, warnings=(*found.warnings, _of_an_older_cluster(clusters[0], surveyed)))
            drills = read_drills(vault.store(which), settings.name, newest=_DRILLS)
            return _plan(settings, which, target, surveyed, found, drills=drills, now=now)
    raise explain_uncovered(clusters, target)


@dataclass(frozen=True)
class _Found:
    """A reach that holds the target, and how its log ends."""

    reach: Reach
    end: LogEnd
    stop_at: Lsn | None
    to_the_end: bool
    warnings: tuple[str, ...] = ()


class _Search:
    """Looks for the newest base backup from which the target can be reached, on the way to one timeline."""

    def __init__(self, surveyed: Surveyed, target: RecoveryTarget, timeline: int) -> None:
        self._surveyed = surveyed
        self._target = target
        usable = [reach for reach in reaches(surveyed.cluster, timeline) if reach.base.unusable is None]
        # The newest first; of two that end at the same place, the one that was proved.
        self._reaches = sorted(
            usable, key=lambda reach: (reach.base.stop, reach.base.verdict is Verdict.PROVEN), reverse=True
        )

    def find(self) -> _Found | None:
        """None when no base backup leads to the target."""
        if self._target.at is not None:
            return self._time(self._target.at)
        if self._target.lsn is not None:
            return self._position(self._target.lsn)
        return self._latest() if self._target.name is None else self._point(self._target.name)

    def _latest(self) -> _Found | None:
        if not self._reaches:
            return None
        reach = self._reaches[0]
        return _Found(reach, self._surveyed.end_of(reach), None, True)

    def _time(self, at: datetime) -> _Found | None:
        reach = next((reach for reach in self._reaches if reach.base.consistent_at <= at), None)
        if reach is None:
            return None
        end = self._surveyed.end_of(reach)
        if at > latest_time(self._surveyed, reach, end):
            return None
        # Nothing was committed behind the target: a server that looks for a later commit would never find one.
        last = end.latest_at
        return _Found(reach, end, None, last is None or at > last or (at == last and self._target.inclusive))

    def _position(self, lsn: Lsn) -> _Found | None:
        reach = next((reach for reach in self._reaches if reach.base.stop <= lsn), None)
        if reach is None or lsn > reach.end:
            return None
        end = self._surveyed.end_of(reach)
        if lsn > end.end:
            return None
        return _Found(reach, end, lsn, not self._surveyed.reader.has_record_from(end.segments, lsn, end.end))

    def _point(self, name: str) -> _Found | None:
        """Every restore point of the name, from the newest base backup back: the log has to be read for it."""
        newer: Lsn | None = None
        for reach in self._reaches:
            end = self._surveyed.end_of(reach)
            wanted = [a for a in end.segments if newer is None or a.segment.start < newer]
            points = self._surveyed.reader.restore_points(wanted, end.end, name)
            points = tuple(point for point in points if point.lsn >= reach.base.stop)
            if points:
                several = (
                    f"{len(points)} restore points have this name: the first one behind the base backup is used.",
                )
                return _Found(reach, end, points[0].lsn, False, several if len(points) > 1 else ())
            newer = reach.base.stop
        return None


def _of_an_older_cluster(newest: Surveyed, used: Surveyed) -> str:
    """A database that was made anew, and has no base backup yet: what can be recovered is the one before."""
    return (
        f"The newest cluster in the store, {newest.cluster.system_identifier}, does not lead there: this is"
        f" {used.cluster.system_identifier}, of before. What was written since is not in it."
    )


def _timeline(surveyed: Surveyed, target: RecoveryTarget) -> int | None:
    """The timeline to follow: the wanted one, None where the cluster does not have it, or the newest."""
    known = {log.number for log in surveyed.cluster.timelines} | {base.timeline for base in surveyed.cluster.bases}
    if target.timeline is None:
        return max(known, default=None)
    return target.timeline if target.timeline in known else None


def _plan(
    settings: DatabaseSettings,
    which: Which,
    target: RecoveryTarget,
    surveyed: Surveyed,
    found: _Found,
    *,
    drills: Sequence[DrillRecord],
    now: datetime,
) -> RecoveryPlan:
    reach, end = found.reach, found.end
    segments, log_end, warnings = end.segments, end.end, list(found.warnings)
    if end.damage is not None:
        warnings.append(f"{end.damage.code}: {end.damage.message} Log from there on is not used.")
    if target.kind == "latest" and reach.beyond is not None:
        warnings.append(f"There is more log from {reach.beyond} on, but a gap before it: it cannot be used.")
    if found.stop_at is not None and not found.to_the_end:
        # The record that is looked for may go on in the segment behind the one that it begins in.
        last = Segment.at(found.stop_at, 1, surveyed.cluster.segment_bytes).number + 1
        segments = tuple(archived for archived in segments if archived.segment.number <= last)
    latest = latest_time(surveyed, reach, end)
    point = target.at or (latest if found.to_the_end else None)
    return RecoveryPlan(
        target=target,
        which=which,
        database=settings.name,
        system_identifier=surveyed.cluster.system_identifier,
        timeline=reach.timeline,
        histories=tuple(log.number for log in surveyed.cluster.timelines if log.ancestors),
        chain=surveyed.chain(reach.base),
        segments=segments,
        end=log_end,
        last_commit=end.last,
        stop_at=found.stop_at,
        to_the_end=found.to_the_end,
        planned_at=now,
        expected_loss_seconds=None if point is None else max(0.0, (now - point).total_seconds()),
        warnings=tuple(warnings),
        estimated_seconds=estimate(drills, surveyed.cluster.system_identifier, len(segments)),
    )


def estimate(drills: Sequence[DrillRecord], system_identifier: str, segments: int) -> float | None:
    """Seconds that a recovery may take: as the newest good drill of the cluster did, its replay by so many segments."""
    good = [d for d in drills if d.system_identifier == system_identifier and d.verdict is Verdict.PROVEN]
    if not good:
        return None
    taken = {stage: good[-1].stage_seconds.get(stage, 0.0) for stage in _DRILLED}
    return sum(taken.values()) + taken["replay"] * (segments / max(1, good[-1].segments) - 1)
