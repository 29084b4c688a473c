"""Puts a masked copy to the proof: none of the original values, foreign keys as they were."""

from __future__ import annotations

from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status
from gs_backup_assets.integrity.foreign_keys import ForeignKeyOutcome, check_foreign_keys
from gs_backup_assets.integrity.masking_suite import ProvedColumn, ProvedTable, prove_columns
from gs_backup_assets.integrity.rules import literal
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.postgres.inventory import quote
from gs_backup_assets.postgres.masking_values import FORMATS, HASH_FORMATS, says_nothing
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.staging.masking import PROOF_SCHEMA, Masked, proof_digest
from gs_backup_assets.recovery.staging.masking_plan import MaskedColumn, MaskedTable
from gs_backup_assets.words import counted, referring

_LARGE_OBJECTS = "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata"


def prove_masked(target: Target, masked: Masked, progress: Progress) -> CheckResult:
    """The check `anonymised` of a copy that `mask_database` has changed.

    Great Expectations compares digests of the originals, which the masking left in a schema of their own. A foreign key
    that more rows break than before fails as well: FOREIGN_KEY_BROKEN.
    """
    with progress.stage("prove masked"):
        check = prove_columns([_proved(table) for table in masked.plan.tables], target)
        with connect(target) as connection:
            broken = _broken(masked.foreign_keys, check_foreign_keys(connection))
            check = _with_large_objects(check, query(connection, _LARGE_OBJECTS)[0][0])
    if not broken:
        return check
    return check.model_copy(update={"status": Status.FAILED, "findings": (*check.findings, *broken)})


def _with_large_objects(check: CheckResult, number: int) -> CheckResult:
    """No rule reaches large objects: that they are there as they were has to be known."""
    if not number:
        return check
    finding = Finding(
        code="LARGE_OBJECTS_NOT_MASKED",
        message=f"{counted(number, 'large object')} as in production.",
        hint="Drop them in the copy when there is personal data in them.",
    )
    return check.model_copy(update={"findings": (*check.findings, finding)})


def _broken(before: tuple[ForeignKeyOutcome, ...], after: tuple[ForeignKeyOutcome, ...]) -> list[Finding]:
    had = {(key.table, key.name): (key.status, key.orphans) for key in before}
    return [
        Finding(
            code="FOREIGN_KEY_BROKEN",
            message=f"{key.table} {key.name}: {referring(key.orphans or 0)} since the masking.",
            hint="The columns on both of its sides have to be masked in the same way.",
        )
        for key in after
        if (key.status, key.orphans) != had.get((key.table, key.name))
    ]


def _proved(table: MaskedTable) -> ProvedTable:
    return ProvedTable(
        relation=table.relation,
        schema=table.schema,
        name=table.name,
        key=tuple(column.name for column in table.key),
        originals=f"{PROOF_SCHEMA}.o{table.number}",
        salt=f"{PROOF_SCHEMA}.salt",
        columns=tuple(_column(masked, number) for number, masked in enumerate(table.columns, 1)),
    )


def _column(masked: MaskedColumn, number: int) -> ProvedColumn:
    column = masked.column
    own = f"t.{quote(column.name)}"
    nothing = says_nothing(column, own)
    return ProvedColumn(
        label=column.label,
        name=column.name,
        digest=f"d{number}",
        digest_of=proof_digest(own),
        wrong=_wrong(masked, own, nothing),
        nothing=nothing,
        replaced=not column.generated and masked.group is None,
        dense=masked.group is not None and not masked.group.scattered,
    )


def _wrong(masked: MaskedColumn, own: str, nothing: str | None) -> str | None:
    if masked.column.generated:
        return None
    if masked.constant is not None:
        return f"{own}::text IS DISTINCT FROM {literal(masked.constant)}::{masked.column.type}::text"
    if masked.group is None:
        return f"{own} IS NOT NULL"
    pattern = HASH_FORMATS[masked.column.kind] if masked.rule == "hash" else FORMATS.get(masked.rule)
    if pattern is None:  # a date: the type is all that there is to it
        return None
    return f"{own}::text !~ {literal(pattern)} AND ({nothing or 'false'}) IS NOT TRUE"
