"""Stores files while a program still writes them, so that storing ends when the program does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from gs_backup_assets.catalogue.manifest import StoredFile
from gs_backup_assets.recovery.stored.storing import FILES_AT_A_TIME
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.vault.store import Source

_POLL_SECONDS = 0.01
Put = Callable[[Source, str], StoredFile]


class _Stopped(Exception):
    """Raised in a follower when the work it belongs to has ended without success: what it stores is given up."""


class Growing:
    """A file that is being written, as a source: at its end it waits for more until the file is `complete`."""

    def __init__(self, path: Path, complete: threading.Event, stopped: threading.Event) -> None:
        self._stream = open(path, "rb", buffering=0)
        self._complete = complete
        self._stopped = stopped

    def read(self, size: int, /) -> bytes:
        """`size` bytes; fewer at the end of a complete file only."""
        pieces: list[bytes] = []
        left = size
        while left:
            if self._stopped.is_set():
                raise _Stopped
            complete = self._complete.is_set()  # asked first: what was written before that is read after it
            piece = self._stream.read(left) or b""
            if piece:
                pieces.append(piece)
                left -= len(piece)
            elif complete:
                break
            else:
                time.sleep(_POLL_SECONDS)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """To be called by whoever follows."""
        self._stream.close()


class Follower:
    """Follows the files that a program writes into a folder, one after the other, and gives each to `put`.

    As a context manager: leaving it with an error ends everything that is still being stored.
    """

    def __init__(self, put: Put) -> None:
        self._put = put
        self._pool = Threads(FILES_AT_A_TIME, "store")
        self._stopped = threading.Event()
        self._complete: dict[str, threading.Event] = {}
        self._stored: list[Future[StoredFile]] = []

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._stopped.set()
        self._pool.end(error)

    def look(self, files: list[Path]) -> None:
        """Tell of all files that are there now; call it often. Raises what storing one of them raised."""
        new = [path for path in files if path.name not in self._complete]
        if new:  # the program begins a file when it has finished the one before
            for complete in self._complete.values():
                complete.set()
        for path in new:
            complete = self._complete[path.name] = threading.Event()
            self._stored.append(self._pool.submit(self._follow, path, complete))
        for stored in self._stored:
            if stored.done():
                stored.result()

    def finish(self, files: list[Path]) -> tuple[StoredFile, ...]:
        """The program has ended well, with these files: what was stored. Raises what storing raised."""
        self.look(files)
        for complete in self._complete.values():
            complete.set()
        return tuple(stored.result() for stored in self._stored)

    def _follow(self, path: Path, complete: threading.Event) -> StoredFile:
        source = Growing(path, complete, self._stopped)
        try:
            return self._put(source, path.name)
        finally:
            source.close()
