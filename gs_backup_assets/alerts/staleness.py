"""Problems made of the catalogue: a backup, a proof, a copy or a test that is too old, or was never there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from gs_backup_assets.alerts.growing import forecast_problems
from gs_backup_assets.alerts.message import Problem
from gs_backup_assets.alerts.overdue import overdue_problems
from gs_backup_assets.alerts.staleness_physical import offsite_problems, physical_problems
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.freshness import Kind, dated_by, freshness_of
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError
from gs_backup_assets.vault.opening import Which, open_store
from gs_backup_assets.vault.store import Store
from gs_backup_assets.words import duration_text, time_text

Dumps = tuple[Summary, ...] | BackupError
Asked = Callable[[DatabaseSettings, Store, datetime, str], list[Problem]]
_WORDS = {Kind.BACKUP: "backup", Kind.PROOF: "proven backup"}
# What the fingerprints of problems begin with, of which nothing is known while a store cannot be read.
_SEEN_IN: dict[Which, tuple[str, ...]] = {
    "primary": ("stale-backup", "stale-proof", "stale-base", "stale-wal", "rto-forecast", "overdue-"),
    "offsite": ("stale-offsite",),
}
_RUNBOOK = "docs/runbooks/stale-backup.md"
_LOST_RUNBOOK = "docs/runbooks/lost-bucket.md"


def stale_problems(
    settings: DatabaseSettings, now: datetime, link: str = "", *, dumps: Dumps | None = None
) -> tuple[Problem, ...]:
    """Problems of one database at `now`. A store that cannot be read is a problem too: nothing is known then.

    `dumps` are the logical backups in the primary store, or why they cannot be read, where the caller has looked.
    """
    known = read_dumps(settings) if dumps is None else dumps
    copies = None if settings.stores.offsite is None else read_dumps(settings, "offsite")
    # The records of tests are in both stores: of a primary store that is empty or not mounted, the others are asked.
    records: Which = "offsite" if known == () and copies and not isinstance(copies, BackupError) else "primary"
    tested = (settings.physical and settings.wal, settings.staging)
    problems = [
        *_primary_problems(settings, now, link, known, copies),
        *_asked(settings, physical_problems, now, link, (settings.physical, settings.wal)),
        *_asked(settings, overdue_problems, now, link, tested, which=records),
    ]
    if copies is not None:
        problems += _offsite_problems(settings, now, link, copies)
    # A store that cannot be read is told once, and first with what there is to fall back on.
    told: dict[str, Problem] = {}
    for problem in problems:
        told.setdefault(problem.fingerprint, problem)
    return tuple(told.values())


def _asked(
    settings: DatabaseSettings,
    ask: Asked,
    now: datetime,
    link: str,
    sections: Sequence[object],
    *,
    which: Which = "primary",
) -> list[Problem]:
    """What is asked of a store where one of the sections is configured."""
    if not any(section is not None for section in sections):
        return []
    try:
        return ask(settings, open_store(settings, which), now, link)
    except BackupError as error:
        return [_unreadable(settings.name, which, error, link)]


def read_dumps(settings: DatabaseSettings, which: Which = "primary") -> Dumps:
    """The logical backups in a store, newest first, or why they cannot be read."""
    try:
        return tuple(Catalogue(open_store(settings, which), settings.name).summaries())
    except BackupError as error:  # credentials that are not there are a problem as well
        return error


def fall_back(settings: DatabaseSettings, now: datetime) -> str:
    """The backup to fall back on, in words; nothing where the primary store cannot be read and no other has one."""
    known = read_dumps(settings)
    if not isinstance(known, BackupError) and (proven := _proven(known)):
        return _last_good(proven, None, now)
    copy = None if settings.stores.offsite is None else _proven(read_dumps(settings, "offsite"))
    return "" if isinstance(known, BackupError) and copy is None else _last_good(None, copy, now)


def _proven(dumps: Dumps | None) -> Summary | None:
    """The newest proven one, where they can be read."""
    readable = () if dumps is None or isinstance(dumps, BackupError) else dumps
    return next((one for one in readable if one.verdict is Verdict.PROVEN), None)


def _taken_by(now: datetime, dumps: Sequence[Summary]) -> list[Summary]:
    return [one for one in dumps if dated_by(one.taken_at, now)]


def _last_good(proven: Summary | None, copy: Summary | None, now: datetime) -> str:
    """What to fall back on: the newest proven backup of the primary store, else the newest proven copy."""
    if proven is not None:
        return f"Last proven backup: {proven.id}."
    if copy is not None:
        return f"Off-site has {copy.id}, proven, {duration_text(now - copy.taken_at)} old: `--from offsite`."
    return "There is no proven backup in the primary store."


def _primary_problems(
    settings: DatabaseSettings, now: datetime, link: str, known: Dumps, copies: Dumps | None
) -> list[Problem]:
    name, copy = settings.name, _proven(copies)
    if isinstance(known, BackupError):
        return [_unreadable(name, "primary", known, link, "" if copy is None else _last_good(None, copy, now))]
    freshness = freshness_of(_taken_by(now, known), settings.alerts.stale_after)
    last_good = _last_good(freshness.newest_proven, copy, now)
    ahead = [one.id for one in known[:1] if not dated_by(one.taken_at, now)]
    note = f"{last_good} {ahead[0]} is of a clock that was ahead, and does not count." if ahead else last_good
    hint = f"`gs-backup doctor` looks for the cause, `gs-backup run` takes and proves a backup now. {_RUNBOOK}"
    if not known:
        # A disk that is not mounted looks the same as a store that was never written to. Said once: without a backup
        # there is no proven one either.
        if copy is not None:
            hint = f"Mount the primary store; until then read the copies, {_LOST_RUNBOOK}"
        note, where = "The primary store is empty or not mounted.", " in the primary store" if copy else ""
        fingerprint = f"{name}:stale-{Kind.BACKUP.value}"
        none = _stale(settings, fingerprint, f"backup{where}", None, note=note, hint=hint, link=link)
        hides = (f"{name}:stale-{Kind.PROOF.value}", f"{name}:rto-forecast")
        return [none.model_copy(update={"last_good": last_good if copy else "", "hides": hides})]
    return [
        _stale(
            settings,
            f"{name}:stale-{kind.value}",
            _WORDS[kind],
            freshness.newest if kind is Kind.BACKUP else freshness.newest_proven,
            note=note,
            hint=hint,
            link=link,
        )
        for kind in freshness.stale(now)
    ] + forecast_problems(settings, known, now, link)


def _offsite_problems(settings: DatabaseSettings, now: datetime, link: str, copies: Dumps) -> list[Problem]:
    name = settings.name
    if isinstance(copies, BackupError):
        return [_unreadable(name, "offsite", copies, link)]
    try:
        problems = offsite_problems(settings, open_store(settings, "offsite"), now, link)
    except BackupError as error:
        return [_unreadable(name, "offsite", error, link)]
    freshness = freshness_of(_taken_by(now, copies), settings.alerts.stale_after)
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


def _unreadable(name: str, which: Which, error: BackupError, link: str, last_good: str = "") -> Problem:
    store = "backup store" if which == "primary" else "off-site store"
    return Problem(
        fingerprint=f"{name}:store" if which == "primary" else f"{name}:offsite-store",
        title=f"{name}: the {store} cannot be read",
        body=f"{error.code}: {error.message}",
        hint=error.hint,
        severity="critical",
        link=link,
        code=error.code,
        last_good=last_good,
        hides=tuple(f"{name}:{start}" for start in _SEEN_IN[which]),
    )
