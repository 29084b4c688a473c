"""The proof record: what was checked about a backup, with what outcome; one file per proof beside the manifest."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.catalogue.sealed import seal, unseal
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict
from gs_backup_assets.errors import ExitStatus, StoreError

# Checks that decide the verdict: all must pass for PROVEN. The others are reported beside it.
DECISIVE_CHECKS = (
    "stored_bytes_match",
    "everything_included",
    "restore_clean",
    "rows_equal",
    "contents_equal",
    "schema_equal",
    "sequences_equal",
    "amcheck_clean",
)
STAGES = ("fetch", "cluster", "restore", "analyze", "equality", "schema", "amcheck", "foreign keys", "rules")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Blame(str, Enum):
    """Whose fault bad data is: a restored database that equals its source was broken there already."""

    PRODUCTION = "already broken in production"
    BACKUP = "the backup broke it"
    UNKNOWN = "cannot tell: the contents could not be compared with the source"


class RuleOutcome(_Record):
    """Outcome of one data rule. `sample_keys` are at most 20 primary keys, never other columns."""

    id: str
    title: str
    severity: Literal["critical", "warning"]
    table: str | None
    status: Status
    unexpected: int | None = None
    rows: int | None = None
    sample_keys: tuple[str, ...] = ()
    reason: str | None = None
    seconds: float | None = None


class ForeignKeyOutcome(_Record):
    """Outcome of the anti-join for one declared foreign key. `orphans` counts referencing rows without a parent."""

    name: str
    table: str
    columns: tuple[str, ...]
    references: str
    validated: bool
    status: Status
    orphans: int | None = None
    sample_keys: tuple[str, ...] = ()
    reason: str | None = None


class TableOutcome(_Record):
    """One table, as it was in the source and as it came back; None where it was not counted or is not there."""

    name: str
    source_rows: int | None
    restored_rows: int | None
    contents_equal: bool | None
    total_bytes: int


class ProofRecord(_Record):
    """A finished proof. `manifest_sha256` ties it to the very manifest that was proved, `store` names the copy."""

    schema_version: Literal[1, 2] = 2
    backup_id: str
    database: str
    partition: str
    manifest_sha256: str
    started_at: datetime
    finished_at: datetime
    software: str
    programs: str | None
    server: str | None
    store: Literal["primary", "offsite"] = "primary"
    verdict: Verdict
    checks: tuple[CheckResult, ...]
    rules: tuple[RuleOutcome, ...]
    foreign_keys: tuple[ForeignKeyOutcome, ...]
    tables: tuple[TableOutcome, ...]
    blame: Blame
    stage_seconds: dict[str, float]
    rto_seconds: float | None
    rto_target_seconds: float | None

    @property
    def stages(self) -> tuple[tuple[str, float], ...]:
        """Seconds of each stage of the proof, in the order of the work."""
        return tuple((name, self.stage_seconds[name]) for name in STAGES if name in self.stage_seconds)

    def check(self, name: str) -> CheckResult:
        """The outcome of a check by name; KeyError when the proof does not have it."""
        return next(check for check in self.checks if check.name == name)

    @property
    def broken_rules(self) -> tuple[RuleOutcome, ...]:
        return tuple(rule for rule in self.rules if rule.status is Status.FAILED)

    @property
    def exit_status(self) -> ExitStatus:
        """1 when anything failed, the data included; 3 when anything could not be verified; else 0."""
        statuses = (
            {c.status for c in self.checks} | {r.status for r in self.rules} | {f.status for f in self.foreign_keys}
        )
        if Status.FAILED in statuses or self.verdict is Verdict.FAILED:
            return ExitStatus.FAILED
        if Status.NOT_VERIFIED in statuses or self.verdict is Verdict.NOT_VERIFIED:
            return ExitStatus.NOT_VERIFIED
        return ExitStatus.GOOD


def encode(record: ProofRecord) -> bytes:
    """The record as canonical JSON with a digest of its own contents, as the manifest has one."""
    return seal("proof", record.model_dump(mode="json"))


def decode(data: bytes, *, key: str) -> ProofRecord:
    """Read a record; StoreError (`PROOF_DAMAGED`) when it is not what was written."""
    try:
        return ProofRecord.model_validate(unseal("proof", data))
    except ValueError:  # pydantic's ValidationError is one
        raise StoreError(
            "PROOF_DAMAGED", f"{key} is not a proof record.", "Prove the backup again: `gs-backup verify`."
        ) from None
