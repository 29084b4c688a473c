"""The spool: the log that was received and is not yet in the archive. A folder of this machine that outlives us.

<spool>/<database>/lock                                 held by the one stream that runs
                  /<system identifier>/receiving/       pg_receivewal's own
                                      /waiting/         whole files from before it was started again
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gs_backup_assets.errors import ConfigError, ProgramError
from gs_backup_assets.postgres.wal import Segment, history_name, is_history, is_segment
from gs_backup_assets.system.programs import group_alive

_PARTIAL = ".partial"
_LOCK = "lock"
_RECEIVER = "receiver"


class SpoolLock:
    """The right to stream into a spool; held by one process at a time. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> SpoolLock:
        self.renew()
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def renew(self) -> None:
        """Take the lock, again where somebody removed its file: what is held then is a file that nobody else finds.

        Raises ConfigError (`WAL_STREAM_RUNNING`), ProgramError (`SPOOL_UNUSABLE`).
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            if self._descriptor >= 0 and _is_same(self._descriptor, self._folder / _LOCK):
                return
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable(self._folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(
                "WAL_STREAM_RUNNING",
                f"Another stream of this database works in {self._folder}.",
                "One is enough: look at it with `gs-backup wal status`, or end it first.",
            ) from None
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor


def clusters_in(folder: Path) -> tuple[str, ...]:
    """System identifiers of the clusters that were streamed into a spool."""
    return tuple(sorted(path.name for path in folder.glob("*") if path.is_dir() and path.name.isdigit()))


class Spool:
    """One cluster's part of the spool. Every OSError comes out as ProgramError (`SPOOL_FULL`, `SPOOL_UNUSABLE`)."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.folder = folder
        self.receiving = folder / "receiving"
        self.waiting = folder / "waiting"
        self._size = segment_bytes

    def open(self) -> None:
        """Make the folders where they are missing: somebody may have removed them while we run."""
        with _guarded(self.folder):
            for folder in (self.folder, self.receiving, self.waiting):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def there(self) -> bool:
        """Whether pg_receivewal's folder still is where it was."""
        return self.receiving.is_dir()

    def whole(self) -> dict[Segment, Path]:
        """Finished segments, in order."""
        found: dict[Segment, Path] = {}
        for path in self._files():
            # A file of another size is one that the disk had no room for; pg_receivewal passes it over as well.
            if is_segment(path.name) and _size_of(path) == self._size:
                found[Segment.parse(path.name, self._size)] = path
        return dict(sorted(found.items()))

    def histories(self) -> dict[int, Path]:
        """Timeline histories that pg_receivewal fetched."""
        return {int(path.name[:8], 16): path for path in self._files() if is_history(path.name)}

    def partials(self) -> dict[Segment, Path]:
        """Segments that were begun, in order: the newest is being written, those before it are ends of timelines."""
        found: dict[Segment, Path] = {}
        for path in self._files():
            name = path.name.removesuffix(_PARTIAL)
            if name != path.name and is_segment(name) and _size_of(path) == self._size:
                found[Segment.parse(name, self._size)] = path
        return dict(sorted(found.items(), key=lambda item: (item[0].number, item[0].timeline)))

    def begin_at(self, segment: Segment) -> None:
        """Arrange that pg_receivewal begins with a segment: it takes the newest file in its folder for where it was.

        An empty `.partial` file says "begin here". What else is there waits in the other folder to be archived, but
        for files that were never finished being made.
        """
        self.open()
        wanted = self.receiving / f"{segment.name}{_PARTIAL}"
        with _guarded(self.folder):
            for path in self.receiving.iterdir():
                if path == wanted:
                    if _size_of(path) != self._size:  # it was killed, or found no room, while it made the file
                        os.truncate(path, 0)
                elif is_history(path.name) or _size_of(path) == self._size:
                    path.rename(self.waiting / path.name)
                else:
                    path.unlink(missing_ok=True)
            if not wanted.exists():
                os.close(os.open(wanted, os.O_WRONLY | os.O_CREAT, 0o600))

    def add_history(self, timeline: int, data: bytes) -> None:
        """Put a history beside the files that wait to be archived: pg_receivewal fetches it only on its way."""
        with _guarded(self.folder):
            (self.waiting / history_name(timeline)).write_bytes(data)

    def remove(self, path: Path) -> None:
        """Remove what is in the archive."""
        with _guarded(self.folder), suppress(FileNotFoundError):
            path.unlink()

    def read(self, path: Path) -> bytes:
        """A file's bytes; none when it is gone."""
        with _guarded(self.folder):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return b""

    def note_receiver(self, group: int) -> None:
        """Remember pg_receivewal's process group, for the case that we and our guardian are killed together."""
        with _guarded(self.folder):
            (self.folder / _RECEIVER).write_text(str(group), encoding="ascii")

    def receiver_left(self) -> int | None:
        """The process group of a pg_receivewal that still writes into this folder, of a stream that was killed."""
        try:
            group = int((self.folder / _RECEIVER).read_text(encoding="ascii"))
            argv = Path(f"/proc/{group}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return group if os.fsencode(self.receiving) in argv and group_alive(group) else None

    def _files(self) -> list[Path]:
        found: list[Path] = []
        with _guarded(self.folder):
            for folder in (self.waiting, self.receiving):
                with suppress(FileNotFoundError):
                    found += folder.iterdir()
        return found


def unusable(folder: Path, error: OSError) -> ProgramError:
    """The error of a spool that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ProgramError(
            "SPOOL_FULL",
            f"No space is left in the spool {folder}.",
            "The slot keeps the log at the server meanwhile; free space, and find why the store takes none.",
        )
    return ProgramError(
        "SPOOL_UNUSABLE",
        f"The spool {folder} cannot be used: {error.strerror or error}.",
        "Check that the folder is mounted and that this account may write to it; wal.spool names another.",
    )


@contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unusable(folder, error) from error


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # it got its final name this moment
        return None


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
