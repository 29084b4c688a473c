"""Releases of PostgreSQL: version numbers, release days, and which programs are new enough for a server."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, timedelta

# Release days of the minor versions (PostgreSQL's release notes, appendix E of the manual). All supported majors are
# released on one day, but their minor numbers do not run in step.
_DAYS: dict[int, dict[int, date]] = {
    13: {
        18: date(2024, 11, 21),
        19: date(2025, 2, 13),
        20: date(2025, 2, 20),
        21: date(2025, 5, 8),
        22: date(2025, 8, 14),
        23: date(2025, 11, 13),
    },
    14: {
        14: date(2024, 11, 14),
        15: date(2024, 11, 21),
        16: date(2025, 2, 13),
        17: date(2025, 2, 20),
        18: date(2025, 5, 8),
        19: date(2025, 8, 14),
        20: date(2025, 11, 13),
        21: date(2026, 2, 12),
        22: date(2026, 2, 26),
        23: date(2026, 5, 14),
    },
    15: {
        9: date(2024, 11, 14),
        10: date(2024, 11, 21),
        11: date(2025, 2, 13),
        12: date(2025, 2, 20),
        13: date(2025, 5, 8),
        14: date(2025, 8, 14),
        15: date(2025, 11, 13),
        16: date(2026, 2, 12),
        17: date(2026, 2, 26),
        18: date(2026, 5, 14),
        19: date(2026, 8, 13),
        20: date(2026, 11, 13),
    },
    16: {
        5: date(2024, 11, 14),
        6: date(2024, 11, 21),
        7: date(2025, 2, 13),
        8: date(2025, 2, 20),
        9: date(2025, 5, 8),
        10: date(2025, 8, 14),
        11: date(2025, 11, 13),
        12: date(2026, 2, 12),
        13: date(2026, 2, 26),
        14: date(2026, 5, 14),
        15: date(2026, 8, 13),
    },
    17: {
        0: date(2024, 9, 26),
        1: date(2024, 11, 14),
        2: date(2024, 11, 21),
        3: date(2025, 2, 13),
        4: date(2025, 2, 20),
        5: date(2025, 5, 8),
        6: date(2025, 8, 14),
        7: date(2025, 11, 13),
        8: date(2026, 2, 12),
        9: date(2026, 2, 26),
        10: date(2026, 5, 14),
        11: date(2026, 8, 13),
    },
    18: {
        0: date(2025, 9, 25),
        1: date(2025, 11, 13),
        2: date(2026, 2, 12),
        3: date(2026, 2, 26),
        4: date(2026, 5, 14),
        6: date(2026, 8, 13),
    },
}
# The project releases once a quarter: two minors of one major are at most this far apart (so in May to August 2025).
_LONGEST_GAP = timedelta(days=98)
OLDEST_SUPPORTED_MAJOR = 13
NEWEST_SUPPORTED_MAJOR = 18


@dataclass(frozen=True, order=True)
class Release:
    """A PostgreSQL version since 10: major and minor."""

    major: int
    minor: int

    @staticmethod
    def parse(text: str) -> Release:
        """Read `17.10`, `15.20 (Debian ...)`, `pg_dump (PostgreSQL) 18.1` or `19beta1` (a pre-release counts as .0)."""
        match = re.search(r"(\d+)(?:\.(\d+))?", text)
        if match is None:
            raise ValueError(f"not a PostgreSQL version: {text!r}")
        return Release(int(match[1]), int(match[2] or 0))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    def earliest_day(self) -> date:
        """The earliest day on which this release can have come out: unknown minors follow their older neighbour."""
        days = _DAYS.get(self.major, {})
        if self.minor in days:
            return days[self.minor]
        older = [minor for minor in sorted(days) if minor < self.minor]
        if older:
            return days[older[-1]] + timedelta(days=1)
        if self.major > max(_DAYS):
            return max(max(d.values()) for d in _DAYS.values())
        return date.min

    def latest_day(self) -> date:
        """The latest day on which this release can have come out: unknown minors precede their newer neighbour."""
        days = _DAYS.get(self.major, {})
        if self.minor in days:
            return days[self.minor]
        minors = sorted(days)
        position = bisect_right(minors, self.minor)
        if position < len(minors):
            return days[minors[position]] - timedelta(days=1)
        if minors:
            return days[minors[-1]] + _LONGEST_GAP * (self.minor - minors[-1])
        return date.max if self.major > max(_DAYS) else date.min

    def fits_server(self, server: Release) -> bool:
        """Whether programs of this release may dump `server`: never an older major, never from an older release.

        Within one major the minor decides. A newer major must have come out on the day of the server's release or
        later, because a server may write catalogue contents that only programs of its own day know how to handle.
        """
        if self.major == server.major:
            return self.minor >= server.minor
        return self.major > server.major and self.earliest_day() >= server.latest_day()
