"""Problems of point-in-time recovery: a base backup that is too old, log that no longer arrives, or neither ever."""

from __future__ import annotations

from datetime import datetime, timedelta

from gs_backup_assets.alerts.message import Problem
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue
from gs_backup_assets.catalogue.cron import longest_pause
from gs_backup_assets.catalogue.freshness import dated_by
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.catalogue.wal_archive import archived_clusters
from gs_backup_assets.catalogue.wal_inventory import WalKind, wal_folder, wal_objects
from gs_backup_assets.catalogue.wal_positions import newest_position
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.store import Store
from gs_backup_assets.words import duration_text, time_text

# A base backup takes its time, and the run may have to be repeated.
MARGIN = timedelta(days=1)


def physical_problems(settings: DatabaseSettings, store: Store, now: datetime, link: str = "") -> list[Problem]:
    """Problems at `now` of what is configured: `physical`, `wal`. StoreError when the store cannot be read."""
    problems: list[Problem | None] = []
    if settings.physical is not None:
        problems += _base_backups(settings, store, now, link, longest_pause(settings.physical.schedule) + MARGIN)
    if settings.wal is not None:
        problems.append(_wal(settings, store, now, link, settings.wal.max_lag))
    return [problem for problem in problems if problem is not None]


def offsite_problems(settings: DatabaseSettings, store: Store, now: datetime, link: str = "") -> list[Problem]:
    """Problems at `now` of the copies in the off-site `store` of what is configured: `physical`, `wal`. StoreError.

    A base backup may be as old as in the primary store. The log is behind the server by the lag that is allowed there,
    and by twice the time between two copies: one is under way when the next is due.
    """
    problems: list[Problem | None] = []
    note = "A loss of this place would lose what came after it."
    hint = "`gs-backup doctor` looks at the off-site store, `gs-backup copy` brings what is missing."
    if settings.physical is not None:
        newest = next(iter(_taken_by(now, store, settings.name)), None)
        what, limit = "off-site copy of a base backup", longest_pause(settings.physical.schedule) + MARGIN
        taken = newest.taken_at if newest else None
        problems.append(
            _too_old(settings, "offsite-base-backup", what, taken, limit, now=now, note=note, hint=hint, link=link)
        )
    if settings.wal is not None:
        limit = settings.wal.max_lag + 2 * settings.wal.offsite_every
        last = last_archived(store, settings.name, now - limit)
        what, hint = "off-site copy of the write-ahead log", f"See that `gs-backup wal stream` runs. {hint}"
        problems.append(_too_old(settings, "offsite-wal", what, last, limit, now=now, note=note, hint=hint, link=link))
    return [problem for problem in problems if problem is not None]


def last_archived(store: Store, database: str, fresh_after: datetime | None = None) -> datetime | None:
    """When the archive was last known to be where the server was, or else was last written to; None if never.

    With `fresh_after` the archive itself is listed only where no position is newer than that.
    """
    times: list[datetime] = []
    for system in archived_clusters(store, database):
        try:
            position = newest_position(store, database, system)
        except StoreError as error:
            if error.code != "POSITION_DAMAGED":  # then it says nothing
                raise
            continue
        if position is not None:
            times.append(position.at)
    if times and fresh_after is not None and max(times) > fresh_after:
        return max(times)
    objects = wal_objects(store.objects(wal_folder(database)), database)
    times += [found.listed.modified for found in objects if found.kind in (WalKind.SEGMENT, WalKind.PARTIAL)]
    return max(times, default=None)


def _taken_by(now: datetime, store: Store, database: str) -> list[Summary]:
    """The base backups, newest first."""
    return [one for one in PhysicalCatalogue(store, database).summaries() if dated_by(one.taken_at, now)]


def _base_backups(
    settings: DatabaseSettings, store: Store, now: datetime, link: str, limit: timedelta
) -> list[Problem]:
    """The newest base backup, and the newest proven one."""
    known = _taken_by(now, store, settings.name)
    proven = next((one for one in known if one.verdict is Verdict.PROVEN), None)
    last_good = (
        f"Last proven base backup: {proven.id}." if proven else "There is no proven base backup in the primary store."
    )
    taken = ("base-backup", "base backup", known[0] if known else None, "`gs-backup base-backup` takes one now")
    proof = ("base-proof", "proven base backup", proven, "`gs-backup verify ID` proves one now")
    hides = () if known else (f"{settings.name}:stale-base-proof",)
    kinds = (taken, proof) if known else (taken,)  # without any there is no proven one either: once is enough
    found = (
        _too_old(
            settings,
            fingerprint,
            what,
            newest.taken_at if newest else None,
            limit,
            now=now,
            note=f"{last_good} Recovery takes longer with every day, and needs all the log since.",
            hint=f"`gs-backup doctor` looks for the cause, {action}.",
            link=link,
        )
        for fingerprint, what, newest, action in kinds
    )
    return [problem.model_copy(update={"hides": hides}) for problem in found if problem is not None]


def _wal(settings: DatabaseSettings, store: Store, now: datetime, link: str, limit: timedelta) -> Problem | None:
    last = last_archived(store, settings.name, now - limit)
    hint = "`gs-backup wal status` says what is wrong; see that `gs-backup wal stream` runs."
    note = "What is committed now cannot be recovered if the server is lost."
    return _too_old(settings, "wal", "archived write-ahead log", last, limit, now=now, note=note, hint=hint, link=link)


def _too_old(
    settings: DatabaseSettings,
    fingerprint: str,
    what: str,
    last: datetime | None,
    limit: timedelta,
    *,
    now: datetime,
    note: str,
    hint: str,
    link: str,
) -> Problem | None:
    if last is not None and now - last <= limit:
        return None
    if last is None:
        title, since, age = f"{settings.name}: there is no {what}", None, ""
    else:
        title = f"{settings.name}: the last {what} is older than {duration_text(limit)}"
        since, age = last + limit, f"It is of {time_text(last)}. "
    return Problem(
        fingerprint=f"{settings.name}:stale-{fingerprint}",
        title=title,
        body=f"{age}{note}",
        hint=hint,
        severity="critical",
        since=since,
        link=link,
    )
