"""Progress of long work: named stages with seconds, and bytes or items done, told to whoever listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Listener(Protocol):
    """Receives progress; implementations must be cheap and thread-safe."""

    def stage_started(self, stage: str) -> None: ...

    def stage_advanced(self, stage: str, done: int, total: int | None, unit: str, seconds: float) -> None: ...

    def stage_ended(self, stage: str, seconds: float, ok: bool) -> None: ...


class Silent:
    """A listener that ignores everything."""

    def stage_started(self, stage: str) -> None: ...

    def stage_advanced(self, stage: str, done: int, total: int | None, unit: str, seconds: float) -> None: ...

    def stage_ended(self, stage: str, seconds: float, ok: bool) -> None: ...


class Stage:
    """One running stage; `advance` adds to what is done, `update` sets it."""

    def __init__(self, name: str, listener: Listener) -> None:
        self.name = name
        self._listener = listener
        self._done = 0
        self._lock = threading.Lock()
        self.started = time.monotonic()

    def advance(self, amount: int, total: int | None = None, unit: str = "bytes") -> None:
        with self._lock:
            self._done += amount
            done = self._done
        self._listener.stage_advanced(self.name, done, total, unit, time.monotonic() - self.started)

    def update(self, done: int, total: int | None = None, unit: str = "bytes") -> None:
        with self._lock:
            self._done = done
        self._listener.stage_advanced(self.name, done, total, unit, time.monotonic() - self.started)


class Progress:
    """Collects the wall-clock seconds of every stage and passes events on to a listener."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener: Listener = listener or Silent()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Time a stage. Stages of the same name add up, so that repeated work shows as one bar."""
        self._listener.stage_started(name)
        stage = Stage(name, self._listener)
        ok = False
        try:
            yield stage
            ok = True
        finally:
            seconds = time.monotonic() - stage.started
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            self._listener.stage_ended(name, seconds, ok)
