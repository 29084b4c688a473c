"""`gs-backup drill`: recover to a random moment, or a chosen one, on a throwaway server, and prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    FromOption,
    JsonOption,
    StoreOption,
    chosen_copy,
    emit,
    finish,
    human_age,
    settings_of,
    terminal_progress,
)

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.catalogue.drills import DrillRecord

ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="latest, a time with its zone (2026-11-24T18:00:00Z), a position (16/B374D848), or a restore point.",
        show_default="a random moment of those that are covered",
    ),
]


def drill(  # noqa: PLR0917 - Typer makes its options of them
    to: ToOption = None,
    copy: FromOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Recover to a moment on a throwaway server and prove it: what was committed before is there, nothing else."""
    import random
    from datetime import datetime, timezone

    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
    from gs_backup_assets.recovery.point_in_time.pitr_drill import run_drill
    from gs_backup_assets.vault.opening import open_vault

    target = RecoveryTarget.parse(to) if to is not None else None
    settings = settings_of(config, database, store)
    done = run_drill(
        settings,
        open_vault(settings),
        terminal_progress(),
        by=Author.here("drill"),
        now=datetime.now(timezone.utc),
        rng=random.Random(),
        target=target,
        which=chosen_copy(copy),
    )
    warnings = [str(error) for error in (*done.not_kept, *((done.not_logged,) if done.not_logged else ()))]
    document: dict[str, Any] = {**done.record.model_dump(mode="json"), "id": done.record.id, "warnings": warnings}
    emit(document, json, lambda console: _show(console, done.record, warnings))
    finish(done.record.exit_status)


def _show(console: Console, record: DrillRecord, warnings: list[str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from gs_backup_assets.catalogue.drills import DECISIVE_CHECKS

    colour = {"PROVEN": "green", "FAILED": "red", "NOT_VERIFIED": "yellow"}[record.verdict.value]
    console.print(f"\n[bold {colour}]{record.verdict.value.replace('_', ' ')}[/]  recovery to {escape(record.target)}")
    reached = f"{record.achieved_lsn} on timeline {record.timeline}" if record.achieved_lsn else "nothing"
    console.print(
        f"  reached {reached}, from {' + '.join(record.backups)} and {record.segments} segments", markup=False
    )
    if record.last_before is not None:
        console.print(f"  last commit before  {record.last_before.at}  {record.last_before.lsn}", markup=False)
    if record.first_after is not None:
        console.print(f"  first commit after  {record.first_after.at}  {record.first_after.lsn}", markup=False)
    if record.rto_seconds is not None:
        console.print(f"  usable after {record.rto_seconds:.1f} s", markup=False)
    if record.recoverable_age_seconds is not None:
        console.print(f"  at most {human_age(record.recoverable_age_seconds)} would be lost now", markup=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    signs = {"passed": "[green]✔[/]", "failed": "[red]✘[/]", "not_verified": "[yellow]?[/]"}
    for check in record.checks:
        beside = "" if check.name in DECISIVE_CHECKS else " (beside the verdict)"
        table.add_row(signs[check.status.value], check.name + beside, escape(check.summary))
    for rule in record.rules:
        if rule.status.value != "passed":
            table.add_row(signs[rule.status.value], escape(rule.id), escape(rule.reason or rule.title))
    console.print(table)
    for check in record.checks:
        for finding in check.findings[:5]:
            console.print(f"  [bold]{finding.code}[/] {escape(finding.message)} {escape(finding.hint)}")
    for warning in warnings:
        console.print(f"[yellow]![/] Not on record everywhere: {escape(warning)}")
