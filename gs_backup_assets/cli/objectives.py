"""`gs-backup objectives`: RPO and RTO by data class: what is promised, what is reached, by what evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, emit, finish, human_age, settings_of
from gs_backup_assets.errors import ExitStatus

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.catalogue.attainment import Attained, Evidence, Forecast, ObjectivesReport
    from gs_backup_assets.catalogue.verdict import CheckResult, Status

_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = 30


def objectives(config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False) -> None:
    """Show whether RPO and RTO of each data class are reached, and when growth will break the RTO."""
    from datetime import datetime, timezone

    from gs_backup_assets.catalogue.attainment import objectives_met
    from gs_backup_assets.catalogue.verdict import Status
    from gs_backup_assets.recovery.objectives_report import measure_objectives
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database)
    report = measure_objectives(settings, open_vault(settings).primary, datetime.now(timezone.utc))
    check = objectives_met(report)
    document = {**report.model_dump(mode="json"), "check": check.model_dump(mode="json")}
    emit(document, json, lambda console: _show(console, report, check))
    statuses = {Status.PASSED: ExitStatus.GOOD, Status.FAILED: ExitStatus.FAILED}
    finish(statuses.get(check.status, ExitStatus.NOT_VERIFIED))


def _show(console: Console, report: ObjectivesReport, check: CheckResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("class", "", box=None, pad_edge=False)
    table.add_column("promised", justify="right")
    table.add_column("reached", justify="right")
    table.add_column("")
    table.add_column("by")
    for one in report.classes:
        # Of dumps it is the longest gap of a week, and of the log what would be lost now: docs/objectives.md.
        rpo = "RPO, at worst" if one.way == "dump" else "RPO"
        table.add_row(one.data_class, rpo, *_cells(one.rpo_target_seconds, one.rpo, one.rpo_status))
        table.add_row("", "RTO", *_cells(one.rto_target_seconds, one.rto, one.rto_status))
    console.print(f"\n[bold]{report.database}[/]")
    console.print(table)
    for one in report.classes:
        console.print(f"{one.data_class}: {_words(one)}")
    times = [point.rto_seconds for point in report.history if point.rto_seconds is not None][-_SHOWN:]
    if len(times) > 1:
        console.print(f"Restores, up to {max(times):.0f} s: {_bars(times)}")
    for note in report.notes:
        console.print(f"[yellow]![/] {escape(note)}")
    for finding in check.findings:
        console.print(f"[bold]{finding.code}[/] {escape(finding.message)} {escape(finding.hint)}")


def _cells(target: float, evidence: Evidence | None, status: Status) -> tuple[str, str, str, str]:
    from gs_backup_assets.words import over_text

    sign = {"passed": "[green]✔[/]", "failed": "[red]✘[/]", "not_verified": "[yellow]?[/]"}[status.value]
    if evidence is None:
        return human_age(target), "?", sign, "nothing was measured"
    reached, promised = over_text(evidence.seconds, target)
    return promised, reached, sign, evidence.by


def _words(one: Attained) -> str:
    forecast: Forecast = one.forecast
    words = {
        "breaks": f"growth breaks the RTO on {forecast.on}",
        "broken": "the RTO is broken",
        "holds": "growth does not break the RTO",
        "unknown": "no forecast of the RTO",
    }[forecast.outcome]
    return f"{words} ({forecast.why})."


def _bars(values: list[float]) -> str:
    most = max(values) or 1.0
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * (len(_BARS) - 1)))] for value in values)
