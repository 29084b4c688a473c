"""Records of recovery drills: where to, what was reached, what was found. They are the history of what is covered.

<database>/drills/<week>/<stamp>.json
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from gs_backup_assets.catalogue.proof import ForeignKeyOutcome, RuleOutcome
from gs_backup_assets.catalogue.sealed import seal
from gs_backup_assets.catalogue.sealed_records import read_newest
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict
from gs_backup_assets.errors import ExitStatus
from gs_backup_assets.vault.store import Store

FOLDER = "drills"
_STEM = "%Y%m%dT%H%M%S%fZ"
_KEY = re.compile(r"\d{4}-\d\d-\d\d/\d{8}T\d{12}Z\.json")
# What decides: that the point was reached, exactly, out of sound backups. The others are reported beside the verdict.
DECISIVE_CHECKS = (
    "stored_bytes_match",
    "backup_manifest_matches",
    "target_reached",
    "commits_before_present",
    "commits_after_absent",
    "page_checksums_valid",
    "amcheck_clean",
    "rows_equal",
    "contents_equal",
    "schema_equal",
    "sequences_equal",
)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BoundaryRecord(_Record):
    """A commit next to the point, as the archived log has it."""

    xid: int
    lsn: str
    at: AwareDatetime


class DrillRecord(_Record):
    """A finished drill. Times are aware, in UTC.

    `target` is as `gs-backup recover --to` reads it; `chosen` says whether it was drawn. `window_start` and
    `window_end` are the points that could be recovered to when it was made, `recoverable_age_seconds` is what would
    have been lost then. `backups` is the chain that was used, the full one first.
    """

    schema_version: Literal[1] = 1
    database: str
    partition: str
    started_at: AwareDatetime
    finished_at: AwareDatetime
    software: str
    store: Literal["primary", "offsite"]
    system_identifier: str
    server: str
    target: str
    chosen: Literal["random", "given"]
    achieved_lsn: str | None
    achieved_at: AwareDatetime | None
    timeline: int | None
    backups: tuple[str, ...]
    segments: int
    last_before: BoundaryRecord | None
    first_after: BoundaryRecord | None
    verdict: Verdict
    checks: tuple[CheckResult, ...]
    rules: tuple[RuleOutcome, ...]
    foreign_keys: tuple[ForeignKeyOutcome, ...]
    stage_seconds: dict[str, float]
    rto_seconds: float | None
    rto_target_seconds: float | None
    recoverable_age_seconds: float | None
    window_start: AwareDatetime | None
    window_end: AwareDatetime | None

    @property
    def id(self) -> str:
        """The moment at which it ended, by which it is called."""
        return f"{self.finished_at:{_STEM}}"

    def check(self, name: str) -> CheckResult:
        """The outcome of a check by name; KeyError when the drill does not have it."""
        found = {check.name: check for check in self.checks}
        return found[name]

    @property
    def exit_status(self) -> ExitStatus:
        """1 when anything failed, the data included; 3 when anything could not be verified; else 0."""
        found: tuple[CheckResult | RuleOutcome | ForeignKeyOutcome, ...] = (
            *self.checks,
            *self.rules,
            *self.foreign_keys,
        )
        if self.verdict is Verdict.FAILED or any(outcome.status is Status.FAILED for outcome in found):
            return ExitStatus.FAILED
        return ExitStatus.NOT_VERIFIED if self.verdict is Verdict.NOT_VERIFIED else ExitStatus.GOOD


def drill_key(record: DrillRecord) -> str:
    """`<database>/drills/<week>/<stamp>.json`."""
    return f"{record.database}/{FOLDER}/{record.partition}/{record.id}.json"


def put_drill(store: Store, record: DrillRecord) -> str:
    """Store a record; returns its key. Raises what the store raises."""
    key = drill_key(record)
    store.put_bytes(seal("drill", record.model_dump(mode="json")), key)
    return key


def read_drills(store: Store, database: str, *, newest: int) -> tuple[DrillRecord, ...]:
    """The newest drills that can be read, the oldest first. A damaged one proves nothing, and is left out."""
    return read_newest(store, f"{database}/{FOLDER}", _KEY, name="drill", model=DrillRecord, newest=newest)
