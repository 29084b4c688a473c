"""Runs jobs side by side in threads; the first one that fails, or an interrupt, ends them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from gs_backup_assets.system.threads import Threads

_Result = TypeVar("_Result")
GoOn = Callable[[], None]


class _Cancelled(Exception):
    """Raised inside a job when another one failed."""


def side_by_side(jobs: Sequence[Callable[[GoOn], _Result]], *, at_a_time: int, name: str) -> tuple[_Result, ...]:
    """The results of all jobs, in their order; or the first error, once no job is at work any more.

    After an interrupt those that hang are left behind. Each job is given a function to call often: it raises when the
    job should end.
    """
    cancelled = threading.Event()

    def go_on() -> None:
        if cancelled.is_set():
            raise _Cancelled

    def run(job: Callable[[GoOn], _Result]) -> _Result:
        go_on()
        try:
            return job(go_on)
        except BaseException:
            cancelled.set()  # at once: the results are waited for in their order, and the first may be hours away
            raise

    pool = Threads(at_a_time, name)
    futures: list[Future[_Result]] = []
    try:
        for job in jobs:  # in here: an interrupt may come before the last one
            futures.append(pool.submit(run, job))
        return tuple(future.result() for future in futures)
    except BaseException as error:
        cancelled.set()
        pool.end(error)
        if isinstance(error, _Cancelled):  # the one that it was cancelled for is the one to tell
            raise _first_error(error, [f.exception() for f in futures if not f.cancelled()]) from None
        raise


def _first_error(otherwise: BaseException, errors: Sequence[BaseException | None]) -> BaseException:
    return next((e for e in errors if e is not None and not isinstance(e, _Cancelled)), otherwise)
