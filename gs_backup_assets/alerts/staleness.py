"""Problems made of the catalogue: a backup or a proof that is too old, or was never there."""

from __future__ import annotations

from datetime import datetime

from gs_backup_assets.alerts.message import Problem, duration_text, time_text
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.freshness import Kind, read_freshness
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.opening import open_store


def stale_problems(settings: DatabaseSettings, now: datetime, link: str = "") -> tuple[Problem, ...]:
    """Problems of one database at `now`. A store that cannot be read is a problem too: nothing is known then."""
    name = settings.name
    try:
        freshness = read_freshness(Catalogue(open_store(settings), name), settings.alerts.stale_after)
    except StoreError as error:
        problem = Problem(
            fingerprint=f"{name}:store",
            title=f"{name}: the backup store cannot be read",
            body=f"{error.code}: {error.message}",
            hint=error.hint,
            severity="critical",
            link=link,
        )
        return (problem,)
    problems = []
    proven = freshness.newest_proven
    last_good = f"Last proven backup: {proven.id}." if proven else "There is no proven backup at all."
    limit = duration_text(settings.alerts.stale_after)
    for kind in freshness.stale(now):
        entry = freshness.newest if kind is Kind.BACKUP else proven
        what = "backup" if kind is Kind.BACKUP else "proven backup"
        if entry is None:
            title, since = f"{name}: there is no {what}", None
        else:
            title = f"{name}: the last {what} is older than {limit}"
            since = entry.taken_at + settings.alerts.stale_after
        age = f"Taken {time_text(entry.taken_at)}. " if entry else ""
        problems.append(
            Problem(
                fingerprint=f"{name}:stale-{kind.value}",
                title=title,
                body=f"{age}{last_good}",
                hint="`gs-backup doctor` looks for the cause, `gs-backup run` takes and proves a backup now.",
                severity="critical",
                since=since,
                link=link,
            )
        )
    return tuple(problems)
