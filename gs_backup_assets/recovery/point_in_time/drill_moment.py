"""Chooses the moment of a drill among those that can be recovered to: one before which something was committed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from gs_backup_assets.catalogue.coverage import Window, reaches
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.recovery.point_in_time.coverage_survey import Surveyed, survey, windows_with_times
from gs_backup_assets.recovery.wal.log_end import DAMAGE
from gs_backup_assets.vault.store import Store


@dataclass(frozen=True)
class Covered:
    """What can be recovered to on the newest timeline of the cluster in use; no windows where there is nothing."""

    windows: tuple[Window, ...] = ()
    surveyed: Surveyed | None = None

    @property
    def starts_at(self) -> datetime | None:
        return min((window.starts_at for window in self.windows), default=None)

    @property
    def ends_at(self) -> datetime | None:
        return max((_end_of(window) for window in self.windows), default=None)

    def draw(self, rng: random.Random) -> RecoveryTarget:
        """Any moment from a window's first commit on, each as likely as the other: before it there is none to prove.

        Any moment at all where no window has a commit; the newest point where there is no window. Raises what reading
        the log does, but for damaged segments: those are left for the drill to find.
        """
        begun = [(start, _end_of(window)) for window in self.windows if (start := self._first_commit(window))]
        spans = begun or [(window.starts_at, _end_of(window)) for window in self.windows]
        left = rng.uniform(0, sum((end - start).total_seconds() for start, end in spans))
        for start, end in spans:
            seconds = (end - start).total_seconds()
            if left <= seconds:
                return RecoveryTarget(at=start + timedelta(seconds=left))
            left -= seconds
        return RecoveryTarget()

    def _first_commit(self, window: Window) -> datetime | None:
        """The earliest moment of a window that has a commit before it; None when nothing was committed in it."""
        assert self.surveyed is not None
        reach = next(r for r in reaches(self.surveyed.cluster, window.timeline) if r.base == window.bases[0])
        segments = [archived for archived in reach.segments if archived.segment.start < window.end]
        try:
            first = self.surveyed.reader.first_commit(segments, window.start, window.end)
        except StoreError as error:
            if error.code not in DAMAGE:
                raise
            return window.starts_at
        # The server's clock is read after the backup: what was committed meanwhile has an earlier time.
        return None if first is None else min(max(first.at, window.starts_at), _end_of(window))


def covered_now(settings: DatabaseSettings, store: Store) -> Covered:
    """Look at what a store has. Raises StoreError, NotVerifiable, ProgramError."""
    clusters = survey(settings, store)
    if not clusters:
        return Covered()
    found = windows_with_times(clusters[0])
    newest = max((window.timeline for window in found), default=0)
    return Covered(tuple(window for window in found if window.timeline == newest), clusters[0])


def _end_of(window: Window) -> datetime:
    return window.ends_at or window.starts_at
