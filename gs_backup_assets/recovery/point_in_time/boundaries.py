"""What was committed just before and just after a point, read from the archived log, and whether a server agrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, not_verified
from gs_backup_assets.catalogue.wal_archive import Archived, WalArchive
from gs_backup_assets.postgres.connection import Connection, query
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.postgres.waldump import Commit, read_wal
from gs_backup_assets.recovery.point_in_time.recover import Achieved
from gs_backup_assets.system.workspace import workspace

_MOST = 1000  # commits on each side of the point that the server is asked about
_MOST_FINDINGS = 20
_FORGOTTEN = "forgotten"
_HALF = 1 << 31
_WHOLE = 1 << 32
_LOST = "Do not rely on a recovery to this point. Keep the report, and compare the archived log with the other store."


@dataclass(frozen=True)
class Boundaries:
    """Commits by the archived log, in its order: the last that the base backup itself has and those just before the
    point, and those just behind it."""

    before: tuple[Commit, ...]
    after: tuple[Commit, ...]


def read_boundaries(
    archive: WalArchive,
    toolchain: Toolchain,
    segments: Sequence[Archived],
    target: RecoveryTarget,
    stop_at: Lsn | None,
    *,
    base: int = 0,
) -> Boundaries:
    """Look for the point in the log: bisects the segments, and reads those around it, as far as there are commits.

    `segments` follow each other; that with the number `base` is where the base backup ends. `stop_at` is the position
    of a target that is no time. Without a target, or for one behind all commits, nothing comes after it. Raises what
    reading the archive raises.
    """
    if not segments:
        return Boundaries((), ())
    with workspace("boundaries") as folder:
        log = _Log(archive, toolchain, segments, folder)
        if stop_at is not None:
            place = max((i for i, a in enumerate(segments) if a.segment.start <= stop_at), default=0)
            commits = log.around(place)
            cut = next((i for i, c in enumerate(commits) if c.lsn >= stop_at), len(commits))
        elif target.at is not None:
            at = target.at
            place = log.first_after(at)
            commits = log.around(place)
            cut = next((i for i, c in enumerate(commits) if _behind(c.at, at, target.inclusive)), len(commits))
        else:
            commits = log.around(len(segments) - 1)
            cut = len(commits)
        held = log.newest_before(base)
    limit = commits[cut].lsn if cut < len(commits) else None
    there = {c.lsn for c in commits}
    early = [c for c in held if (limit is None or c.lsn < limit) and c.lsn not in there]
    return Boundaries((*early[-_MOST:], *commits[:cut][-_MOST:]), commits[cut:][:_MOST])


def _behind(moment: datetime, target: datetime, inclusive: bool) -> bool:
    return moment > target or (moment == target and not inclusive)


class _Log:
    """Segments of an archive, fetched when they are looked at. No more than two are kept: there may be thousands."""

    def __init__(self, archive: WalArchive, toolchain: Toolchain, segments: Sequence[Archived], folder: Path) -> None:
        self._archive = archive
        self._toolchain = toolchain
        self._segments = segments
        self._folder = folder
        self._known: dict[int, tuple[Commit, ...]] = {}
        # The newest timeline's number in every name: its log includes that of those before it.
        self._timeline = segments[-1].segment.timeline

    def commits(self, index: int) -> tuple[Commit, ...]:
        """The commits whose records begin in one segment."""
        if index not in self._known:
            end = self._segments[index].segment.end
            self._known[index] = tuple(commit for commit in self._read(index) if commit.lsn < end)
        return self._known[index]

    def newest_before(self, index: int) -> tuple[Commit, ...]:
        """The commits of the nearest segment before one that has some; its own where there is none."""
        return self.commits(next(filter(self.commits, range(index - 1, -1, -1)), index))

    def around(self, index: int) -> tuple[Commit, ...]:
        """The commits of a segment and its neighbours; where those have none, as far as the nearest that have some."""
        count = len(self._segments)
        low = next(filter(self.commits, range(index - 1, -1, -1)), 0)
        high = next(filter(self.commits, range(index + 1, count)), count - 1)
        return tuple(commit for i in range(low, high + 1) for commit in self.commits(i))

    def first_after(self, at: datetime) -> int:
        """The first segment with a commit behind a moment; behind all commits the one after the last that has some."""
        low, high = 0, len(self._segments) - 1
        while low < high:
            middle = (low + high) // 2
            look = next((i for i in range(middle, high + 1) if self.commits(i)), None)
            if look is None or max(commit.at for commit in self.commits(look)) > at:
                high = middle
            else:
                low = look + 1 if look < high else high
        # Of those without commits the bisection takes the first: what is looked for is behind them.
        return next(filter(self.commits, range(low, len(self._segments))), low)

    def _read(self, index: int) -> tuple[Commit, ...]:
        """What begins in a segment and in the next one: a record may begin in one and end in the other."""
        pair = self._segments[index : index + 2]
        segments = [archived.segment.on(self._timeline) for archived in pair]
        for path in self._folder.iterdir():
            if path.name not in (segment.name for segment in segments):
                path.unlink()
        for archived, segment in zip(pair, segments, strict=True):
            path = self._folder / segment.name
            if not path.exists():
                path.write_bytes(self._archive.read(archived))
        end = pair[-1].end if pair[-1].partial else None
        return read_wal(self._toolchain, self._folder, segments[0], segments[-1], end=end).commits


def target_reached(boundaries: Boundaries, achieved: Achieved) -> CheckResult:
    """Whether the replay ended behind the last commit before the point, and not behind the first one after it."""
    findings = []
    last, first = boundaries.before[-1:], boundaries.after[:1]
    if last and achieved.lsn <= last[0].lsn:
        words = f"The replay ended at {achieved.lsn}, before the commit of {last[0].xid} at {last[0].lsn}."
        findings.append(Finding(code="TARGET_NOT_REACHED", message=words, hint=_LOST))
    if first and achieved.lsn > first[0].lsn:
        words = f"The replay ended at {achieved.lsn}, behind the commit of {first[0].xid} at {first[0].lsn}."
        findings.append(Finding(code="TARGET_PASSED", message=words, hint=_LOST))
    summary = f"the replay ended at {achieved.lsn}" + (f", the last commit was at {achieved.at}" if achieved.at else "")
    status = Status.FAILED if findings else Status.PASSED
    return CheckResult(name="target_reached", status=status, summary=summary, findings=tuple(findings))


def commits_before_present(connection: Connection, commits: Sequence[Commit]) -> CheckResult:
    """Whether the server knows the transactions as committed. Ask before it begins transactions of its own."""
    name = "commits_before_present"
    if not commits:
        reason = "the archived log has no commit before the point"
        return not_verified(name, reason, code="NO_COMMITS", hint="Choose a later point.")
    known = _statuses(connection, commits)
    # Of transactions before the oldest one that may still matter, the server has thrown its books away.
    missing = [commit for commit in commits if known[commit] not in ("committed", _FORGOTTEN)]
    asked = [commit for commit in commits if known[commit] != _FORGOTTEN]
    if not asked:
        reason = f"the server has no record any more of the {len(commits)} transactions before the point"
        return not_verified(name, reason, code="COMMITS_FORGOTTEN", hint="Choose a later point.")
    findings = tuple(
        Finding(
            code="COMMIT_MISSING",
            message=f"Transaction {c.xid}, committed at {c.at} ({c.lsn}), is not in the recovered cluster.",
            hint=_LOST,
        )
        for c in missing[:_MOST_FINDINGS]
    )
    metrics: dict[str, float | int] = {"commits_before": len(asked), "commits_missing": len(missing)}
    summary = f"{len(missing)} of {len(asked)} commits before the point are missing"
    if not missing:
        summary = f"all {len(asked)} commits before the point that were asked for are there"
    status = Status.FAILED if missing else Status.PASSED
    return CheckResult(name=name, status=status, summary=summary, findings=findings, metrics=metrics)


def commits_after_absent(connection: Connection, commits: Sequence[Commit]) -> CheckResult:
    """Whether the server knows none of the transactions as committed. Ask before it begins any of its own."""
    known = _statuses(connection, commits)
    there = [commit for commit in commits if known[commit] == "committed"]
    findings = tuple(
        Finding(
            code="COMMIT_UNEXPECTED",
            message=f"Transaction {c.xid}, committed at {c.at} ({c.lsn}), is in the recovered cluster.",
            hint="The server went beyond the target: what was to be undone is still there.",
        )
        for c in there[:_MOST_FINDINGS]
    )
    summary = f"{len(there)} of {len(commits)} commits behind the point are there"
    if not there:
        summary = f"none of {len(commits)} commits behind the point is there" if commits else "nothing came after it"
    return CheckResult(
        name="commits_after_absent",
        status=Status.FAILED if there else Status.PASSED,
        summary=summary,
        findings=findings,
        metrics={"commits_after": len(commits), "commits_unexpected": len(there)},
    )


def _statuses(connection: Connection, commits: Sequence[Commit]) -> dict[Commit, str]:
    """What the server's own books say of transactions (pg_xact_status)."""
    ((upcoming,),) = query(connection, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    # A commit record has the lower 32 bits: the nearest number with them is meant.
    full = {upcoming + (commit.xid - upcoming + _HALF) % _WHOLE - _HALF: commit for commit in commits}
    past = [number for number in full if 0 < number < upcoming]  # to ask for a number of the future is an error
    sql = "SELECT n, coalesce(pg_xact_status(n::text::xid8), %s) FROM unnest(%s::bigint[]) AS n"
    known = {full[number]: str(status) for number, status in query(connection, sql, (_FORGOTTEN, past))}
    return {commit: known.get(commit, "in the future") for commit in commits}
