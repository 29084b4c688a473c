"""The report of a disaster recovery: what was lost, how long it took, against the targets; as JSON and as a page."""

from __future__ import annotations

import re
from datetime import datetime
from importlib import resources
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict

import gs_backup_assets
from gs_backup_assets.catalogue.objectives import CRITICAL_CLASS
from gs_backup_assets.catalogue.verdict import CheckResult, Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.recovery.disaster.state import Candidate, DisasterState, LogLine, Method
from gs_backup_assets.recovery.disaster.steps import RESTORE
from gs_backup_assets.system.reports import ReportNotKept, reports_in
from gs_backup_assets.vault.opening import Which


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Objective(_Record):
    """What a data class wanted and got, in seconds. None where it is not known; that is no pass."""

    data_class: str
    rpo_target: float
    lost: float | None
    rto_target: float
    recovered: float

    @property
    def rpo(self) -> Status:
        if self.lost is None:
            return Status.NOT_VERIFIED
        return Status.PASSED if self.lost <= self.rpo_target else Status.FAILED

    @property
    def rto(self) -> Status:
        return Status.PASSED if self.recovered <= self.rto_target else Status.FAILED


class StepLine(_Record):
    """A step and its seconds."""

    name: str
    seconds: float
    checks: tuple[CheckResult, ...]


class DisasterReport(_Record):
    """A recovery that is through. Seconds count from the alarm; `recovered_to` is the newest commit that is there."""

    database: str
    software: str
    alarm: AwareDatetime
    started_at: AwareDatetime
    finished_at: AwareDatetime
    method: Method
    store: Which
    backup: str
    recovered_to: AwareDatetime | None
    lost_seconds: float | None
    recovery_seconds: float
    objectives: tuple[Objective, ...]
    candidates: tuple[Candidate, ...]
    refused: tuple[str, ...]
    steps: tuple[StepLine, ...]
    log: tuple[LogLine, ...]

    @property
    def status(self) -> Status:
        """FAILED when a check or an objective was; NOT_VERIFIED when one is not known."""
        every = [check.status for step in self.steps for check in step.checks]
        every += [status for one in self.objectives for status in (one.rpo, one.rto)]
        for status in (Status.FAILED, Status.NOT_VERIFIED):
            if status in every:
                return status
        return Status.PASSED


def make_report(settings: DatabaseSettings, state: DisasterState) -> DisasterReport:
    """The report of a state whose steps are all done. Pure."""
    assert state.finished_at is not None
    facts, chosen = state.facts(), state.chosen
    told = facts.get("recovered_to")
    recovered_to = datetime.fromisoformat(str(told)) if told else None
    lost = None if recovered_to is None else max(0.0, (state.alarm - recovered_to).total_seconds())
    ended = (state.steps[-1].ended_at if state.steps else state.finished_at) - state.alarm
    seconds = ended.total_seconds()
    objectives = tuple(
        Objective(
            data_class=name,
            rpo_target=data_class.rpo.total_seconds(),
            lost=lost,
            rto_target=data_class.rto.total_seconds(),
            recovered=_critical_seconds(state) or seconds if name == CRITICAL_CLASS else seconds,
        )
        for name, data_class in settings.data_classes.items()
    )
    return DisasterReport(
        database=state.database,
        software=gs_backup_assets.__version__,
        alarm=state.alarm,
        started_at=state.started_at,
        finished_at=state.finished_at,
        method=chosen.method,
        store=chosen.store,
        backup=chosen.backup,
        recovered_to=recovered_to,
        lost_seconds=lost,
        recovery_seconds=seconds,
        objectives=objectives,
        candidates=state.candidates,
        refused=state.refused,
        steps=tuple(StepLine(name=s.name, seconds=s.seconds, checks=s.checks) for s in state.steps),
        log=state.log,
    )


def _critical_seconds(state: DisasterState) -> float | None:
    """When critical tables could be used, counted from the alarm, where a dump brought them first."""
    restored = state.done(RESTORE)
    if restored is None or "critical_usable_seconds" not in restored.facts:
        return None
    before = (restored.ended_at - state.alarm).total_seconds() - restored.seconds
    return before + float(restored.facts["critical_usable_seconds"])


def write_report(settings: DatabaseSettings, report: DisasterReport) -> tuple[Path, Path] | ReportNotKept:
    """Both forms into the reports folder; returns their paths, the page first, or why they could not be written."""
    folder = settings.reports_path / settings.name / "disaster-recovery"
    stem = f"{report.started_at:%Y%m%dT%H%M%SZ}"
    html, json = f"{stem}.html", f"{stem}.json"
    with reports_in(folder) as reports:
        files = {html: render(report), json: report.model_dump_json(indent=2).encode() + b"\n"}
        return reports.keep(files) or (folder / html, folder / json)


def render(report: DisasterReport) -> bytes:
    """The page: one file, with the look of the integrity report."""
    from jinja2 import Environment, StrictUndefined

    from gs_backup_assets.words import duration_text

    def duration(seconds: float | None) -> str:
        from datetime import timedelta

        if seconds is None:
            return "not known"
        return f"{seconds:.1f} s" if seconds < 60 else duration_text(timedelta(seconds=seconds))

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["duration"] = duration
    environment.filters["moment"] = lambda moment: f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "not known"
    source = resources.files(__package__).joinpath("disaster.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(report=report, style=_style()).encode()


def _style() -> str:
    """The style sheet of the integrity report."""
    page = resources.files("gs_backup_assets.integrity").joinpath("report.html").read_text(encoding="utf-8")
    match = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert match is not None
    return match[1]
