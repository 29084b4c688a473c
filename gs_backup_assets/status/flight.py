"""A value that is slow to make, kept for some seconds and made once at a time, however many ask for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from gs_backup_assets.system.threads import Threads

T = TypeVar("T")


async def in_thread(call: Callable[[], T], name: str) -> T:
    """Run a blocking call in a thread that dies with the process: nobody who stops the server waits for its answer."""
    return await asyncio.wrap_future(Threads(1, name).submit(call))


class SingleFlight(Generic[T]):
    """Hands out what `make` gives; made in a thread, at most once at a time, and kept for `seconds`.

    An error goes to all who wait for it, and is not kept. Nobody waits for more than `patience_seconds` (TimeoutError);
    what is being made is then still made, for those who ask later.
    """

    def __init__(
        self,
        make: Callable[[], T],
        *,
        seconds: float,
        patience_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._seconds = seconds
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._kept: tuple[float, T] | None = None
        self._flight: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The value; call it from one event loop only."""
        if self._kept is not None and self._clock() - self._kept[0] < self._seconds:
            return self._kept[1]
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._fly())
            self._flight.add_done_callback(lambda flight: flight.cancelled() or flight.exception())  # it was looked at
        try:
            return await asyncio.wait_for(asyncio.shield(self._flight), self._patience_seconds)
        except asyncio.TimeoutError:  # another class than TimeoutError before Python 3.11
            raise TimeoutError from None

    async def _fly(self) -> T:
        value = await in_thread(self._make, "status")
        self._kept = (self._clock(), value)
        return value
