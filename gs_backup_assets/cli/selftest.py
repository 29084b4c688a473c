"""`gs-backup selftest`: break copies of a backup on purpose and report which breakages were caught."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gs_backup_assets.cli.common import JsonOption, emit, finish, terminal_progress
from gs_backup_assets.errors import ExitStatus

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.recovery.selftest.selftest import BreakageOutcome, SelftestReport


def selftest(
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this breakage; may be repeated. An unknown name lists all.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Break copies of a backup of the sample database, one way each, and report which breakages a proof caught."""
    from gs_backup_assets.recovery.selftest.selftest import choose_breakages, run_selftest

    breakages = choose_breakages(only or ())
    report = run_selftest(breakages, progress=terminal_progress(), told=_tell)
    emit({"good": report.good, **report.model_dump(mode="json")}, json, lambda console: show_report(console, report))
    finish(ExitStatus.GOOD if report.good else ExitStatus.FAILED)


def _tell(outcome: BreakageOutcome) -> None:
    found = outcome.caught_by or f"{outcome.verdict} {', '.join(outcome.codes)}".strip()
    word = "caught" if outcome.caught else "MISSED"
    sys.stderr.write(f"  {word}  {outcome.name:<24}{outcome.seconds:6.2f} s  {found}\n")
    sys.stderr.flush()


def show_report(console: Console, report: SelftestReport) -> None:
    """Draw the report for people: every breakage, the counts by code, and what it comes to."""
    from rich.table import Table

    table = Table("", "breakage", "what was done", "verdict", "named by", box=None, pad_edge=False)
    for outcome in report.outcomes:
        sign = "[green]✔[/]" if outcome.caught else "[red]✘[/]"
        named = (
            outcome.caught_by
            or f"expected {' or '.join(outcome.expected)}, got {', '.join(outcome.codes) or 'nothing'}"
        )
        table.add_row(sign, outcome.name, outcome.title, outcome.verdict, named)
    console.print(table)
    console.print()
    counts = Table("code", "caught", box=None, pad_edge=False)
    for code, count in report.by_code.items():
        counts.add_row(code, str(count))
    console.print(counts)
    style = "bold green" if report.good else "bold red"
    sound = "the sound copy passed"
    if not report.sound_copy_passed:
        sound = f"the sound copy did NOT pass: {', '.join(report.sound_copy_codes) or 'no code'}"
    console.print(f"\n[{style}]{report.caught} of {report.total} breakages were caught; {sound}[/]")
