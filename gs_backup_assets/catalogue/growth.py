"""How fast backups grow: a line through their sizes that a few odd ones do not bend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from itertools import combinations
from statistics import median

from pydantic import BaseModel, ConfigDict

MIN_DAYS = 5
MIN_SPAN = timedelta(days=7)
_MOST_DAYS = 400  # a year and what precedes it: older sizes say little about the next one
_RECENT = 7
_SECONDS_A_DAY = 86_400


class Growth(BaseModel):
    """By how many bytes a backup is larger than the one of the day before; seen on `days` days in `span_days` days."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes_per_day: float
    days: int
    span_days: float


def growth_of(sizes: Iterable[tuple[datetime, int]]) -> Growth | None:
    """The growth of stored bytes over time; None, which is not zero, with fewer than five days of backups in a week.

    The Theil-Sen estimator: the median of the slopes between all pairs of days, of each day its newest backup.
    """
    newest: dict[date, tuple[datetime, int]] = {}
    for moment, size in sorted(sizes):
        newest[moment.astimezone(timezone.utc).date()] = (moment, size)
    points = [newest[day] for day in sorted(newest)[-_MOST_DAYS:]]
    if len(points) < MIN_DAYS or points[-1][0] - points[0][0] < MIN_SPAN:
        return None
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0]).total_seconds() for earlier, later in combinations(points, 2)
    ]
    span = (points[-1][0] - points[0][0]).total_seconds() / _SECONDS_A_DAY
    return Growth(bytes_per_day=median(slopes) * _SECONDS_A_DAY, days=len(points), span_days=round(span, 1))


@dataclass(frozen=True)
class Trend:
    """What a backup's size in bytes is expected to be: the newest seven sizes, carried on by the growth if known."""

    size: float
    at: datetime
    growth: Growth | None

    @classmethod
    def of(cls, sizes: Iterable[tuple[datetime, int]]) -> Trend | None:
        """The trend of backups by when they were taken; None without any."""
        known = sorted(sizes)
        if not known:
            return None
        recent = known[-_RECENT:]
        middle = datetime.fromtimestamp(median(taken.timestamp() for taken, _ in recent), timezone.utc)
        return cls(median(size for _, size in recent), middle, growth_of(known))

    def expected(self, moment: datetime) -> float:
        """Bytes of a backup that is taken at `moment`."""
        days = (moment - self.at).total_seconds() / _SECONDS_A_DAY
        return max(0.0, self.size + (self.growth.bytes_per_day * days if self.growth else 0.0))


def backups_per_day(taken: Iterable[datetime], now: datetime) -> float:
    """How many backups a day there were in the last 30 days; 1 where less than a week of them is to be seen."""
    recent = [moment for moment in taken if now - moment <= timedelta(days=30)]
    if not recent or now - min(recent) < MIN_SPAN:
        return 1.0
    # The first one stands at the beginning of the time that is looked at: its successors fill it.
    span = (max(recent) - min(recent)).total_seconds() / _SECONDS_A_DAY
    return round((len(recent) - 1) / span, 3) if span > 0 else 1.0
