"""What an earlier stream left in the spool: brought to the archive even if its server is gone for good."""

from __future__ import annotations

from concurrent.futures import Future

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError
from gs_backup_assets.postgres.wal import is_segment
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.recovery.wal.shipping import Shipper
from gs_backup_assets.recovery.wal.spool import Spool, clusters_in
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.vault.store import Store

_PAUSE = 5.0


class Leftover:
    """One cluster's leftovers. `step` is called often; begun segments come after the whole ones."""

    def __init__(self, settings: DatabaseSettings, store: Store, system_identifier: str, segment_bytes: int) -> None:
        self.system_identifier = system_identifier
        self._spool = Spool(settings.spool_path / system_identifier, segment_bytes)
        self._archive = open_archive(settings, store, system_identifier, writing=True, segment_bytes=segment_bytes)
        self._shipper = Shipper(self._spool, self._archive, set(), set())
        self._pool = Threads(1, "wal-left")
        self._parts: Future[None] | None = None
        self._again = 0.0

    def step(self, now: float) -> None:
        """Go on. Raises as `Shipper.step`."""
        self._shipper.step(now)
        if self._shipper.idle and now >= self._again and (self._parts is None or _failed(self._parts)):
            self._again = now + _PAUSE
            self._parts = self._pool.submit(self._bring_parts)

    def _bring_parts(self) -> None:
        for segment, path in self._spool.partials().items():
            data = self._spool.read(path)
            if len(data) == segment.size and data.strip(b"\0"):
                self._archive.put_partial(segment, data)


def leftovers(settings: DatabaseSettings, store: Store) -> list[Leftover]:
    """One for each cluster of which there is anything in the spool."""
    found = []
    for system in clusters_in(settings.spool_path):
        sizes = {
            path.stat().st_size
            for path in (settings.spool_path / system).glob("*/*")
            if is_segment(path.name.removesuffix(".partial"))
        }
        if size := max(sizes, default=0):
            found.append(Leftover(settings, store, system, size))
    return found


def _failed(job: Future[None]) -> bool:
    """Whether it is to be tried again: a store may be away, everything else is raised."""
    if not job.done():
        return False
    error = job.exception()
    if error is not None and not isinstance(error, BackupError):
        raise error
    return error is not None
