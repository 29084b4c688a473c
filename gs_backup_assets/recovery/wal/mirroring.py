"""The stream's copy off-site: what it archives is brought to the other store as well, now and then, beside it."""

from __future__ import annotations

from concurrent.futures import Future

from gs_backup_assets.errors import BackupError
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.wal.offsite import MirroredWal, Place, mirror_wal
from gs_backup_assets.recovery.wal.words import Words
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.vault.store import Store

# Months of log are thousands of requests to list: what was compared once is left alone for so long.
_COMPARED_SECONDS = 6 * 3600.0


class Mirror:
    """Copies one at a time, in a thread of its own: the other store may be far away, or hang.

    The first copy compares both archives whole, and one every six hours; the others look only at what is newer.
    Without an off-site store there is nothing to do. What fails is told once, and tried again at the next turn.
    """

    def __init__(self, primary: Store, offsite: Store | None, database: str, every: float) -> None:
        self._primary, self.offsite, self._database, self._every = primary, offsite, database, every
        self._pool = Threads(1, "wal-mirror")
        self._copying: Future[MirroredWal] | None = None
        self._places: tuple[Place, ...] = ()
        self._last = self._compared = float("-inf")

    @property
    def idle(self) -> bool:
        return self._copying is None or self._copying.done()

    def step(self, now: float, words: Words) -> None:
        """Tell what the last copy came to, and begin the next one when it is time; `now` in seconds."""
        self.collect(words)
        if self.idle and now - self._last >= self._every:
            self.begin(now)

    def begin(self, now: float) -> None:
        """Begin a copy."""
        if self.offsite is None:
            return
        self._last = now
        if now - self._compared >= _COMPARED_SECONDS:
            self._places, self._compared = (), now
        stores = self._primary, self.offsite
        self._copying = self._pool.submit(mirror_wal, *stores, self._database, Progress(), places=self._places)

    def collect(self, words: Words) -> None:
        """Tell what a copy that has ended came to."""
        if self._copying is None or not self._copying.done():
            return
        copying, self._copying = self._copying, None
        try:
            done = copying.result()
        except BackupError as error:
            words.trouble("offsite", error)
            return
        words.well("offsite")
        self._places = self._places or done.newest
        for finding in done.findings:
            words.say_once(finding.code, f"{finding.message} {finding.hint}")
