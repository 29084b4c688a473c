"""Looks whether the audit log is what was written: its chain, its copy in the other store, and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.audit import FIRST_PREVIOUS, RESUMED, AuditLog, AuditRecord, decode, sha256
from gs_backup_assets.catalogue.manifest import BULK, KINDS, Kind, parse_id
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.store import Listed, Store, keys
from gs_backup_assets.words import counted

CHECK = "audit_intact"
LOST = "AUDIT_LOST"
_SHOWN = 100
_HINT = "Somebody changed the log: docs/audit.md says how to find out what was there."
_PROOF_TIME = "%Y%m%dT%H%M%S%fZ"


@dataclass(frozen=True)
class _Reading:
    """One log, or the copy of one, as it was read: lines by number, and objects that are no records."""

    log: AuditLog
    lines: dict[int, bytes]
    strays: tuple[str, ...]

    @cached_property
    def decoded(self) -> dict[int, AuditRecord | StoreError]:
        return {number: _decoded(self.log, number, line) for number, line in sorted(self.lines.items())}

    @property
    def records(self) -> list[AuditRecord]:
        """What can be read, in its order."""
        return [record for record in self.decoded.values() if isinstance(record, AuditRecord)]

    @property
    def losses(self) -> Iterator[tuple[datetime, datetime]]:
        """From when to when records may be lost: the log went on from its copy, after the last that had been copied."""
        for number, record in self.decoded.items():
            before = self.decoded.get(number - 1)
            if isinstance(record, AuditRecord) and record.event == RESUMED and isinstance(before, AuditRecord):
                yield before.at, record.at


@dataclass(frozen=True)
class _Thing:
    """Something in a store that must have a record: of one of `events`, with this value of this id, of this kind."""

    events: tuple[str, ...]
    id: str
    value: str
    since: datetime
    key: str
    kind: Kind


@dataclass(frozen=True)
class _Beside:
    """What is read of a store before any log: things that must have a record, and the copy of the other store's log."""

    things: tuple[_Thing, ...]
    copy: _Reading


def check_audit(store: Store, database: str, *, other: Store | None = None) -> CheckResult:
    """Find every edit, gap and reorder in a store's log, in the other store's, and in the copies that each has.

    Without the other store the copy of its log stands for it. No record at all is NOT_VERIFIED, and so is a sound log
    while the other store cannot be read or has no copy, or when records were lost with a store. Raises StoreError when
    the store itself cannot be read.
    """
    unreadable: StoreError | None = None
    theirs: _Beside | None = None
    logs: list[_Reading] = []
    # In this order, as work goes on meanwhile: what lies in a store gets its record, and then the record its copy.
    try:
        theirs = _beside(other, database) if other is not None else None
    except StoreError as error:
        unreadable = error
    ours = _beside(store, database)
    logs.append(_read(AuditLog(store, database)))
    try:
        if other is not None and theirs is not None:
            logs.append(_read(AuditLog(other, database)))
    except StoreError as error:
        unreadable, theirs = error, None
    things = [*ours.things, *(theirs.things if theirs is not None else ())]
    if theirs is None:
        logs.append(ours.copy)
        copies = []
    else:
        copies = [theirs.copy, ours.copy]
    findings = [finding for reading in (*logs, *copies) for finding in _chain(reading)]
    findings += [finding for log, copy in zip(logs, copies, strict=False) for finding in _differences(log, copy)]
    findings += _left_out(logs, things)
    return _result(logs, copies, findings, len(things), unreadable)


def _beside(store: Store, database: str) -> _Beside:
    return _Beside(tuple(_things(store, database)), _read(AuditLog(store, database, copied=True)))


def _read(log: AuditLog) -> _Reading:
    found = list(keys(log.store, log.folder))
    numbers = sorted(number for key in found if (number := log.number(key)) is not None)
    if numbers != list(range(1, len(numbers) + 1)):  # a folder that is listed while it grows may show later names only
        found = list(keys(log.store, log.folder))
    named = {number: key for key in found if (number := log.number(key)) is not None}
    lines = dict(zip(named, log.lines(list(named.values())), strict=True))
    return _Reading(log, lines, tuple(key for key in found if log.number(key) is None))


def _decoded(log: AuditLog, number: int, line: bytes) -> AuditRecord | StoreError:
    key = log.key(number)
    try:
        record = decode(line, key=key)
    except StoreError as error:
        return error
    if (record.sequence, record.database) != (number, log.database):
        message = f"{key} holds record {record.sequence} of {record.database}."
        return StoreError("AUDIT_REORDERED", message, _HINT)
    return record


def _chain(reading: _Reading) -> Iterator[Finding]:
    where = reading.log.store.describe()
    for key in reading.strays:
        yield _finding("AUDIT_DAMAGED", f"{where}: {key} is not a record of the audit log.")
    before = 0
    for number, record in reading.decoded.items():
        if number > before + 1:
            missing = f"Records {before + 1} to {number - 1} are" if number > before + 2 else f"Record {before + 1} is"
            yield _finding("AUDIT_GAP", f"{where}: {missing} missing in {reading.log.folder}.")
        if isinstance(record, StoreError):
            yield _finding(record.code, f"{where}: {record.message}")
        elif number == 1 and record.previous != FIRST_PREVIOUS:
            yield _finding("AUDIT_EDITED", f"{where}: {reading.log.key(1)} was edited: it is not the first record.")
        elif number == before + 1 and number > 1:
            earlier = reading.decoded[before]
            if isinstance(earlier, AuditRecord) and sha256(reading.lines[before]) != record.previous:
                yield _finding(
                    "AUDIT_EDITED",
                    f"{where}: {reading.log.key(before)} is not what record {number} was written after:"
                    " one of the two was edited.",
                )
        before = number


def _differences(log: _Reading, copy: _Reading) -> Iterator[Finding]:
    lacking = sorted(copy.lines.keys() - log.lines.keys())
    other = sorted(n for n in copy.lines.keys() & log.lines.keys() if copy.lines[n] != log.lines[n])
    where = f"{copy.log.store.describe()} has a copy of the log of {log.log.store.describe()}"
    if lacking:
        yield _finding("AUDIT_DIFFERS", f"{where} with {_named(lacking)}, which the log lacks.")
    if other:
        yield _finding("AUDIT_DIFFERS", f"{where} that differs in {_named(other)}.")


def _named(numbers: Sequence[int]) -> str:
    words = ", ".join(str(number) for number in numbers[:5])
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"record{'s' if len(numbers) > 1 else ''} {words}{more}"


def _things(store: Store, database: str) -> Iterator[_Thing]:
    """What lies in a store and must have a record."""
    for kind in KINDS:
        for listed in store.objects(f"{database}/{kind}", skip=BULK):
            parts = listed.key.removeprefix(f"{database}/{kind}/").split("/")
            try:
                thing = _thing(listed, parts, kind)
            except ValueError:  # a name that no backup and no proof has
                continue
            if thing is not None:
                yield thing


def _thing(listed: Listed, parts: Sequence[str], kind: Kind) -> _Thing | None:
    """ValueError when a name is not the moment that it should be."""
    match parts:
        case [_, backup, manifests.NAME]:
            return _Thing(("backup", "copy"), "backup", backup, parse_id(backup), listed.key, kind)
        case [_, backup, manifests.HOLD]:
            return _Thing(("hold",), "backup", backup, listed.modified, listed.key, kind)
        case [_, _, manifests.PROOFS, name] if name.endswith(".json"):
            stem = name.removesuffix(".json")
            proved = datetime.strptime(stem, _PROOF_TIME).replace(tzinfo=timezone.utc)
            return _Thing(("proof",), "proof", stem, proved, listed.key, kind)
    return None


def _left_out(logs: Sequence[_Reading], things: Sequence[_Thing]) -> Iterator[Finding]:
    """Things that came after the log was begun, and of which no record tells: its end was cut off, or lost."""
    records = [record for log in logs for record in log.records]
    if not records:
        return
    begun = min(log.records[0].at for log in logs if log.records)
    told = {
        (record.event, name, value, record.ids.get("kind", "logical"))
        for record in records
        for name, value in record.ids.items()
    }
    losses = [loss for log in logs for loss in log.losses]
    for thing in things:
        wanted = ((event, thing.id, thing.value, thing.kind) for event in thing.events)
        if thing.since <= begun or not told.isdisjoint(wanted):
            continue
        lost = any(since < thing.since <= until for since, until in losses)
        hint = "Its record was removed, or the run was killed before it could write one: docs/audit.md."
        if lost:
            hint = "Its record was lost with the log, which went on from its copy: docs/audit.md."
        yield Finding(code=LOST if lost else "AUDIT_CUT", message=f"No record tells of {thing.key}.", hint=hint)


def _finding(code: str, message: str) -> Finding:
    return Finding(code=code, message=message, hint=_HINT)


def _result(
    logs: Sequence[_Reading],
    copies: Sequence[_Reading],
    findings: Sequence[Finding],
    things: int,
    unreadable: StoreError | None,
) -> CheckResult:
    records, copied = (sum(len(reading.lines) for reading in readings) for readings in (logs, copies))
    resumed = sum(1 for log in logs for _ in log.losses)
    if any(finding.code != LOST for finding in findings):
        status, summary = Status.FAILED, f"{counted(len(findings), 'finding')}: the log is not what was written"
    elif findings:
        status = Status.NOT_VERIFIED
        summary = f"the log was lost and goes on from its copy; of {counted(len(findings), 'thing')} no record is left"
    elif not records:
        status, summary = Status.NOT_VERIFIED, f"{logs[0].log.store.describe()} has no audit log"
        hint = "It begins with the next backup, proof or restore."
        if things:
            hint += f" If it was there before, somebody removed it: {things} backups, proofs and holds lie here."
        findings = [Finding(code="AUDIT_EMPTY", message=f"There is no record below {logs[0].log.folder}.", hint=hint)]
    elif unreadable is not None:
        status, summary = Status.NOT_VERIFIED, "the log is sound in itself, but the other store cannot be read"
        findings = [Finding(code=unreadable.code, message=unreadable.message, hint=unreadable.hint)]
    elif copies and logs[0].lines and not copies[0].lines:
        where = copies[0].log.store.describe()
        status, summary = Status.NOT_VERIFIED, f"the log is sound in itself, but {where} has no copy of it"
        hint = "The next off-site copy brings it; if one was there, or the disk is not mounted, find out what happened."
        findings = [Finding(code="AUDIT_NOT_COPIED", message=f"{copies[0].log.folder} is empty in {where}.", hint=hint)]
    else:
        status = Status.PASSED
        second = f"{copied} of them also in the other store" if copies else "without a second copy to compare"
        accounted = f"{things} backups, proofs and holds are accounted for"
        again = f"; lost and gone on from its copy {counted(resumed, 'time')}" if resumed else ""
        summary = f"{counted(records, 'record')} in an unbroken chain, {second}; {accounted}{again}"
    metrics = {"audit_records": records, "audit_records_copied": copied, "audit_findings": len(findings)}
    return CheckResult(
        name=CHECK, status=status, summary=summary, findings=tuple(findings[:_SHOWN]), metrics=dict(metrics)
    )
