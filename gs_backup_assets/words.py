"""Small words that messages share, and the names of what several layers know."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `2 rows`; `plural` where it is not the noun with an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"


def referring(rows: int) -> str:
    """That so many rows break a foreign key."""
    return f"{counted(rows, 'row')} {'refers' if rows == 1 else 'refer'} to nothing"


def time_text(moment: datetime) -> str:
    """An aware time as people read it, in UTC and to the minute: its readers may sit in several time zones."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def duration_text(duration: timedelta) -> str:
    """A duration in its two largest units, such as `2 d 3 h`; a negative one counts as none."""
    seconds = max(0, int(duration.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    for large, unit, small, small_unit in ((days, "d", hours, "h"), (hours, "h", minutes, "min")):
        if large:
            return f"{large} {unit} {small} {small_unit}" if small else f"{large} {unit}"
    return f"{minutes} min" if minutes else f"{seconds} s"


def over_text(seconds: float, target_seconds: float) -> tuple[str, str]:
    """A measured time and its target; what is over the target shows, however little, and is not rounded away."""
    measured, target = (duration_text(timedelta(seconds=one)) for one in (seconds, target_seconds))
    excess = seconds - target_seconds
    if measured == target and excess > 0:
        more = duration_text(timedelta(seconds=excess)) if excess >= 1 else f"{max(excess, 0.1):.1f} s"
        measured = f"{target} and {more}"
    return measured, target


def disaster_job_name(database: str) -> str:
    """`<database>_disaster_recovery`: Dagster's job, which no schedule starts."""
    return f"{database}_disaster_recovery"


def daily_job_name(database: str) -> str:
    """`<database>_daily_backup`: Dagster's job, which the status server starts without importing dagster."""
    return f"{database}_daily_backup"
