"""The vocabulary of proofs: the status of a check, a finding with a stable code, and the verdict of a backup."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from pydantic import BaseModel, ConfigDict


class Status(str, Enum):
    """Outcome of one check. A check that could not run is `NOT_VERIFIED`, never `PASSED`."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_VERIFIED = "not_verified"


class Verdict(str, Enum):
    """What is known about a backup after it was put to the proof."""

    PROVEN = "PROVEN"
    FAILED = "FAILED"
    NOT_VERIFIED = "NOT_VERIFIED"


class Finding(BaseModel):
    """One thing that a check found: a stable code, what it is, and what to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    message: str
    hint: str = ""


class CheckResult(BaseModel):
    """Outcome of one named check; `metrics` are plain numbers (rows, bytes, seconds) for plots."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    status: Status
    summary: str
    findings: tuple[Finding, ...] = ()
    metrics: dict[str, float | int] = {}


def not_verified(name: str, reason: str, *, code: str = "NOT_RUN", hint: str = "") -> CheckResult:
    """A check that could not run, with its reason."""
    return CheckResult(
        name=name, status=Status.NOT_VERIFIED, summary=reason, findings=(Finding(code=code, message=reason, hint=hint),)
    )


def verdict_of(checks: Iterable[CheckResult]) -> Verdict:
    """Fold checks into a verdict: any failure fails; else anything unverified, or no check at all, leaves it open."""
    statuses = [check.status for check in checks]
    if Status.FAILED in statuses:
        return Verdict.FAILED
    if not statuses or Status.NOT_VERIFIED in statuses:
        return Verdict.NOT_VERIFIED
    return Verdict.PROVEN
