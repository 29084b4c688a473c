"""What tests need to know about processes and folders: who runs where, and waiting with a deadline."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DEADLINE = 60.0  # seconds: far more than needed, for a machine that is busy with other tests


def wait_until(condition: Callable[[], object], *, what: str, seconds: float = DEADLINE) -> None:
    """Poll until the condition is true; fail with what is missing when the deadline has passed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {seconds:.0f} s: {what}")
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(") ")[2][:1] not in ("Z", "X")


def processes_with(text: str) -> list[tuple[int, str]]:
    """Running processes, other than this one, that have `text` in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        pid = int(entry.parent.name)
        if text in line and pid != os.getpid() and alive(pid):
            found.append((pid, line))
    return found


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def open_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder that the account of servers may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="gs-test-", dir=parent) as name:
        Path(name).chmod(0o755)
        yield Path(name)
