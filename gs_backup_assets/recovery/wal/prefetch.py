"""Brings the log of a recovery to the server: threads read ahead, and a tiny restore_command takes what is there.

The server asks its restore_command for one file after the other, and waits. A program that starts Python for each, or
that only then begins to fetch, takes longer than the replay. This process reads ahead instead, checks and decrypts; the
command is a shell script of a few lines. The log is changed in one thing: a tablespace that it makes is made inside of
the data directory, and never where production has its own. They meet in a private folder:

    planned/<file>    what will come; the script fails at once for anything else, as a restore_command has to
    asked/<file>      what the server waits for at this moment
    ready/<file>      what is there, whole; a segment is moved away by the script, a history is copied
    failed            nothing more comes: the script ends with a status by which the server gives up (above 125), so
                      that trouble is not taken for the end of the log (PostgreSQL manual, "restore_command")
    ended             the same for a server that looks for a target: to it, the log ends there. It gives up by itself
                      when it has not reached the target, and goes its way when it had only read ahead
"""

from __future__ import annotations

import errno
import os
import shlex
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from gs_backup_assets.catalogue.wal_archive import Archived, WalArchive
from gs_backup_assets.errors import BackupError, ProgramError
from gs_backup_assets.postgres.wal import history_name
from gs_backup_assets.postgres.wal_tablespaces import inside_of_the_data_directory
from gs_backup_assets.system.account import Account, current_account
from gs_backup_assets.system.threads import Threads

_SCRIPT = r"""
# restore_command of a recovery by gs-backup: $1 is the wanted file's name, $2 the path to put it to.
folder=${0%/*}
take() {
    [ -e "$folder/ready/$1" ] || return 0
    case $1 in
        *.history) cp "$folder/ready/$1" "$2" || exit 200 ;;
        *) mv "$folder/ready/$1" "$2" || exit 200 ;;
    esac
    exit 0
}
[ -d "$folder/ready" ] || exit 200
[ -e "$folder/planned/$1" ] || exit 1
take "$1" "$2"
: > "$folder/asked/$1" || exit 200
trap 'rm -f "$folder/asked/$1"' EXIT
while [ -d "$folder/ready" ] && [ ! -e "$folder/failed" ]; do
    take "$1" "$2"
    [ -e "$folder/ended" ] && exit 1
    sleep 0.01
done
exit 200
"""
_READERS = 4
_AHEAD_BYTES = 256 << 20
_POLL_SECONDS = 0.005


class Prefetcher:
    """Serves archived segments and histories to one server; a context manager.

    `folder` is private, on the disk of the data directory, and may be entered by `account`. What went wrong is in
    `error`. The server may ask for a file more than once, and for the one before: all are read again then. With
    `has_target` the server looks for a target, and trouble that it meets behind it does no harm.
    """

    def __init__(
        self,
        archive: WalArchive,
        segments: Sequence[Archived],
        histories: Sequence[int],
        folder: Path,
        account: Account,
        *,
        has_target: bool,
    ) -> None:
        self._archive = archive
        self._segments = segments
        self._histories = histories
        self._folder = folder
        self._account = account
        self._trouble = folder / ("ended" if has_target else "failed")
        self._places = {archived.segment.name: place for place, archived in enumerate(segments)}
        self._ahead = max(2, _AHEAD_BYTES // archive.segment_bytes)
        self._coming: dict[int, Future[None]] = {}
        self._served = 0
        self._ended = threading.Event()
        self._pool = Threads(_READERS, "wal")
        self._watcher = threading.Thread(target=self._watch, name="restore_command", daemon=True)
        self.error: BackupError | None = None

    @property
    def command(self) -> str:
        """The restore_command, as the server reads it: a percent sign of the folder's name is written twice."""
        return f"/bin/sh {shlex.quote(str(self._folder / 'restore.sh')).replace('%', '%%')} %f %p"

    @property
    def served(self) -> int:
        """How many of the segments the server has asked for so far."""
        return self._served

    def __enter__(self) -> Prefetcher:
        for name in ("planned", "asked", "ready"):
            self._own(self._folder / name, folder=True)
        script = self._folder / "restore.sh"
        script.write_text(_SCRIPT, encoding="utf-8")
        self._own(script)
        for number in self._histories:
            data = self._archive.history_bytes(number)
            if data is not None:
                self._offer(history_name(number), data)
                (self._folder / "planned" / history_name(number)).touch()
        for name in self._places:
            (self._folder / "planned" / name).touch()
        self._watcher.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._ended.set()
        self._watcher.join(timeout=5)
        for future in self._coming.values():
            future.cancel()
        self._pool.end(error)

    def _watch(self) -> None:
        """Keep enough segments ready, and bring what the server waits for."""
        try:
            while not self._ended.wait(_POLL_SECONDS):
                for name in os.listdir(self._folder / "asked"):
                    if name in self._places:
                        self._bring_again(self._places[name])
                self._keep_ahead()
        except BackupError as error:
            self._fail(error)
        except OSError as error:
            code = "NO_SPACE" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "RECOVERY_FAILED"
            words = f"{self._folder} cannot be written to: {error.strerror or error}."
            self._fail(ProgramError(code, words, "Free space there, or recover into a folder on another disk."))

    def _keep_ahead(self) -> None:
        while self._served < len(self._segments) and self._is_taken(self._served):
            self._served += 1
        for place in range(self._served, min(self._served + self._ahead, len(self._segments))):
            if place not in self._coming:
                self._coming[place] = self._pool.submit(self._read, place)

    def _bring_again(self, place: int) -> None:
        """The server waits for a segment: one that could not be read ends the recovery, only now; one is read again."""
        future = self._coming.get(place)
        if future is not None and future.done():
            future.result()
            if self._is_ready(place):
                return
        if future is None or future.done():
            self._coming[place] = self._pool.submit(self._read, place)

    def _is_taken(self, place: int) -> bool:
        future = self._coming.get(place)
        return future is not None and future.done() and future.exception() is None and not self._is_ready(place)

    def _is_ready(self, place: int) -> bool:
        return (self._folder / "ready" / self._segments[place].segment.name).exists()

    def _read(self, place: int) -> None:
        archived = self._segments[place]
        data = inside_of_the_data_directory(self._archive.read(archived), archived.segment)
        self._offer(archived.segment.name, data)

    def _offer(self, name: str, data: bytes) -> None:
        path = self._folder / f"{name}.{threading.get_ident()}"
        path.write_bytes(data)
        self._own(path)
        path.rename(self._folder / "ready" / name)

    def _own(self, path: Path, *, folder: bool = False) -> None:
        if folder:
            path.mkdir(mode=0o700)
        else:
            path.chmod(0o600)
        if self._account != current_account():
            os.chown(path, self._account.uid, self._account.gid)

    def _fail(self, error: BackupError) -> None:
        self.error = error
        self._trouble.touch()
