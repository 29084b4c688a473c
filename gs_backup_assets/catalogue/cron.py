"""How long a cron schedule lets pass between two of its days. Pure; Dagster itself runs the schedules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMED = {"@hourly": 1, "@daily": 1, "@midnight": 1, "@weekly": 7, "@monthly": 31}  # days
_NTH = 35  # days: the second Friday of a month and the next
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
    if "#" in schedule:
        return timedelta(days=_NTH)
    _, _, numbers, months, weekdays = schedule.split()
    in_month, of_year = _values(numbers, 1, 31), _values(months, 1, 12, _MONTHS)
    in_week = {day % 7 for day in _values(weekdays, 0, 7, _DAYS)}
    days: list[date] = []
    for offset in range(_LOOKED_AT.days):
        day = _FROM + timedelta(days=offset)
        fits = day.day in in_month, day.isoweekday() % 7 in in_week
        either = not numbers.startswith("*") and not weekdays.startswith("*")
        if day.month in of_year and (any(fits) if either else all(fits)):
            days.append(day)
    return max((later - earlier for earlier, later in pairwise(days)), default=_LOOKED_AT)


def _values(field: str, first: int, last: int, names: Sequence[str] = ()) -> set[int]:
    """`*/2`, `1-5`, `1,15`, `mon-fri`: the numbers that a field stands for."""

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
        values.update(range(begin, end + 1, int(step or 1)))
    return values
