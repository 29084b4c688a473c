"""What is slow is made once at a time, its errors are not kept, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from gs_backup_assets.status.flight import SingleFlight


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def counting(make: Callable[[int], int] = lambda number: number) -> tuple[Callable[[], int], list[int]]:
    """A function that counts how often it is called."""
    calls: list[int] = []

    def call() -> int:
        calls.append(len(calls) + 1)
        return make(calls[-1])

    return call, calls


def test_it_is_made_once_for_all_who_ask_at_once_and_kept_for_a_while() -> None:
    make, calls = counting()
    clock = Clock()

    async def ask() -> list[int]:
        flight = SingleFlight(make, seconds=10, patience_seconds=30, clock=clock)
        answers = list(await asyncio.gather(*(flight.get() for _ in range(50))))
        clock.now = 9.9
        answers.append(await flight.get())
        clock.now = 10.1
        answers.append(await flight.get())
        return answers

    assert asyncio.run(ask()) == [1] * 51 + [2] and calls == [1, 2]


def test_an_error_goes_to_all_and_is_not_kept() -> None:
    def fails_first(number: int) -> int:
        if number == 1:
            raise OSError("the first time")
        return number

    make, calls = counting(fails_first)

    async def ask() -> tuple[list[int | BaseException], int]:
        flight = SingleFlight(make, seconds=10, patience_seconds=30)
        return await asyncio.gather(*(flight.get() for _ in range(5)), return_exceptions=True), await flight.get()

    first, second = asyncio.run(ask())
    assert all(isinstance(one, OSError) for one in first) and second == 2 and calls == [1, 2]


def test_who_has_waited_long_enough_is_let_go_and_the_work_goes_on() -> None:
    over = threading.Event()

    def slow(number: int) -> int:
        assert over.wait(60)
        return number

    make, calls = counting(slow)

    async def ask() -> int:
        flight = SingleFlight(make, seconds=10, patience_seconds=0.05)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await flight.get()
        over.set()
        while True:
            try:
                return await flight.get()
            except TimeoutError:
                continue

    assert asyncio.run(ask()) == 1 and calls == [1]
