"""`gs-backup disaster-recover`: bring a lost database back, from the newest copy to the health URL."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    JsonOption,
    chosen_copy,
    emit,
    finish,
    human_age,
    settings_of,
    terminal_progress,
)
from gs_backup_assets.errors import ConfigError, ExitStatus

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from gs_backup_assets.recovery.disaster.disaster import Recovered
    from gs_backup_assets.recovery.disaster.runbook import Runbook

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the runbook with today's facts; change nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Begin without asking.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with a recovery that broke off; an error if none.")]
RestartOption = Annotated[bool, typer.Option("--restart", help="Begin anew, whatever was done before.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do not ask whether the database is really gone.")]
AlarmOption = Annotated[
    str | None,
    typer.Option(
        "--alarm", help="When the loss was told, with its zone: objectives count from it.", show_default="now"
    ),
]
CopyOption = Annotated[
    str | None,
    typer.Option("--from", help="Only this copy: primary or offsite.", show_default="the one that loses least"),
]


def disaster_recover(  # noqa: PLR0917 - Typer makes its options of them
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    resume: ResumeOption = False,
    restart: RestartOption = False,
    force: ForceOption = False,
    alarm: AlarmOption = None,
    copy: CopyOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a lost database back: newest copy, recovery, checks, hooks, health URL, report. Can be resumed."""
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.recovery.disaster.disaster import Request, now_utc, recover_from_disaster
    from gs_backup_assets.recovery.disaster.runbook import make_runbook
    from gs_backup_assets.recovery.disaster.state import StateFile
    from gs_backup_assets.recovery.disaster.steps import target_folder
    from gs_backup_assets.vault.opening import open_vault

    if resume and restart:
        raise ConfigError("USAGE", "--resume and --restart exclude each other.", "Choose one.")
    settings = settings_of(config, database)
    vault, which = open_vault(settings), chosen_copy(copy)
    state = StateFile(target_folder(settings)).read() if not restart else None
    if resume and (state is None or state.finished_at is not None):
        raise ConfigError("NOTHING_TO_RESUME", "No recovery broke off.", "Leave out --resume to begin one.")
    if dry_run or state is None:
        runbook = make_runbook(settings, vault, now_utc(), which=which)
        if dry_run:
            emit(runbook.model_dump(mode="json"), json, lambda console: _show_runbook(console, runbook))
            return
        if not json:
            emit({}, False, lambda console: _show_runbook(console, runbook))
    if not yes:
        _confirm(settings.name)
    request = Request(restart=restart, force=force, which=which, alarm=_moment(alarm))
    done = recover_from_disaster(
        settings, vault, request, terminal_progress(), by=Author.here("disaster-recover"), tell=_tell
    )
    document = {
        **done.report.model_dump(mode="json"),
        "status": done.report.status.value,
        "report": str(done.html) if done.html else None,
        "report_json": str(done.json) if done.json else None,
    }
    if done.not_reported is not None:
        _tell(str(done.not_reported))
    emit(document, json, lambda console: _show(console, done))
    statuses = {"passed": ExitStatus.GOOD, "failed": ExitStatus.FAILED, "not_verified": ExitStatus.NOT_VERIFIED}
    finish(statuses[done.report.status.value])


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    from gs_backup_assets.catalogue.recovery_target import RecoveryTarget

    moment = RecoveryTarget.parse(text).at
    if moment is None:
        raise ConfigError("ALARM_INVALID", f"--alarm {text!r} is no time.", "Write 2026-11-24T18:00:00Z.")
    return moment


def _confirm(name: str) -> None:
    """A word typed on a terminal: this is not begun by accident."""
    if not sys.stdin.isatty():
        raise ConfigError("NOT_CONFIRMED", "Nobody is here to confirm it.", "Add --yes, or run it on a terminal.")
    sys.stderr.write(f"Type the name of the database, {name}, to begin: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != name:
        raise ConfigError("NOT_CONFIRMED", "That was not its name: nothing was begun.", "Run it again.")


def _tell(words: str) -> None:
    sys.stderr.write(f"{words}\n")


def _show_runbook(console: Console, runbook: Runbook) -> None:
    from rich.markup import escape

    best = runbook.candidates[0]
    console.print(f"[bold]Runbook: disaster recovery of {runbook.database}[/], {runbook.at:%Y-%m-%d %H:%M:%S} UTC")
    if runbook.goes_on is not None:
        console.print(f"[yellow]![/] {escape(runbook.goes_on)}")
    console.print(f"Source: {escape(runbook.source)}")
    kind = "base backup and write-ahead log" if best.method == "base" else "dump"
    console.print(f"From:   {kind} [bold]{best.backup}[/], {best.store} store: {escape(best.detail)}")
    console.print(f"Into:   {escape(runbook.into)}")
    loss = runbook.expected_loss_minutes
    told = "not known" if loss is None else f"at most {loss:.1f} minutes, if the loss is told now"
    console.print(f"Loss:   {told}; the newest commit is of {best.reaches_to or 'an unknown time'}")
    seconds = runbook.expected_seconds
    time = "not known" if seconds is None else f"{seconds:.0f} s" if seconds < 60 else human_age(seconds)
    console.print(f"Time:   {time} ({escape(runbook.how_long)})")
    for other in runbook.candidates[1:]:
        console.print(f"Else:   {other.method} {other.backup}, {other.store} store: {escape(other.detail)}")
    for words in runbook.unusable:
        console.print(f"[yellow]![/] No way back: {escape(words)}")
    for number, step in enumerate(runbook.steps, 1):
        console.print(f"{number}. [bold]{escape(step.name)}[/]: {escape(step.what)}")
        for command in step.by_hand:
            console.print(f"     $ {command}", markup=False)


def _show(console: Console, done: Recovered) -> None:
    from rich.markup import escape

    report = done.report
    signs = {"passed": "[green]✔[/]", "failed": "[red]✘[/]", "not_verified": "[yellow]?[/]"}
    sign = signs[report.status.value]
    console.print(f"{sign} [bold]{report.database}[/] is back, {report.recovery_seconds:.1f} s after the alarm.")
    for one in report.objectives:
        lost = "not known" if one.lost is None else f"{one.lost:.1f} s"
        console.print(
            f"  {escape(one.data_class)}: {signs[one.rpo.value]} lost at most {lost} of {one.rpo_target:.0f} s,"
            f" {signs[one.rto.value]} back after {one.recovered:.1f} s of {one.rto_target:.0f} s"
        )
    for step in report.steps:
        console.print(f"  {escape(step.name):<20}{step.seconds:8.2f} s")
        for check in step.checks:
            if check.status.value != "passed":
                console.print(f"    {signs[check.status.value]} {check.name}: {escape(check.summary)}")
    if done.not_logged is not None:
        console.print(f"[yellow]![/] The audit log could not be written: {escape(str(done.not_logged))}")
    if done.html is not None:
        console.print(f"Report: {escape(str(done.html))}")
