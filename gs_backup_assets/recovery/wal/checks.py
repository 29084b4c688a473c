"""Judges what is archived of the write-ahead log: is it whole, is it near, is the RPO of each class met?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, not_verified
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_backups import Wal
from gs_backup_assets.errors import BackupError
from gs_backup_assets.recovery.wal.survey import WalSurvey, current_cluster, missing_segments, survey_archive
from gs_backup_assets.vault.store import Store

CHECKS = ("wal_continuous", "wal_lag", "rpo_met")
_NEW_BASE = "Take a full base backup now: `gs-backup base-backup --full`. What lies before it stays recoverable."
_STREAM = "See that `gs-backup wal stream` runs and what it says; docs/wal.md."


@dataclass(frozen=True)
class Surveyed:
    """A look at the archive and what it comes to. `survey` is None where nothing is archived, or the store is away."""

    survey: WalSurvey | None
    checks: tuple[CheckResult, ...]


def survey_and_judge(settings: DatabaseSettings, store: Store, *, now: datetime) -> Surveyed:
    """Look at the archive of the cluster that is archived now. Raises what the store raises."""
    cluster = current_cluster(settings, store)
    if cluster is None:
        reason = f"no write-ahead log of {settings.name} is archived"
        return Surveyed(None, tuple(not_verified(check, reason, code="NO_WAL", hint=_STREAM) for check in CHECKS))
    survey = survey_archive(settings, store, cluster, now=now)
    max_lag = (settings.wal or Wal()).max_lag
    objectives = {name: data_class.rpo for name, data_class in settings.data_classes.items()}
    return Surveyed(survey, judge(survey, max_lag=max_lag, objectives=objectives))


def not_surveyed(error: BackupError) -> Surveyed:
    """What is known when the store cannot be used."""
    checks = (not_verified(name, error.message, code=error.code, hint=error.hint) for name in CHECKS)
    return Surveyed(None, tuple(checks))


def judge(survey: WalSurvey, *, max_lag: timedelta, objectives: Mapping[str, timedelta]) -> tuple[CheckResult, ...]:
    """Every check of the archive. `objectives` is the RPO of each data class."""
    return wal_continuous(survey), wal_lag(survey, max_lag), rpo_met(survey, objectives)


def wal_continuous(survey: WalSurvey) -> CheckResult:
    """Whether the log goes on from the newest base backup to the newest segment, and the newest can be read.

    A gap before the newest base backup is history: points in it cannot be recovered to, but nothing more is lost.
    """
    metrics: dict[str, float | int] = {
        "archived_segments": survey.segments,
        "archived_bytes": survey.stored_bytes,
        "timelines": len(survey.timelines),
        "gap_segments": survey.gap_segments,
    }
    findings = []
    if survey.gap_after_base is not None:
        gap = survey.gap_after_base
        count = missing_segments(gap, survey.segment_bytes)
        words = f"The log from {gap.start} to {gap.end} is not archived: {count} segments from {gap.missing} on."
        findings.append(Finding(code="WAL_GAP", message=words, hint=_NEW_BASE))
    if survey.off_timeline and survey.base is not None:
        words = f"The newest timeline does not come from the one of the newest base backup, {survey.base.id}."
        findings.append(Finding(code="WAL_OTHER_TIMELINE", message=words, hint=_NEW_BASE))
    if survey.damage is not None:
        damage = survey.damage
        findings.append(Finding(code=damage.code, message=damage.message, hint=f"{damage.hint} {_NEW_BASE}"))
    if findings:
        summary = f"the log does not go on behind {survey.end}" if survey.end else "the log cannot be read"
        return _result("wal_continuous", Status.FAILED, summary, findings, metrics)
    if survey.unread is not None:
        return _unread("wal_continuous", survey, metrics)
    if survey.base is None:
        return _result("wal_continuous", Status.NOT_VERIFIED, "there is no base backup", [_no_base()], metrics)
    summary = f"the log goes on without a gap from {survey.base.id} to {survey.end}"
    return _result("wal_continuous", Status.PASSED, summary, [], metrics)


def wal_lag(survey: WalSurvey, max_lag: timedelta) -> CheckResult:
    """How far the archive is behind the server, as the stream saw it: by its last look, and since then."""
    if survey.position is None:
        reason = "no stream of the log has left a record of where the server is"
        return not_verified("wal_lag", reason, code="NO_POSITION", hint=_STREAM)
    if survey.lag_bytes is None or survey.unread is not None:
        return _unread("wal_lag", survey, {})
    silent = (survey.at - survey.position.at).total_seconds()
    # Where the archive lacks something, it is the age of what it has that counts.
    age = survey.age_seconds
    seconds = silent if survey.complete or age is None else max(silent, age)
    limit = max_lag.total_seconds()
    metrics: dict[str, float | int] = {
        "lag_bytes": survey.lag_bytes,
        "lag_seconds": round(max(0.0, seconds), 3),
        "max_lag_seconds": limit,
    }
    if seconds <= limit:
        words = f"the archive was complete {max(0.0, seconds):.0f} s ago" if survey.complete else "the archive is"
        tail = "" if survey.complete else f" {survey.lag_bytes} bytes and {max(0.0, seconds):.0f} s behind"
        return _result("wal_lag", Status.PASSED, words + tail, [], metrics)
    if silent > limit:
        words = f"The stream has not been heard of for {silent:.0f} s: the limit is {limit:.0f} s."
        finding = Finding(code="WAL_STREAM_SILENT", message=words, hint=_STREAM)
    else:
        words = f"The archive lacks {survey.lag_bytes} bytes, and is {seconds:.0f} s old: the limit is {limit:.0f} s."
        finding = Finding(code="WAL_LAGS", message=words, hint=_STREAM)
    return _result("wal_lag", Status.FAILED, finding.message.rstrip("."), [finding], metrics)


def rpo_met(survey: WalSurvey, objectives: Mapping[str, timedelta]) -> CheckResult:
    """Compare what would be lost now with the RPO of each data class."""
    age, until = survey.age_seconds, survey.recoverable_until
    if not objectives:
        reason = "no data class sets an RPO"
        return not_verified("rpo_met", reason, code="NO_OBJECTIVE", hint="Add data_classes to backup.yaml.")
    metrics: dict[str, float | int] = {}
    for name, rpo in objectives.items():
        metrics[f"rpo_seconds_{name}"] = rpo.total_seconds()
    if survey.unread is not None:
        return _unread("rpo_met", survey, metrics)
    if age is None or until is None:
        summary = "nothing can be recovered from the log: there is no base backup"
        return _result("rpo_met", Status.FAILED, summary, [_no_base()], metrics)
    metrics["recoverable_age_seconds"] = round(age, 3)
    missed = {name: rpo for name, rpo in objectives.items() if age > rpo.total_seconds()}
    moment = f"{until:%Y-%m-%d %H:%M:%S} UTC"
    if not missed:
        return _result("rpo_met", Status.PASSED, f"recoverable until {moment}, {age:.0f} s ago", [], metrics)
    # Of a server that nobody watches it is not known whether it has committed anything since.
    unknown = survey.position is None and survey.gap_after_base is None and survey.damage is None
    code = "RPO_UNKNOWN" if unknown else "RPO_EXCEEDED"
    words = "may be lost" if unknown else "would be lost now"
    findings = [
        Finding(
            code=code,
            message=f"{name}: what was committed since {moment} {words}, {age:.0f} s; at most {rpo.total_seconds():.0f}"
            " s are promised.",
            hint=_STREAM,
        )
        for name, rpo in missed.items()
    ]
    status = Status.NOT_VERIFIED if unknown else Status.FAILED
    return _result("rpo_met", status, f"not within the RPO of {', '.join(missed)}: {age:.0f} s", findings, metrics)


def _no_base() -> Finding:
    words = "There is no base backup of the cluster whose log is archived: log alone recovers nothing."
    return Finding(code="NO_BASE_BACKUP", message=words, hint="Take one: `gs-backup base-backup`.")


def _unread(name: str, survey: WalSurvey, metrics: dict[str, float | int]) -> CheckResult:
    if survey.unread is None:
        return not_verified(name, "nothing could be read of the log", code="NO_WAL", hint=_STREAM)
    error = survey.unread
    finding = Finding(code=error.code, message=error.message, hint=error.hint)
    return _result(name, Status.NOT_VERIFIED, "the archived log could not be read", [finding], metrics)


def _result(
    name: str, status: Status, summary: str, findings: list[Finding], metrics: dict[str, float | int]
) -> CheckResult:
    return CheckResult(name=name, status=status, summary=summary, findings=tuple(findings), metrics=metrics)
