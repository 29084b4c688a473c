"""Problems made of the catalogue: a backup, a proof, a copy or a test that is too old, or was never there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from gs_backup_assets.alerts.growing import forecast_problems
from gs_backup_assets.alerts.message import Problem
from gs_backup_assets.alerts.overdue import overdue_problems
from gs_backup_assets.alerts.staleness_physical import offsite_problems, physical_problems
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.freshness import Kind, freshness_of, read_freshness
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError
from gs_backup_assets.vault.opening import Which, open_store
from gs_backup_assets.vault.store import Store
from gs_backup_assets.words import duration_text, time_text

Asked = Callable[[DatabaseSettings, Store, datetime, str], list[Problem]]
_WORDS = {Kind.BACKUP: "backup", Kind.PROOF: "proven backup"}


def stale_problems(
    settings: DatabaseSettings, now: datetime, link: str = "", *, dumps: Sequence[Summary] | BackupError | None = None
) -> tuple[Problem, ...]:
    """Problems of one database at `now`. A store that cannot be read is a problem too: nothing is known then.

    `dumps` are the logical backups in the primary store, or why they cannot be read, where the caller has looked.
    """
    problems = [
        *_primary_problems(settings, now, link, dumps),
        *_asked(settings, physical_problems, now, link, (settings.physical, settings.wal)),
        *_asked(settings, overdue_problems, now, link, (settings.physical and settings.wal, settings.staging)),
    ]
    if settings.stores.offsite is not None:
        problems += _offsite_problems(settings, now, link)
    # A store that cannot be read is told once.
    return tuple({problem.fingerprint: problem for problem in problems}.values())


def _asked(
    settings: DatabaseSettings, ask: Asked, now: datetime, link: str, sections: Sequence[object]
) -> list[Problem]:
    """What is asked of the primary store where one of the sections is configured."""
    if not any(section is not None for section in sections):
        return []
    try:
        return ask(settings, open_store(settings), now, link)
    except BackupError as error:
        return [_unreadable(settings.name, "primary", error, link)]


def read_dumps(settings: DatabaseSettings) -> tuple[Summary, ...] | BackupError:
    """The logical backups in the primary store, newest first, or why they cannot be read."""
    try:
        return tuple(Catalogue(open_store(settings), settings.name).summaries())
    except BackupError as error:  # credentials that are not there are a problem as well
        return error


def _primary_problems(
    settings: DatabaseSettings, now: datetime, link: str, dumps: Sequence[Summary] | BackupError | None
) -> list[Problem]:
    name = settings.name
    known = read_dumps(settings) if dumps is None else dumps
    if isinstance(known, BackupError):
        return [_unreadable(name, "primary", known, link)]
    freshness = freshness_of(known, settings.alerts.stale_after)
    proven = freshness.newest_proven
    last_good = f"Last proven backup: {proven.id}." if proven else "There is no proven backup at all."
    hint = "`gs-backup doctor` looks for the cause, `gs-backup run` takes and proves a backup now."
    return [
        _stale(
            settings,
            f"{name}:stale-{kind.value}",
            _WORDS[kind],
            freshness.newest if kind is Kind.BACKUP else proven,
            note=last_good,
            hint=hint,
            link=link,
        )
        for kind in freshness.stale(now)
    ] + forecast_problems(settings, known, now, link)


def _offsite_problems(settings: DatabaseSettings, now: datetime, link: str) -> list[Problem]:
    name = settings.name
    try:
        store = open_store(settings, "offsite")
        freshness = read_freshness(Catalogue(store, name), settings.alerts.stale_after)
        problems = offsite_problems(settings, store, now, link)
    except BackupError as error:
        return [_unreadable(name, "offsite", error, link)]
    if Kind.BACKUP not in freshness.stale(now):
        return problems
    note = "A loss of this place would lose what came after it."
    hint = "`gs-backup doctor` looks at the off-site store, `gs-backup copy` brings what is missing."
    words = "off-site copy"
    stale = _stale(settings, f"{name}:stale-offsite", words, freshness.newest, note=note, hint=hint, link=link)
    return [stale, *problems]


def _stale(
    settings: DatabaseSettings,
    fingerprint: str,
    what: str,
    newest: Summary | None,
    *,
    note: str,
    hint: str,
    link: str,
) -> Problem:
    limit = settings.alerts.stale_after
    if newest is None:
        title, since, age = f"{settings.name}: there is no {what}", None, ""
    else:
        title = f"{settings.name}: the last {what} is older than {duration_text(limit)}"
        since, age = newest.taken_at + limit, f"Taken {time_text(newest.taken_at)}. "
    return Problem(
        fingerprint=fingerprint,
        title=title,
        body=f"{age}{note}",
        hint=hint,
        severity="critical",
        since=since,
        link=link,
    )


def _unreadable(name: str, which: Which, error: BackupError, link: str) -> Problem:
    store = "backup store" if which == "primary" else "off-site store"
    return Problem(
        fingerprint=f"{name}:store" if which == "primary" else f"{name}:offsite-store",
        title=f"{name}: the {store} cannot be read",
        body=f"{error.code}: {error.message}",
        hint=error.hint,
        severity="critical",
        link=link,
        code=error.code,
    )
