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
from pathlib import Path

_SOURCE = r"""
import os, shutil, signal, sys, time
groups, folders = [], []
for line in sys.stdin:
    verb, _, what = line.rstrip("\n").partition(" ")
    if verb == "+group":
        groups.append(int(what))
    elif verb == "-group":
        groups.remove(int(what))
    elif verb == "+folder":
        folders.append(what)
    elif verb == "-folder":
        folders.remove(what)

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
    shutil.rmtree(folder, ignore_errors=True)
"""


class Guardian:
    """Notes what must not outlive this process. One per process, started at the first note."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def watch_group(self, group: int) -> None:
        """End this process group when the owner is gone."""
        self._tell(f"+group {group}")

    def forget_group(self, group: int) -> None:
        """The group has ended and been reaped; its number may be used again by others."""
        self._tell(f"-group {group}")

    def watch_folder(self, folder: Path) -> None:
        """Remove this folder when the owner is gone."""
        self._tell(f"+folder {folder}")

    def forget_folder(self, folder: Path) -> None:
        """The folder has been removed by its owner."""
        self._tell(f"-folder {folder}")

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._process is None or self._owner != os.getpid():  # a fork has its own children to look after
                self._start()
            assert self._process is not None and self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _start(self) -> None:
        # A session of its own: Ctrl-C in the terminal and a group kill of the run do not reach it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SOURCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
            cwd="/",
        )
        self._owner = os.getpid()
        atexit.register(self._stop, self._process)

    def _stop(self, process: subprocess.Popen[str]) -> None:
        if self._owner == os.getpid() and process.stdin is not None:
            process.stdin.close()
            process.wait()


guardian = Guardian()
