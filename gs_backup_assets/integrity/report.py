"""The integrity report: one proof as a self-contained page that a manager and a DBA can both read.

What is said is decided here; `report.html` beside this module only lays it out.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from typing import Generic, TypeVar
from zoneinfo import ZoneInfo

from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.proof import (
    DECISIVE_CHECKS,
    Blame,
    ForeignKeyOutcome,
    ProofRecord,
    RuleOutcome,
    TableOutcome,
)
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, Verdict

MOST_TABLES = 200
_MOST_OPEN = 10  # rules or keys that could not be tested, before they are folded
_MOST_MESSAGES = 5  # of one kind; the others are a click away

# What a failed decisive check means, after "Do not rely on this backup: ".
_FAILURES = {
    "stored_bytes_match": "its stored files are not those that were written",
    "everything_included": "rows of the source were left out",
    "restore_clean": "it could not be restored without errors",
    "rows_equal": "tables came back with other rows",
    "contents_equal": "the contents that came back are not those of the source",
    "schema_equal": "the schema came back with other definitions",
    "sequences_equal": "sequences came back in other positions",
    "amcheck_clean": "the restored database is damaged inside",
}
_COMPARISONS = ("rows_equal", "contents_equal", "schema_equal", "sequences_equal")
_RECOVERY = ("fetch", "cluster", "restore", "analyze")  # what a real recovery waits for; the rest is the proof
_NO_REASON = "no reason is recorded"
_VERDICTS = {Verdict.PROVEN: "passed", Verdict.FAILED: "failed", Verdict.NOT_VERIFIED: "not_verified"}
_SIGNS = {Status.PASSED: "✓", Status.FAILED: "✕", Status.NOT_VERIFIED: "?"}
_MONTHS = "January February March April May June July August September October November December"
_PLAIN_NAME = re.compile(r'"([a-z_][a-z0-9_]*)"\."([A-Za-z_][A-Za-z0-9_]*)"')
# Characters that turn the direction of what follows them: in a name they can make a report say something else.
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Group:
    """Findings of one kind: what is common to them, the first few messages, and the others."""

    code: str
    hint: str
    messages: tuple[str, ...]
    more: tuple[str, ...]


@dataclass(frozen=True)
class Unproved:
    """One reason, and everything that could not be proved because of it."""

    reason: str
    checks: tuple[CheckResult, ...]
    others: str
    groups: tuple[Group, ...]


_Item = TypeVar("_Item")
_Tested = TypeVar("_Tested", RuleOutcome, ForeignKeyOutcome)


@dataclass(frozen=True)
class Fold(Generic[_Tested]):
    """Rules or keys of one status under a heading that opens and closes; `tone` is the status value."""

    title: str
    tone: str
    open: bool
    items: tuple[_Tested, ...]


@dataclass(frozen=True)
class Line:
    """A line of the tables' list; `tone` is a status value, `sign` and `word` say the same without colour."""

    tone: str
    sign: str
    word: str
    item: TableOutcome


@dataclass(frozen=True)
class Stage:
    """A stage of the proof: its share of the longest one, and its segment of the recovery bar (all in percent)."""

    name: str
    seconds: float
    recovery: bool
    share: str
    left: str
    width: str


@dataclass(frozen=True)
class Recovery:
    """The time until the database could be used, against its target, which lies at `target_left` percent of the bar."""

    line: str
    tone: str
    target_left: str
    stages: tuple[Stage, ...]


def render(record: ProofRecord, manifest: Manifest | None) -> bytes:
    """The report as one HTML file in UTF-8, equal for equal input; `manifest` is None where it is damaged."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, finalize=_visible
    )
    zone = manifest.timezone if manifest else "UTC"
    environment.filters |= {f.__name__.strip("_"): f for f in (_size, _number, _duration, _plain, _count)}
    environment.filters |= {"moment": lambda moment: _moment(moment, zone), "shell": shlex.quote}
    source = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        record=record,
        manifest=manifest,
        word=record.verdict.value.replace("_", " "),
        status=_VERDICTS[record.verdict],
        signs=_SIGNS,
        decisive=DECISIVE_CHECKS,
        groups=_groups,
        sentence=_sentence(record, manifest),
        alert=_alert(record),
        failed=[check for check in record.checks if check.status is Status.FAILED],
        passed=[check for check in record.checks if check.status is Status.PASSED],
        unproved=_unproved(record),
        rules=_folds(record.rules, "data rule", ("broken", "not evaluated", "holds")),
        foreign_keys=_folds(record.foreign_keys, "foreign key", ("violated", "not tested", "holds")),
        recovery=_recovery(record),
        tables=_tables(record.tables),
        tables_line=_tables_line(record, manifest),
        rules_held=sum(rule.status is Status.PASSED for rule in record.rules),
        rows_restored=sum(table.restored_rows or 0 for table in record.tables),
    )
    return page.encode()


def _sentence(record: ProofRecord, manifest: Manifest | None) -> str:
    """The verdict in plain words."""
    taken = _taken(record, manifest)
    decisive = [check for check in record.checks if check.name in DECISIVE_CHECKS]
    if record.verdict is Verdict.PROVEN:
        own = (record.server or "").startswith("throwaway")
        place = "a server of its own" if own else "a verification server"
        copy = " from its off-site copy" if record.store == "offsite" else ""
        return f"This backup was restored{copy} on {place} and is equal to the production database as it was {taken}."
    if record.verdict is Verdict.FAILED:
        failed = [check.name for check in decisive if check.status is Status.FAILED]
        what = _listed([_FAILURES.get(name, name) for name in failed]) or "it did not pass its proof"
        compared = any(name in _COMPARISONS for name in failed)
        rest = "It does not give back the production database as it was" if compared else "It was taken"
        return f"Do not rely on this backup: {what}. {rest} {taken}."
    left = [check for check in decisive if check.status is not Status.PASSED]
    if record.rto_seconds is not None:
        missing = f"{len(left)} of {_count(len(decisive), 'check')} that decide could not be carried out"
        return f"This backup was restored, but it is not proven: {missing}. It was taken {taken}."
    reason = f": {left[0].summary.rstrip('.')}" if left else ""
    unknown = "It is not known whether this backup can be restored"
    return f"{unknown}. The proof could not be carried out{reason}. It was taken {taken}."


def _alert(record: ProofRecord) -> tuple[str, str] | None:
    """Bad data and whose fault it is, in one line, and what that means."""
    rules = record.broken_rules
    keys = [key for key in record.foreign_keys if key.status is Status.FAILED]
    if not rules and not keys:
        return None
    subject = _listed(
        [_count(len(rules), "data rule") if rules else "", _count(len(keys), "foreign key") if keys else ""]
    )
    one = len(rules) + len(keys) == 1
    if record.blame is Blame.PRODUCTION:
        line = f"{subject} {'is' if one else 'are'} {record.blame.value}."
        more = "The restored contents equal the source's: the backup is not at fault, correct the rows in production."
    else:
        line = f"{subject} {'does' if one else 'do'} not hold in the restored database: {record.blame.value}."
        more = "The restored contents are not those of the source: use another backup."
        if record.blame is Blame.UNKNOWN:
            more = "Look at the same rows in production before you blame the backup."
    severities = [rule.severity for rule in rules]
    told = [f"{severities.count(name)} {name}" for name in ("critical", "warning") if name in severities]
    if told:
        more += f" Data rules by severity: {', '.join(told)}."
    if any(rule.sample_keys for rule in rules) or any(key.sample_keys for key in keys):
        more += " Keys are listed below."
    return line, more


def _groups(findings: Iterable[Finding], *, skip: str) -> tuple[Group, ...]:
    """Findings by code and hint, in order; a message that only repeats `skip`, which is shown already, is left out."""
    kinds: dict[tuple[str, str], dict[str, None]] = {}
    for finding in findings:
        messages = kinds.setdefault((finding.code, finding.hint), {})
        if finding.message.rstrip(".") != skip.rstrip("."):
            messages[finding.message] = None
    return tuple(
        Group(code, hint, tuple(messages)[:_MOST_MESSAGES], tuple(messages)[_MOST_MESSAGES:])
        for (code, hint), messages in kinds.items()
    )


def _unproved(record: ProofRecord) -> tuple[Unproved, ...]:
    """What could not be verified, by reason: one cause often leaves everything after it open."""
    checks = [(c.summary, c) for c in record.checks if c.status is Status.NOT_VERIFIED]
    rules = [(r.reason or _NO_REASON, r.title) for r in record.rules if r.status is Status.NOT_VERIFIED]
    keys = [(k.reason or _NO_REASON, k.name) for k in record.foreign_keys if k.status is Status.NOT_VERIFIED]
    reasons = dict.fromkeys(reason.rstrip(".") for reason, _ in (*checks, *rules, *keys))

    def because(of: str, named: Sequence[tuple[str, _Item]]) -> list[_Item]:
        return [item for reason, item in named if reason.rstrip(".") == of]

    return tuple(
        Unproved(
            reason,
            tuple(because(reason, checks)),
            _listed([_named(because(reason, rules), "data rule"), _named(because(reason, keys), "foreign key")]),
            _groups([f for check in because(reason, checks) for f in check.findings], skip=reason),
        )
        for reason in reasons
    )


def _named(names: Sequence[str], noun: str) -> str:
    counted = _count(len(names), noun) if names else ""
    return f"{counted}: {'; '.join(names)}" if 0 < len(names) <= 3 else counted


def _folds(items: Sequence[_Tested], noun: str, words: tuple[str, str, str]) -> tuple[Fold[_Tested], ...]:
    """Items by status, the bad ones first and open; what holds is closed."""
    folds = []
    for status, word in zip((Status.FAILED, Status.NOT_VERIFIED, Status.PASSED), words, strict=True):
        chosen = tuple(item for item in items if item.status is status)
        if chosen:
            title = f"{_count(len(chosen), noun)} {word if word != 'holds' or len(chosen) == 1 else 'hold'}"
            shown = status is Status.FAILED or (status is Status.NOT_VERIFIED and len(chosen) <= _MOST_OPEN)
            folds.append(Fold(title, status.value, shown, chosen))
    return tuple(folds)


def _compared(table: TableOutcome) -> Line:
    status, word = Status.FAILED, "other contents"
    if table.restored_rows is None:
        word = "not restored"
    elif table.source_rows is None:
        word = "not in the source"
    elif table.source_rows != table.restored_rows:
        word = "other rows"
    elif table.contents_equal is None:
        status, word = Status.NOT_VERIFIED, "only counted"
    elif table.contents_equal:
        status, word = Status.PASSED, "equal"
    return Line(status.value, _SIGNS[status], word, table)


def _tables(tables: Sequence[TableOutcome]) -> tuple[Line, ...]:
    """The largest tables; those that are not equal come first, so that none of them is cut off before an equal one."""
    order = {"failed": 0, "not_verified": 1, "passed": 2}
    lines = sorted(map(_compared, tables), key=lambda o: (order[o.tone], -o.item.total_bytes, o.item.name))
    return tuple(lines[:MOST_TABLES])


def _tables_line(record: ProofRecord, manifest: Manifest | None) -> str:
    tables = record.tables
    if not tables:
        held = manifest.fingerprint.tables if manifest else ()
        known = f" The manifest names {_count(len(held), 'table')} with {_count(sum(t.rows for t in held), 'row')}."
        return f"No table was compared.{known if held else ''}"
    tones = [_compared(table).tone for table in tables]
    words = {"passed": "equal", "failed": "not equal", "not_verified": "only counted"}
    told = [f"{tones.count(tone):,} {word}" for tone, word in words.items() if tone in tones]
    rows = sum(table.restored_rows or 0 for table in tables)
    cut = ""
    if len(tables) > MOST_TABLES:
        cut = f" The largest {MOST_TABLES} are shown, any that are not equal first;"
        cut += f" {len(tables) - MOST_TABLES:,} more are in the record."
    return f"{_count(len(tables), 'table')} compared, {_count(rows, 'row')} restored: {_listed(told)}.{cut}"


def _recovery(record: ProofRecord) -> Recovery:
    """Segments lie on a scale that ends at the target or, where that was missed, at the time that was needed."""
    seconds, target = record.rto_seconds, record.rto_target_seconds
    scale = max(seconds or 0.0, target or 0.0, sum(s for name, s in record.stages if name in _RECOVERY), 1e-9)
    longest = max((s for _, s in record.stages), default=0.0) or 1.0
    stages, left = [], 0.0
    for name, spent in record.stages:
        width = spent / scale * 100 if name in _RECOVERY else 0.0
        share, begin, wide = (f"{part:.3f}" for part in (spent / longest * 100, left, width))
        stages.append(Stage(name, spent, name in _RECOVERY, share, begin, wide))
        left += width
    tone, line = "not_verified", "The database was not restored, so the time to recover is not known."
    if seconds is not None and target is None:
        line = f"Usable after {_duration(seconds)}. No data class sets a recovery time objective."
    elif seconds is not None and target is not None:
        tone, word = "failed", f"missed by {_duration(seconds - target)}"
        if seconds <= target:
            tone, word = (
                "passed",
                f"met, with {seconds / scale * 100:.{0 if seconds > target / 10 else 1}f} % of it used",
            )
        line = f"Usable after {_duration(seconds)}: the target of {_duration(target)} is {word}."
    return Recovery(line, tone, f"{(target or scale) / scale * 100:.3f}", tuple(stages))


def _taken(record: ProofRecord, manifest: Manifest | None) -> str:
    """When the backup was taken, with its preposition; without a manifest its id still says so."""
    if manifest:
        return f"on {_moment(manifest.snapshot_at, manifest.timezone)}"
    try:
        moment = datetime.strptime(record.backup_id, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return f"for the partition {record.partition}"
    return f"on {_moment(moment, 'UTC')}"


def _moment(moment: datetime, zone: str) -> str:
    """`22 November 2026 at 02:00:03 CST (08:00:03 UTC)`, with the date in UTC where that is another."""
    utc = local = moment.astimezone(timezone.utc)
    with suppress(OSError, ValueError, KeyError):  # a zone that this machine does not know: UTC says it as well
        local = moment.astimezone(ZoneInfo(zone))
    offset = local.tzname() or "UTC"
    name = f"UTC{offset}" if offset[0] in "+-" else offset
    text = f"{_date(local)} at {local:%H:%M:%S} {name}"
    if name == "UTC":
        return text
    return f"{text} ({'' if local.date() == utc.date() else f'{_date(utc)}, '}{utc:%H:%M:%S} UTC)"


def _date(moment: datetime) -> str:
    return f"{moment.day} {_MONTHS.split()[moment.month - 1]} {moment.year}"


def _size(size: int) -> str:
    """`1.4 GB`, in powers of 1000 as disks are sold."""
    if size < 1000:
        return f"{size} B"
    power = next((power for power in (1, 2, 3) if size / 1000**power < 999.95), 4)
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def _duration(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.{0 if seconds == int(seconds) else 2 if seconds < 1 else 1}f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def _number(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`; empty parts are left out."""
    kept = [part for part in parts if part]
    return " and ".join([", ".join(kept[:-1]), kept[-1]] if len(kept) > 1 else kept)


def _plain(name: str) -> str:
    """`"public"."Lesson"` as `public.Lesson` where nothing needs its quotes to be told apart."""
    match = _PLAIN_NAME.fullmatch(name)
    return f"{match[1]}.{match[2]}" if match else name


def _visible(value: object) -> object:
    """Show control characters and changes of direction as escapes: a name must not be able to disguise itself.

    Markup (made by the template, escaped already) is a subclass of str and passes as it is.
    """
    if type(value) is not str:
        return value
    return "".join(
        f"\\u{ord(c):04x}"
        if _DIRECTIONS.match(c) or (c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cs"))
        else c
        for c in value
    )
