"""Threads for work that may hang on a server: nobody who is interrupted has to wait for its answer.

The standard library's pool joins its threads on every way out, even when the interpreter ends. One that waits for a
stuck server would keep `gs-backup` alive for minutes after Ctrl-C. These threads die with the process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_PATIENCE_SECONDS = 5.0
# A signal that arrives just before the main thread begins to wait is only seen when the wait ends: Python runs handlers
# between its own instructions (documentation of `signal`, "Execution of Python signal handlers").
_ATTENTION_SECONDS = 0.5


def patience_after(error: BaseException | None) -> float | None:
    """For how many seconds to wait for others when `error` ends the work; None: for as long as it takes."""
    return None if error is None or isinstance(error, Exception) else _PATIENCE_SECONDS


def clean_up(action: Callable[[], object], after: BaseException) -> None:
    """Run what `after` makes necessary, and wait for it: after an interrupt for some seconds only. Raises its error."""
    future = Threads(1, "clean-up").submit(action)
    if (patience := patience_after(after)) is None or wait([future], patience).done:
        future.result()


class _Interruptible(Future[_T]):
    """A future whose result can be waited for without missing an interrupt."""

    def result(self, timeout: float | None = None) -> _T:
        if timeout is None:
            _wait_for([self])
        return super().result(timeout)


def _wait_for(futures: Sequence[Future[Any]]) -> None:
    while wait(futures, _ATTENTION_SECONDS).not_done:
        pass


class Threads(Executor):
    """At most so many threads at a time, which end when nothing is left to do.

    As a context manager it waits for them. After an error nothing more is begun; after an interrupt those that do not
    end within some seconds are left behind.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._unfinished: set[Future[Any]] = set()
        self._working = 0

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = _Interruptible()
        with self._lock:
            self._unfinished.add(future)
            self._jobs.append((future, partial(fn, *args, **kwargs)))
            if self._working < self._most:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self._working += 1
        return future

    def end(self, error: BaseException | None = None) -> None:
        """Wait until everything is done that was begun; without an `error`, everything that was submitted."""
        with self._lock:
            unfinished = list(self._unfinished)
        if error is not None:
            for future in unfinished:
                future.cancel()
        if (patience := patience_after(error)) is None:
            _wait_for(unfinished)
        else:
            wait(unfinished, patience)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
            with self._lock:
                self._unfinished.discard(future)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self._working -= 1
            return None
