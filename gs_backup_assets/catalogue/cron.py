"""How long a cron schedule lets pass between two of its days. Pure; Dagster itself runs the schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_Fits = Callable[[date], bool]
_NAMED = {"@hourly": 1, "@daily": 1, "@midnight": 1, "@weekly": 7, "@monthly": 31}  # days
_FROM = date(2024, 1, 1)
_LOOKED_AT = timedelta(days=9 * 366)  # three leap days


@lru_cache(maxsize=64)
def longest_pause(schedule: str) -> timedelta:
    """The most days between two days of a schedule of five fields, or of one such as `@weekly`; at least one.

    As in cron a day counts when either its number or its weekday fits, where both are limited. Of a schedule that never
    runs it is as long as one looks.
    """
    if schedule.strip() in _NAMED:
        return timedelta(days=_NAMED[schedule.strip()])
    _, _, numbers, months, weekdays = schedule.split()
    of_year, in_month, in_week = _values(months, 1, 12, _MONTHS), _days_of_month(numbers), _days_of_week(weekdays)
    # Dagster's cron takes the place of a weekday in its month alone, whatever number stands beside it.
    alone = "#" in weekdays or "l" in weekdays.lower()
    limits = [fits for fits in (None if alone else in_month, in_week) if fits is not None]
    days: list[date] = []
    for offset in range(_LOOKED_AT.days):
        day = _FROM + timedelta(days=offset)
        if day.month in of_year and (not limits or any(fits(day) for fits in limits)):
            days.append(day)
    return max((later - earlier for earlier, later in pairwise(days)), default=_LOOKED_AT)


def _days_of_month(field: str) -> _Fits | None:
    """Whether a day's number fits; None where every one does. `L` is the last of the month."""
    parts = field.lower().split(",")
    numbers = {number for part in parts if part != "l" for number in _values(part, 1, 31)}
    if field.startswith("*") and len(numbers) == 31:
        return None
    return lambda day: day.day in numbers or ("l" in parts and _is_last(day, timedelta(days=1)))


def _days_of_week(field: str) -> _Fits | None:
    """Whether a weekday fits; None where every one does. `fri#2` is the second of a month, `L5` the last."""
    always: set[int] = set()
    nth: set[tuple[int, int]] = set()
    last: set[int] = set()
    for part in field.lower().split(","):
        days, hash_sign, place = part.partition("#")
        numbers = {number % 7 for number in _values(days.removeprefix("l"), 0, 7, _DAYS)}
        if hash_sign:
            nth |= {(number, int(place)) for number in numbers}
        elif days.startswith("l"):
            last |= numbers
        else:
            always |= numbers
    if field.startswith("*") and len(always) == 7:
        return None

    def fits(day: date) -> bool:
        weekday = day.isoweekday() % 7
        return (
            weekday in always
            or (weekday, (day.day + 6) // 7) in nth
            or (weekday in last and _is_last(day, timedelta(weeks=1)))
        )

    return fits


def _is_last(day: date, step: timedelta) -> bool:
    return (day + step).month != day.month


def _values(field: str, first: int, last: int, names: Sequence[str] = ()) -> set[int]:
    """`*/2`, `1-5`, `1,15`, `mon-fri`, and round the end as `sat-mon`: the numbers that a field stands for."""

    def number(word: str) -> int:
        return names.index(word.lower()) + (1 if names is _MONTHS else 0) if word.lower() in names else int(word)

    values: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            begin, end = first, last
        else:
            low, dash, high = span.partition("-")
            begin = number(low)
            end = number(high) if dash else last if step else begin
        values.update(range(begin, (end if begin <= end else last) + 1, int(step or 1)))
        if begin > end:
            values.update(range(first, end + 1))
    return values
