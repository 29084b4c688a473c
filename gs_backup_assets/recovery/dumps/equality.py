"""Compares a restored database with what the manifest says of the source: rows, contents, sequences, schema. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gs_backup_assets.catalogue.proof import TableOutcome
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, not_verified
from gs_backup_assets.postgres.fingerprint import Fingerprint, LargeObjectsPrint, Level, SequencePrint, SequenceState
from gs_backup_assets.postgres.inventory import Omission
from gs_backup_assets.postgres.schema import SchemaObject
from gs_backup_assets.postgres.settings import RecordedSetting
from gs_backup_assets.words import counted

_BROKE = "The backup does not hold what the source held: use another one, and keep this one to find out why."
_MOST_FINDINGS = 50
# What is not there at all, as opposed to what is there and differs: the cause may be an error of the restore.
_ABSENT = frozenset({"TABLE_MISSING", "SEQUENCE_MISSING", "OBJECT_MISSING", "MATERIALIZED_VIEW_UNPOPULATED"})


def _result(
    name: str, findings: Sequence[Finding], passed: str, failed: str, metrics: dict[str, float | int]
) -> CheckResult:
    status = Status.FAILED if findings else Status.PASSED
    shown = tuple(sorted(findings, key=lambda finding: finding.code in _ABSENT)[:_MOST_FINDINGS])
    return CheckResult(
        name=name, status=status, summary=failed if findings else passed, findings=shown, metrics=metrics
    )


def explained(check: CheckResult, restore: CheckResult) -> CheckResult:
    """Leave a comparison open where things are only absent, and the restore tells of things that it lacked.

    What could not be created because the server lacks an extension, or because the dump left out what it needs, is
    not lost by the backup. A thing that is there and differs fails whatever the restore says.
    """
    absent = check.status is Status.FAILED and all(finding.code in _ABSENT for finding in check.findings)
    if restore.status is Status.NOT_VERIFIED and absent:
        summary = f"{check.summary}; {restore.summary}"
        return check.model_copy(update={"status": Status.NOT_VERIFIED, "summary": summary})
    return check


def everything_included(omissions: Sequence[Omission]) -> CheckResult:
    """Whether every row of the source is in the backup; what is not there cannot be proved."""
    lost = [o for o in omissions if o.loses_data]
    metrics: dict[str, float | int] = {"omissions": len(omissions), "omissions_with_data": len(lost)}
    if not lost:
        listed = f"; {len(omissions)} noted" if omissions else ""
        return CheckResult(
            name="everything_included",
            status=Status.PASSED,
            summary=f"no rows of the source were left out{listed}",
            metrics=metrics,
        )
    hint = "`gs-backup doctor` prints the GRANTs that the backup role needs."
    findings = tuple(
        Finding(code="OMITTED", message=f"{o.name}: {o.reason}.", hint=hint) for o in lost[:_MOST_FINDINGS]
    )
    return CheckResult(
        name="everything_included",
        status=Status.NOT_VERIFIED,
        summary=f"{len(lost)} objects with data are not in the backup",
        findings=findings,
        metrics=metrics,
    )


def compare_tables(source: Fingerprint, restored: Fingerprint) -> tuple[TableOutcome, ...]:
    """Every table of either side, by name, with rows of both and whether the contents are equal."""
    ours = {t.qualified: t for t in source.tables}
    theirs = {t.qualified: t for t in restored.tables}
    outcomes = []
    for name in sorted({*ours, *theirs}):
        mine, yours = ours.get(name), theirs.get(name)
        known = mine is not None and yours is not None and mine.content is not None and yours.content is not None
        size = mine or yours
        outcomes.append(
            TableOutcome(
                name=name,
                source_rows=mine.rows if mine else None,
                restored_rows=yours.rows if yours else None,
                contents_equal=mine.content == yours.content if known and mine and yours else None,
                total_bytes=size.total_bytes if size else 0,
            )
        )
    return tuple(outcomes)


def rows_equal(source: Fingerprint, tables: Sequence[TableOutcome]) -> CheckResult:
    """Row counts of every table, and tables that one side has alone."""
    if source.level is Level.OFF:
        return not_verified("rows_equal", "no fingerprint was taken with this backup", code="NO_FINGERPRINT")
    findings = []
    for table in tables:
        if table.restored_rows is None:
            findings.append(Finding(code="TABLE_MISSING", message=f"{table.name} was not restored.", hint=_BROKE))
        elif table.source_rows is None:
            findings.append(
                Finding(code="TABLE_UNEXPECTED", message=f"{table.name} was not in the source.", hint=_BROKE)
            )
        elif table.source_rows != table.restored_rows:
            message = f"{table.name}: {table.source_rows} rows in the source, {table.restored_rows} restored."
            findings.append(Finding(code="ROWS_DIFFER", message=message, hint=_BROKE))
    total = sum(table.restored_rows or 0 for table in tables)
    return _result(
        "rows_equal",
        findings,
        f"{total} rows in {len(tables)} tables, as in the source",
        f"{len(findings)} of {len(tables)} tables have other rows than the source",
        {"restored_rows": total, "restored_tables": len(tables)},
    )


def contents_equal(
    source: Fingerprint, restored: Fingerprint, tables: Sequence[TableOutcome], *, owners: bool = True
) -> CheckResult:
    """Content hashes of every table and of the large objects, and with `owners` whose those are."""
    if source.level is not Level.FULL:
        return not_verified(
            "contents_equal",
            f"the fingerprint was taken at level {source.level.value!r}, without contents",
            code="NO_FINGERPRINT",
            hint="Set logical.fingerprint to full.",
        )
    differing = [t for t in tables if t.contents_equal is not True]
    findings = [
        Finding(
            code="TABLE_MISSING" if t.restored_rows is None else "CONTENTS_DIFFER",
            message=f"{t.name} does not hold the source's rows.",
            hint=_BROKE,
        )
        for t in differing
    ]
    if not _same_large_objects(source.large_objects, restored.large_objects, owners):
        assert source.large_objects is not None
        count = restored.large_objects.count if restored.large_objects else 0
        message = f"Large objects: {source.large_objects.count} in the source, {count} restored, or other contents."
        findings.append(Finding(code="LARGE_OBJECTS_DIFFER", message=message, hint=_BROKE))
    return _result(
        "contents_equal",
        findings,
        f"the contents of {len(tables)} tables are those of the source's snapshot",
        f"{len(findings)} differ from the source's snapshot",
        {"tables_compared": len(tables), "contents_differing": len(findings)},
    )


def _same_large_objects(source: LargeObjectsPrint | None, restored: LargeObjectsPrint | None, owners: bool) -> bool:
    if source is None or restored is None:  # they are not in the dump, as the omissions say
        return source is None
    same = (source.count, source.content) == (restored.count, restored.content)
    return same and (source.owners == restored.owners or not owners)


def sequences_equal(source: Fingerprint, restored: Fingerprint, *, omitted: Collection[str] = ()) -> CheckResult:
    """Every sequence between its states before and after the dump: sequences move on, whatever the snapshot.

    Those in `omitted` (quoted, qualified) are restored without their states.
    """
    if source.level is Level.OFF:
        return not_verified("sequences_equal", "no fingerprint was taken with this backup", code="NO_FINGERPRINT")
    theirs = {s.qualified: s for s in restored.sequences}
    findings = []
    for sequence in source.sequences:
        found = theirs.pop(sequence.qualified, None)
        if found is None:
            message = f"{sequence.qualified} was not restored."
            findings.append(Finding(code="SEQUENCE_MISSING", message=message, hint=_BROKE))
        elif not _between(sequence, found.before):
            message = (
                f"{sequence.qualified} stands at {_show(found.before)}; in the source it went from"
                f" {_show(sequence.before)} to {_show(sequence.after)}."
            )
            findings.append(Finding(code="SEQUENCE_DIFFERS", message=message, hint=_BROKE))
    findings += [
        Finding(code="SEQUENCE_UNEXPECTED", message=f"{name} was not in the source.", hint=_BROKE)
        for name in theirs
        if name not in omitted
    ]
    return _result(
        "sequences_equal",
        findings,
        f"{counted(len(source.sequences), 'sequence')}, as in the source",
        f"{len(findings)} sequences differ",
        {"sequences_compared": len(source.sequences)},
    )


def _between(sequence: SequencePrint, state: SequenceState) -> bool:
    if state in (sequence.before, sequence.after):
        return True
    if sequence.before == sequence.after:
        return False
    low, here, high = (_position(s, sequence.increment) for s in (sequence.before, state, sequence.after))
    if high < low or sequence.cycles:  # it was set back or went round while the dump ran: any state is possible
        return True
    return low <= here <= high


def _position(state: SequenceState, increment: int) -> int:
    return (state.last_value if increment > 0 else -state.last_value) * 2 + int(state.is_called)


def _show(state: SequenceState) -> str:
    return f"{state.last_value}{'' if state.is_called else ' (not called)'}"


def _in_every_database(item: SchemaObject) -> bool:
    """PL/pgSQL: pg_dump lists it only where somebody made it anew, and no restore does."""
    return (item.type, item.name) in (("EXTENSION", "plpgsql"), ("COMMENT", "EXTENSION plpgsql"))


def _identity(item: SchemaObject) -> tuple[str, str, str, str]:
    """Labels are ambiguous (dots in names), and default privileges are told apart by whose they are only."""
    return item.type, item.object_schema, item.name, item.owner if item.is_privilege else ""


def schema_equal(
    source: Sequence[SchemaObject],
    restored: Sequence[SchemaObject],
    source_settings: Sequence[RecordedSetting],
    restored_settings: Sequence[RecordedSetting],
    *,
    owners: bool,
    around: Sequence[Finding] = (),
) -> CheckResult:
    """Every object's definition, with owners and privileges if `owners`, and the database's settings.

    `around` is what `surroundings` found to differ about the objects' surroundings.
    """
    mine, yours = (
        {_identity(o): o for o in side if (owners or not o.is_privilege) and not _in_every_database(o)}
        for side in (source, restored)
    )
    findings = [*around]
    for identity in sorted({*mine, *yours}):
        a, b = mine.get(identity), yours.get(identity)
        label = (a or b or mine[identity]).label
        if b is None:
            findings.append(Finding(code="OBJECT_MISSING", message=f"{label} was not restored.", hint=_BROKE))
        elif a is None:
            findings.append(Finding(code="OBJECT_UNEXPECTED", message=f"{label} was not in the source.", hint=_BROKE))
        elif a.sha256 != b.sha256:
            findings.append(Finding(code="OBJECT_DIFFERS", message=f"{label} has another definition.", hint=_BROKE))
        elif owners and a.owner != b.owner:
            message = f"{label} belongs to {b.owner}, in the source to {a.owner}."
            findings.append(Finding(code="OWNER_DIFFERS", message=message, hint=_BROKE))
    findings += _settings_differ([s for s in source_settings if owners or not s.role], restored_settings)
    scope = "" if owners else "; owners and privileges were not compared on this server"
    return _result(
        "schema_equal",
        findings,
        f"{len(mine)} objects are defined as in the source{scope}",
        f"{len(findings)} objects differ",
        {"objects_compared": len(mine), "objects_differing": len(findings)},
    )


def _settings_differ(source: Sequence[RecordedSetting], restored: Sequence[RecordedSetting]) -> list[Finding]:
    """Settings by their names and the digests of their values: a value may be a secret, and is never told."""
    mine, yours = ({(s.role, s.name): s for s in settings} for settings in (source, restored))
    messages = []
    for key in sorted({*mine, *yours}):
        a, b = mine.get(key), yours.get(key)
        if b is None:
            messages.append(f"The setting {mine[key].label} was not restored.")
        elif a is None:
            messages.append(f"The setting {b.label} was not in the source.")
        elif a.sha256 != b.sha256:
            messages.append(f"The setting {b.label} has another value than in the source.")
    return [Finding(code="SETTING_DIFFERS", message=message, hint=_BROKE) for message in messages]
