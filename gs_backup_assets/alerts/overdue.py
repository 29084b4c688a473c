"""Problems of tests that are overdue: a recovery drill, or a restore on staging, without success for too long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from gs_backup_assets.alerts.message import Problem
from gs_backup_assets.alerts.staleness_physical import MARGIN
from gs_backup_assets.catalogue.cron import longest_pause
from gs_backup_assets.catalogue.drills import read_drills
from gs_backup_assets.catalogue.freshness import dated_by
from gs_backup_assets.catalogue.staging_tests import read_staging_tests
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.vault.store import Store
from gs_backup_assets.words import duration_text, time_text

_LOOKED_AT = 20


class Record(Protocol):
    """What is asked of the record of a test."""

    @property
    def verdict(self) -> Verdict: ...

    @property
    def finished_at(self) -> datetime: ...


R = TypeVar("R", bound=Record)


def newest_proven(read: Callable[[int], Sequence[R]], now: datetime) -> R | None:
    """The newest record that is PROVEN at `now`, among the newest twenty; `read` gives that many, the oldest first.

    Nearly always it is the newest one, and only that is read.
    """
    for count in (1, _LOOKED_AT):
        for record in reversed(read(count)):
            if record.verdict is Verdict.PROVEN and dated_by(record.finished_at, now):
                return record
    return None


def overdue_problems(settings: DatabaseSettings, store: Store, now: datetime, link: str = "") -> list[Problem]:
    """Tests that are configured and did not succeed within their schedule's period and a day. What was never done
    counts as overdue. Raises StoreError when the store cannot be read."""
    problems: list[Problem | None] = []
    if settings.physical is not None and settings.wal is not None:
        drill = newest_proven(lambda count: read_drills(store, settings.name, newest=count), now)
        hint = "`gs-backup drill` makes one now and says what is wrong."
        limit = longest_pause(settings.physical.drill_schedule) + MARGIN
        problems.append(
            _overdue(settings, "drill", "recovery drill", drill, limit=limit, now=now, hint=hint, link=link)
        )
    if settings.staging is not None:
        test = newest_proven(lambda count: read_staging_tests(store, settings.name, newest=count), now)
        hint = "`gs-backup staging-test` makes one now and says what is wrong."
        limit = longest_pause(settings.staging.schedule) + MARGIN
        problems.append(
            _overdue(settings, "staging-test", "restore test", test, limit=limit, now=now, hint=hint, link=link)
        )
    return [problem for problem in problems if problem is not None]


def _overdue(
    settings: DatabaseSettings,
    fingerprint: str,
    what: str,
    newest: Record | None,
    *,
    limit: timedelta,
    now: datetime,
    hint: str,
    link: str,
) -> Problem | None:
    if newest is not None and now - newest.finished_at <= limit:
        return None
    if newest is None:
        title, since, last = f"{settings.name}: no {what} has ever succeeded", None, "There is none on record."
    else:
        title = f"{settings.name}: no {what} has succeeded for {duration_text(limit)}"
        since, last = newest.finished_at + limit, f"The last one that did ended {time_text(newest.finished_at)}."
    return Problem(
        fingerprint=f"{settings.name}:overdue-{fingerprint}",
        title=title,
        body=f"{last} What is not tried is not known to work.",
        hint=hint,
        severity="critical",
        since=since,
        link=link,
    )
