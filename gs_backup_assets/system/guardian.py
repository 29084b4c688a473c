"""The guardian: a small process that outlives this one, and then ends its children and removes its private folders.

A run can be killed with SIGKILL at any moment; nothing inside it can clean up then. The guardian holds the reading
end of a pipe. While this process lives it only takes notes; when the pipe closes, whatever the reason, it ends the
process groups that are still noted and removes the folders that are still noted.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

_SOURCE = r"""
import os, shutil, signal, sys, time
groups, folders = set(), set()
for line in sys.stdin:
    verb, _, what = line.rstrip("\n").partition(" ")
    if verb == "+group":
        groups.add(int(what))
    elif verb == "-group":
        groups.discard(int(what))
    elif verb == "+folder":
        folders.add(what)
    elif verb == "-folder":
        folders.discard(what)

def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

for number, patience in ((signal.SIGINT, 5.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 2.0)):
    for group in groups:
        try:
            os.killpg(group, number)
        except OSError:
            pass
    deadline = time.monotonic() + patience
    while any(map(alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.02)
for folder in folders:
    if os.path.isfile(folder):
        os.unlink(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
"""


class Guardian:
    """Notes what must not outlive this process. One per process, started at the first note."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._notes: dict[str, None] = {}
        os.register_at_fork(after_in_child=self._forget_parent)

    def watch_group(self, group: int) -> None:
        """End this process group when the owner is gone."""
        self._note(f"group {group}")

    def forget_group(self, group: int) -> None:
        """The group has ended and been reaped; its number may be used again by others."""
        self._forget(f"group {group}")

    def watch_folder(self, folder: Path) -> None:
        """Remove this folder, or this file, when the owner is gone."""
        self._note(f"folder {folder}")

    def forget_folder(self, folder: Path) -> None:
        """The folder has been removed by its owner."""
        self._forget(f"folder {folder}")

    def _note(self, what: str) -> None:
        with self._lock:
            self._notes[what] = None
            self._tell(f"+{what}")

    def _forget(self, what: str) -> None:
        with self._lock:
            self._notes.pop(what, None)
            self._tell(f"-{what}")

    def _tell(self, line: str) -> None:
        if self._process is not None and self._write(line):
            return
        # The first note, or somebody killed the guardian: a new one is told everything that is noted.
        self._start()
        for what in self._notes:
            self._write(f"+{what}")

    def _write(self, line: str) -> bool:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(os.fsencode(f"{line}\n"))
        except OSError:
            return False
        return True

    def _start(self) -> None:
        # A session of its own: Ctrl-C in the terminal and a group kill of the run do not reach it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _SOURCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
            cwd="/",
        )
        atexit.register(self._stop, self._process, os.getpid())

    def _stop(self, process: subprocess.Popen[bytes], owner: int) -> None:
        if owner == os.getpid() and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
            process.wait()

    def _forget_parent(self) -> None:
        """A fork has its own children to look after, and must not keep the parent's pipe open."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._lock = threading.RLock()
        self._process, self._notes = None, {}


guardian = Guardian()
