"""Says why a target cannot be recovered to, and which points before and after it can."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gs_backup_assets.catalogue.coverage import Window
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget, moment_text
from gs_backup_assets.errors import ProofFailed
from gs_backup_assets.recovery.point_in_time.coverage_survey import Surveyed, windows_with_times
from gs_backup_assets.vault.store import Store


def no_base_backup(clusters: Iterable[Surveyed], database: str, store: Store) -> ProofFailed:
    """The error of a store without any base backup that can be used."""
    unusable = [base for surveyed in clusters for base in surveyed.cluster.bases]
    words = f"{store.describe()} has no base backup of {database} that can be used."
    if unusable:
        newest = max(unusable, key=lambda base: base.consistent_at)
        words += f" The newest is {newest.id}: {newest.unusable}."
    return ProofFailed(
        "NO_BASE_BACKUP",
        words,
        "Look into the other store (--from); a dump brings the day back that it was taken on: `gs-backup restore`.",
    )


def explain_uncovered(clusters: Sequence[Surveyed], target: RecoveryTarget) -> ProofFailed:
    """The error of a target that no base backup leads to. Reads the ends of all windows from the log."""
    windows = sorted(
        (window for surveyed in clusters for window in windows_with_times(surveyed)),
        key=lambda window: (window.starts_at, window.end),
    )
    wanted = target.timeline
    if wanted is not None:
        mine = [window for window in windows if window.timeline == wanted]
        if not mine and not _has_timeline(clusters, wanted):
            words = f"Nothing is archived of timeline {wanted}."
            return ProofFailed("TIMELINE_UNKNOWN", words, _timelines(windows))
    if target.name is not None:
        return ProofFailed(
            "RESTORE_POINT_UNKNOWN",
            f"No restore point {target.name!r} is in the log that can be replayed.",
            f"{_spans(windows)} Names are exact; on another timeline it is found with --timeline N.",
        )
    if target.kind == "latest":
        words = f"No base backup that can be used leads to {f'timeline {wanted}' if wanted else 'the newest timeline'}."
        return ProofFailed("TARGET_NOT_COVERED", words, f"{_timelines(windows)} One is followed with --timeline N.")
    before, after = _nearest(windows, target)
    hint = " ".join([_point_words("before", before), _point_words("after", after)]).strip()
    if not windows:
        return ProofFailed("TARGET_NOT_COVERED", f"{target} cannot be recovered to.", "`gs-backup coverage` says why.")
    if before is None:
        words = f"{target} is before the first base backup that can be used was complete."
        return ProofFailed("TARGET_BEFORE_FIRST_BACKUP", words, hint)
    holding = next((window for window in windows if _holds(window, target)), None)
    if holding is not None:
        words = f"{target} is not on timeline {wanted or _newest(windows).timeline}."
        return ProofFailed("TARGET_NOT_COVERED", words, f"Timeline {holding.timeline} has it: --timeline N. {hint}")
    if after is None and before.gap is None:
        damage = f" {before.damage.message}" if before.damage is not None else ""
        words = f"{target} is after the last point that can be recovered to.{damage}"
        return ProofFailed("TARGET_AFTER_END", words, hint)
    missing = "" if before.gap is None else f": {before.gap.missing} is not in the archive, or not whole"
    words = f"{target} lies where log is missing{missing}."
    return ProofFailed("WAL_GAP", words, hint)


def _has_timeline(clusters: Iterable[Surveyed], timeline: int) -> bool:
    return any(
        timeline in [*(log.number for log in s.cluster.timelines), *(base.timeline for base in s.cluster.bases)]
        for s in clusters
    )


def _newest(windows: Sequence[Window]) -> Window:
    return max(windows, key=lambda window: (window.timeline, window.end))


def _holds(window: Window, target: RecoveryTarget) -> bool:
    if target.at is not None:
        return window.ends_at is not None and window.starts_at <= target.at <= window.ends_at
    return target.lsn is not None and window.start <= target.lsn <= window.end


def _nearest(windows: Sequence[Window], target: RecoveryTarget) -> tuple[Window | None, Window | None]:
    """The window that ends last before the target, or holds it, and the one that begins first behind it."""
    if target.at is not None:
        at = target.at
        earlier = [window for window in windows if window.starts_at <= at]
        later = [window for window in windows if window.starts_at > at]
        before = max(earlier, key=lambda window: (window.ends_at or window.starts_at, window.end), default=None)
        return before, min(later, key=lambda window: window.starts_at, default=None)
    lsn = target.lsn
    assert lsn is not None
    earlier = [window for window in windows if window.start <= lsn]
    later = [window for window in windows if window.start > lsn]
    before = max(earlier, key=lambda window: window.end, default=None)
    return before, min(later, key=lambda window: window.start, default=None)


def _point_words(side: str, window: Window | None) -> str:
    if window is None:
        return f"There is no point {side} it that can be recovered to."
    moment, lsn = (window.ends_at, window.end) if side == "before" else (window.starts_at, window.start)
    assert moment is not None
    return f"The nearest point {side} it: {moment_text(moment)}, {lsn} on timeline {window.timeline}."


def _timelines(windows: Sequence[Window]) -> str:
    known = ", ".join(map(str, sorted({window.timeline for window in windows})))
    return f"Timelines that can be recovered to: {known or 'none'}."


def _spans(windows: Sequence[Window]) -> str:
    spans = [f"{moment_text(w.starts_at)} to {moment_text(w.ends_at or w.starts_at)}" for w in windows]
    return f"It covers {'; '.join(spans)}." if spans else ""
