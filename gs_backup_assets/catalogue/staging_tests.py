"""Records of staging tests: which backup was restored there, how long it took, whether the application works with it.

<database>/staging-tests/<month>/<stamp>.json
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from gs_backup_assets.catalogue.sealed import seal
from gs_backup_assets.catalogue.sealed_records import read_newest
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict
from gs_backup_assets.errors import ExitStatus
from gs_backup_assets.vault.store import Store

FOLDER = "staging-tests"
_STEM = "%Y%m%dT%H%M%S%fZ"
_KEY = re.compile(r"\d{4}-\d\d-\d\d/\d{8}T\d{12}Z\.json")


class StagingTestRecord(BaseModel):
    """A finished test. Times are aware, in UTC; `partition` is the first day of its month.

    `staging` is the name of the database, `repaired` what an earlier test that was killed had left and was put right.
    `rto_seconds` are those from the stop of the application until it was healthy, without the masking.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    database: str
    partition: str
    started_at: AwareDatetime
    finished_at: AwareDatetime
    software: str
    store: Literal["primary", "offsite"]
    backup_id: str
    backup_partition: str
    staging: str
    server: str
    repaired: str | None
    anonymised: bool
    verdict: Verdict
    checks: tuple[CheckResult, ...]
    stage_seconds: dict[str, float]
    rto_seconds: float | None
    rto_target_seconds: float | None

    @property
    def id(self) -> str:
        """The moment at which it ended, by which it is called."""
        return f"{self.finished_at:{_STEM}}"

    def check(self, name: str) -> CheckResult:
        """The outcome of a check by name; KeyError when the test does not have it."""
        return {check.name: check for check in self.checks}[name]

    @property
    def first_failure(self) -> CheckResult | None:
        """The check at which it ended; None when nothing is wrong."""
        return next((check for check in self.checks if check.status is not Status.PASSED), None)

    @property
    def exit_status(self) -> ExitStatus:
        """0 when all is good, 1 when a check failed, 3 when only something could not be verified."""
        statuses = {check.status for check in self.checks}
        if self.verdict is not Verdict.PROVEN or Status.FAILED in statuses:
            return ExitStatus.FAILED
        return ExitStatus.NOT_VERIFIED if Status.NOT_VERIFIED in statuses else ExitStatus.GOOD


def put_staging_test(store: Store, record: StagingTestRecord) -> str:
    """Store a record; returns its key. Raises what the store raises."""
    key = f"{record.database}/{FOLDER}/{record.partition}/{record.id}.json"
    store.put_bytes(seal("staging_test", record.model_dump(mode="json")), key)
    return key


def read_staging_tests(store: Store, database: str, *, newest: int) -> tuple[StagingTestRecord, ...]:
    """The newest tests that can be read, the oldest first. A damaged record proves nothing, and is left out."""
    return read_newest(store, f"{database}/{FOLDER}", _KEY, name="staging_test", model=StagingTestRecord, newest=newest)
