"""Small words that messages share, and the names of what several layers know."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `2 rows`; `plural` where it is not the noun with an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"


def daily_job_name(database: str) -> str:
    """`<database>_daily_backup`: Dagster's job, which the status server starts without importing dagster."""
    return f"{database}_daily_backup"
