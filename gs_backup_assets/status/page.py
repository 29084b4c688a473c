"""The status page for people: is everything proven, how old, how long would recovery take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.status.charts import by_day, last_days, line_chart, verdict_chart
from gs_backup_assets.status.document import DatabaseStatus
from gs_backup_assets.status.snapshot import Detail, Snapshot
from gs_backup_assets.words import counted, duration_text, over_text, time_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# With more databases than this, those that are healthy are folded up.
_OPEN = 6
_SIGNS = {"healthy": "✔", "warning": "!", "error": "✘"}
_ORDER = ("error", "warning", "healthy")


@dataclass(frozen=True)
class Fact:
    """One line: a name, what holds, a note in small print, and whether it misses its target."""

    name: str
    value: str
    note: str = ""
    bad: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart, what it shows, and its newest value in words."""

    words: str
    newest: str
    svg: Markup


@dataclass(frozen=True)
class Card:
    """One database."""

    name: str
    status: str
    badge: str
    problems: tuple[str, ...]
    facts: tuple[Fact, ...]
    charts: tuple[Chart, ...]
    folded: bool


def render_page(snapshot: Snapshot, *, nonce: str, sessions: bool) -> str:
    """The page as HTML. `nonce` lets its style through the content security policy; `sessions` offers to sign out."""
    document = snapshot.document
    many = len(snapshot.details) > _OPEN
    details = sorted(snapshot.details, key=lambda detail: _ORDER.index(detail.status.status))
    wrong = sum(detail.status.status != "healthy" for detail in details)
    total = counted(len(details), "database")
    title = "Every backup is proven" if not wrong else f"{wrong} of {total} need{'s' if wrong == 1 else ''} attention"
    return (
        _environment()
        .get_template("page.html")
        .render(
            status=document.status,
            sign=_SIGNS[document.status],
            title=title,
            subtitle=f"{total}, {counted(sum(d.total_backups for d in document.databases), 'backup')}",
            databases=[_card(detail, folded=many and detail.status.status == "healthy") for detail in details],
            generated=time_text(document.generated_at),
            sessions=sessions,
            nonce=nonce,
            style=_style(),
        )
    )


def render_login(*, nonce: str, refused: bool) -> str:
    """The form that asks for the token."""
    return _environment().get_template("login.html").render(refused=refused, nonce=nonce, style=_style())


def _card(detail: Detail, *, folded: bool) -> Card:
    one = detail.status
    words = {"healthy": "proven", "warning": "warning", "error": "no proven backup"}
    return Card(
        name=one.database,
        status=one.status,
        badge=f"{_SIGNS[one.status]} {words[one.status]}",
        problems=one.headlines,
        facts=tuple(_facts(one)),
        charts=tuple(_charts(detail)),
        folded=folded,
    )


def _facts(one: DatabaseStatus) -> Iterator[Fact]:
    if one.last_proven is not None:
        proven = one.last_proven
        yield Fact("Last proven backup", f"{_ms(proven.age)} ago", time_text(proven.created))
    elif one.store_readable:
        yield Fact("Last proven backup", "never", bad=True)
    if one.latest_backup is not None and one.latest_backup != one.last_proven:
        newest = one.latest_backup
        yield Fact("Newest backup", f"{_ms(newest.age)} ago", newest.verdict.value.replace("_", " ").lower())
    if one.latest_base_backup is not None:
        yield Fact("Base backup", f"{_ms(one.latest_base_backup.age)} ago", time_text(one.latest_base_backup.created))
    if one.wal_archived_at is not None:
        yield Fact("Log archived up to", time_text(one.wal_archived_at))
    if one.recoverable_until is not None:
        yield Fact("Recoverable until", time_text(one.recoverable_until))
    for goal in one.objectives:
        way = f", by the {goal.way}"
        if goal.rto_seconds is not None:
            back, target = over_text(goal.rto_seconds, goal.rto_target_seconds)
            shown = back if goal.rto_seconds >= 60 or goal.rto_met is False else _seconds(goal.rto_seconds)
            yield Fact(f"Back in ({goal.name})", shown, f"target {target}{way}", bad=goal.rto_met is False)
        if goal.rpo_seconds is not None:
            lost, target = over_text(goal.rpo_seconds, goal.rpo_target_seconds)
            yield Fact(f"Would lose now ({goal.name})", lost, f"target {target}{way}", bad=goal.rpo_met is False)


def _charts(detail: Detail) -> Iterator[Chart]:
    reading = detail.reading
    if not reading.readable:
        return
    days = last_days(reading.now.astimezone(reading.settings.zone).date())
    backups = by_day(reading.summaries, days)
    proven = sum(backup is not None and backup.verdict.value == "PROVEN" for backup in backups)
    yield Chart(f"Verdicts, {len(days)} days", f"{proven} proven", verdict_chart(days, backups))
    sizes = [_size(backup) for backup in backups]
    recoveries = [backup.rto_seconds if backup else None for backup in backups]
    if (svg := line_chart("Size of the backups", sizes)) is not None:
        yield Chart("Size", _bytes(_last(sizes)), svg)
    if (svg := line_chart("Seconds until recovered", recoveries)) is not None:
        yield Chart("Recovery", _seconds(_last(recoveries)), svg)


def _size(backup: Summary | None) -> float | None:
    return None if backup is None or backup.stored_bytes is None else float(backup.stored_bytes)


def _last(values: list[float | None]) -> float:
    return next(value for value in reversed(values) if value is not None)


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration_text(timedelta(seconds=seconds))


def _ms(age: int) -> str:
    return duration_text(timedelta(milliseconds=age))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    return Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(), trim_blocks=True)


@cache
def _style() -> Markup:
    from markupsafe import Markup

    return Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))
