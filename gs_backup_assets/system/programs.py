"""Runs PostgreSQL's programs: no shell, no secret in argv, stderr kept, and never a child left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.errors import ProgramError
from gs_backup_assets.system.account import Account, current_account
from gs_backup_assets.system.guardian import guardian

# Enough for every error of a restore with thousands of them, and bounded for a program that never stops talking.
_STDERR_LINES = 10_000
_LINE_BYTES = 64 * 1024
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Finished:
    """A program that ended: its exit status, the last lines of its standard error, and how long it took in seconds."""

    program: str
    status: int
    stderr: tuple[str, ...]
    stdout: str
    seconds: float

    def require_success(
        self, hint: str = "Its last words are above; run it by hand with --verbose to learn more."
    ) -> None:
        """Raise ProgramError (`PROGRAM_FAILED`) unless the exit status is 0."""
        if self.status != 0:
            words = " | ".join(line for line in self.stderr[-5:] if line.strip()) or "(no output)"
            raise ProgramError("PROGRAM_FAILED", f"{self.program} ended with status {self.status}: {words}", hint)


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small, fixed environment: C messages, as they are classified, and no PG* variable or secret of the caller."""
    keep = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "KRB5CCNAME")
    kept = {name: os.environ[name] for name in keep if name in os.environ}
    return {**kept, "LC_ALL": "C", "LANG": "C", "PGCLIENTENCODING": "UTF8", **(extra or {})}


class Program:
    """A running child in a session of its own. Use as a context manager: leaving it ends the whole process group."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        account: Account | None = None,
        capture_stdout: bool = False,
        stdin: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        cwd: Path | None = None,
    ) -> None:
        self.name = Path(argv[0]).name
        self._argv = [str(part) for part in argv]
        self._environment = child_environment(environment)
        self._account = account
        self._capture_stdout = capture_stdout
        self._stdin = stdin
        self._on_line = on_line
        self._stop_signal = stop_signal
        self._cwd = cwd
        self._lines: deque[str] = deque(maxlen=_STDERR_LINES)
        self._stdout: list[bytes] = []

    def __enter__(self) -> Program:
        self.started = time.monotonic()
        drop = {}
        if self._account is not None and self._account != current_account():
            drop = {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}
        try:
            with open(self._stdin or os.devnull, "rb") as stdin:
                self._process = subprocess.Popen(
                    self._argv,
                    stdin=stdin,
                    stdout=subprocess.PIPE if self._capture_stdout else subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=self._environment,
                    start_new_session=True,
                    cwd=self._cwd or "/",
                    **drop,  # type: ignore[call-overload]
                )
        except OSError as error:
            raise ProgramError(
                "PROGRAM_UNUSABLE",
                f"{self.name} cannot be started: {error.strerror or error}.",
                f"Check that {self._argv[0]} is there and may be run by this account.",
            ) from error
        try:
            guardian.watch_group(self._process.pid)
        except BaseException:
            self._end(signal.SIGKILL, patience=2.0)
            raise
        self._readers = [threading.Thread(target=self._read_stderr, daemon=True)]
        if self._capture_stdout:
            self._readers.append(threading.Thread(target=self._read_stdout, daemon=True))
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        except BaseException:  # interrupted once more: no more patience
            self._end(signal.SIGKILL, patience=2.0)
            raise
        finally:
            guardian.forget_group(self._process.pid)

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def last_lines(self) -> tuple[str, ...]:
        return tuple(self._lines)

    def wait(self, *, tick: Callable[[], None] | None = None, timeout: float | None = None) -> Finished:
        """Wait for the end; `tick` is called often. After `timeout` seconds: ProgramError (`PROGRAM_TIMEOUT`)."""
        while True:
            with suppress(subprocess.TimeoutExpired):
                status = self._process.wait(_POLL_SECONDS)
                break
            if tick is not None:
                tick()
            if timeout is not None and time.monotonic() - self.started > timeout:
                raise ProgramError(
                    "PROGRAM_TIMEOUT",
                    f"{self.name} ran longer than {timeout:.0f} s.",
                    "Raise the limit, or find what it waits for.",
                )
        for reader in self._readers:
            reader.join(timeout=5)
        seconds = time.monotonic() - self.started
        return Finished(self.name, status, tuple(self._lines), b"".join(self._stdout).decode(errors="replace"), seconds)

    def stop(self, patience: float = 15.0) -> None:
        """End the process group: first kindly, then by force. Safe to call on a group that has ended."""
        for number in (self._stop_signal, signal.SIGKILL):
            if self._alive():
                self._end(number, patience)
        self._process.wait()
        for reader in self._readers:
            reader.join(timeout=2)

    def _alive(self) -> bool:
        return self._process.poll() is None or group_alive(self._process.pid)

    def _end(self, number: signal.Signals, patience: float) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and self._alive():
            time.sleep(0.01)

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while raw := stream.readline(_LINE_BYTES):
                line = raw.decode(errors="replace").rstrip()
                self._lines.append(line)
                if self._on_line is not None:
                    self._on_line(line)

    def _read_stdout(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            self._stdout.append(stream.read())


def run(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    account: Account | None = None,
    capture_stdout: bool = False,
    stdin: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    tick: Callable[[], None] | None = None,
    timeout: float | None = None,
    cwd: Path | None = None,
) -> Finished:
    """Run a program to its end and return how it ended; the caller judges the exit status."""
    with Program(
        argv,
        environment=environment,
        account=account,
        capture_stdout=capture_stdout,
        stdin=stdin,
        on_line=on_line,
        cwd=cwd,
    ) as program:
        return program.wait(tick=tick, timeout=timeout)


def group_alive(group: int) -> bool:
    """Whether a process of the group still runs. Zombies do not count: PID 1 of a container may never reap them."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    states = _group_states(group)
    return not states or states != {"Z"}


def _group_states(group: int) -> set[str]:
    """The states of the group's processes as /proc tells them; empty where there is no /proc."""
    states = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # pid (name) state ppid pgrp ...; the name may hold spaces and brackets
            state, _, its_group = entry.read_text(errors="replace").rpartition(") ")[2].split()[:3]
            if int(its_group) == group:
                states.add(state)
    return states
