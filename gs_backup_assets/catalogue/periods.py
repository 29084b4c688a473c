"""Days, weeks and months as partitions: the key of a moment, and that what is done now is filed under now. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from gs_backup_assets.errors import ConfigError


@dataclass(frozen=True)
class Period:
    """One kind of partition. Its keys are first days, as in Dagster's own time partitions; weeks begin on Sunday."""

    name: str
    _first: Callable[[date], date]
    _current: str
    _now_is: str
    _code: str

    def of_day(self, day: date) -> str:
        """The key of a day."""
        return self._first(day).isoformat()

    def of(self, moment: datetime, zone: ZoneInfo) -> str:
        """The key of a moment, in the configured time zone."""
        return self.of_day(moment.astimezone(zone).date())

    def require_current(self, partition: str, now: datetime, zone: ZoneInfo) -> None:
        """A partition never lies: what is done now is not filed under another time.

        Raises ConfigError: `PARTITION_INVALID`; `PARTITION_NOT_TODAY`, `_NOT_THIS_WEEK` or `_NOT_THIS_MONTH`.
        """
        current = self.of(now, zone)
        try:
            valid = self.of_day(date.fromisoformat(partition)) == partition
        except ValueError:
            valid = False
        if not valid:
            raise ConfigError("PARTITION_INVALID", f"{partition!r} is not {self._current}.", f"Write it as {current}.")
        if partition != current:
            raise ConfigError(
                self._code,
                f"What is done now belongs to {self._now_is.format(current)} ({zone.key}), not to {partition}: "
                "the past cannot be backed up.",
                f"Run the partition {current}. Checks and proofs of past partitions can be run again at any time.",
            )


def _sunday(day: date) -> date:
    return day - timedelta(days=(day.weekday() + 1) % 7)


DAY = Period("day", lambda day: day, "a day", "{}", "PARTITION_NOT_TODAY")
WEEK = Period("week", _sunday, "a Sunday", "the week of {}", "PARTITION_NOT_THIS_WEEK")
MONTH = Period(
    "month", lambda day: day.replace(day=1), "the first of a month", "the month of {}", "PARTITION_NOT_THIS_MONTH"
)
