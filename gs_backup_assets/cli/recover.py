"""`gs-backup recover`: bring a whole cluster back as it was at a point in time, into a folder of its own."""

from __future__ import annotations

from pathlib import Path
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
    human_age,
    human_bytes,
    settings_of,
    terminal_progress,
)

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.recovery.point_in_time.recover import Outcome
    from gs_backup_assets.recovery.point_in_time.recover_plan import RecoveryPlan

ToOption = Annotated[
    str,
    typer.Option(
        "--to",
        help="latest, a time with its zone (2026-11-24T18:00:00Z), a position (16/B374D848), or a restore point.",
    ),
]
IntoOption = Annotated[
    Path | None,
    typer.Option("--into", help="A folder that does not exist yet, or is empty; the cluster is in its data/."),
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Show the plan and do nothing.")]
TimelineOption = Annotated[
    int | None, typer.Option("--timeline", help="The timeline to follow.", show_default="the newest")
]


def recover(  # noqa: PLR0917 - Typer makes its options of them
    to: ToOption,
    into: IntoOption = None,
    plan: PlanOption = False,
    timeline: TimelineOption = None,
    copy: FromOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Recover to a point in time: base backup and log, replayed by a server that is closed to everybody."""
    from datetime import datetime, timezone

    from gs_backup_assets.catalogue.audit import Author, failure_noted, note
    from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
    from gs_backup_assets.errors import ConfigError
    from gs_backup_assets.recovery.point_in_time.recover import recover_into
    from gs_backup_assets.recovery.point_in_time.recover_plan import plan_recovery
    from gs_backup_assets.vault.opening import open_vault

    target = RecoveryTarget.parse(to, timeline=timeline)
    if into is None and not plan:
        raise ConfigError("INTO_MISSING", "Where to recover to is not said.", "Add --into DIR, or --plan for the plan.")
    settings = settings_of(config, database, store)
    vault = open_vault(settings)
    progress = terminal_progress()
    with progress.stage("plan"):
        planned = plan_recovery(settings, vault, target, which=chosen_copy(copy), now=datetime.now(timezone.utc))
    if into is None or plan:
        emit(plan_document(planned), json, lambda console: show_plan(console, planned))
        return
    if not json:
        emit(plan_document(planned), json, lambda console: show_plan(console, planned))
    by = Author.here("recover")
    ids = {"backup": planned.base.id, "partition": planned.base.partition, "target": str(target)}
    with failure_noted(vault.primary, settings.name, by, "recover", ids=ids, otherwise=vault.offsite):
        outcome = recover_into(planned, settings, vault, into.absolute(), progress)
    not_logged = note(
        vault.primary,
        settings.name,
        by,
        "recover",
        ids={**ids, "reached": str(outcome.achieved.lsn), "timeline": str(outcome.achieved.timeline)},
        result="recovered",
        details={"store": planned.which, "seconds": round(sum(progress.seconds.values()), 3)},
        otherwise=vault.offsite,
    )

    def show(console: Console) -> None:
        from rich.markup import escape

        _show_outcome(console, outcome)
        if not_logged is not None:
            console.print(f"[yellow]![/] The audit log could not be written: {escape(str(not_logged))}")

    document = {**plan_document(planned), **_outcome_document(outcome, dict(progress.seconds))}
    emit(document, json, show)


def plan_document(plan: RecoveryPlan) -> dict[str, Any]:
    """A plan as JSON. Sizes in bytes, times in UTC."""
    last, segments = plan.last_commit, plan.segments
    return {
        "target": {"kind": plan.target.kind, "value": str(plan.target), "timeline": plan.timeline},
        "database": plan.database,
        "store": plan.which,
        "system_identifier": plan.system_identifier,
        "base": {
            "id": plan.base.id,
            "consistent_at": plan.base.consistent_at,
            "consistent_lsn": plan.base.stop_lsn,
            "timeline": plan.base.timeline,
            "verdict": plan.chain[-1].verdict.value,
            "chain": [entry.id for entry in plan.chain],
        },
        "wal": {
            "segments": len(segments),
            "first": segments[0].segment.name if segments else None,
            "last": segments[-1].segment.name if segments else None,
            "partial_bytes": segments[-1].written if segments else None,
            "end_lsn": str(plan.end),
        },
        "last_commit": None if last is None else {"lsn": str(last.lsn), "at": last.at},
        "stop_lsn": None if plan.stop_at is None else str(plan.stop_at),
        "to_the_end": plan.to_the_end,
        "expected_loss_seconds": plan.expected_loss_seconds,
        "fetch_bytes": plan.fetch_bytes,
        "estimated_seconds": plan.estimated_seconds,
        "warnings": list(plan.warnings),
    }


def show_plan(console: Console, plan: RecoveryPlan) -> None:
    """A plan for people."""
    from rich.markup import escape
    from rich.table import Table

    from gs_backup_assets.catalogue.recovery_target import moment_text
    from gs_backup_assets.words import counted

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("target", f"[bold]{escape(str(plan.target))}[/], on timeline {plan.timeline}")
    table.add_row("store", f"{plan.which}, cluster {plan.system_identifier}")
    base = plan.base
    table.add_row(
        "base backup",
        f"{base.id} ({plan.chain[-1].verdict.value}), consistent at {moment_text(base.consistent_at)}, {base.stop_lsn}",
    )
    if len(plan.chain) > 1:
        table.add_row("", f"{counted(len(plan.chain) - 1, 'increment')} on {plan.chain[0].id}")
    if plan.segments:
        first, last = plan.segments[0], plan.segments[-1]
        part = f": {human_bytes(last.written or 0)} of it" if last.partial else ""
        part = part and f", {'unfinished' if last.unfinished else 'up to where a newer timeline begins'}{part}"
        names = f"{first.segment.name} to {last.segment.name}{part}"
        table.add_row("log", f"{counted(len(plan.segments), 'segment')}, {names}")
    else:
        table.add_row("log", "none but what is in the base backup")
    if plan.last_commit is not None:
        table.add_row("last commit", f"{moment_text(plan.last_commit.at)}, {plan.last_commit.lsn}")
    if plan.expected_loss_seconds is not None:
        table.add_row("expected loss", f"what was committed in the last {human_age(plan.expected_loss_seconds)}")
    table.add_row("to fetch", human_bytes(plan.fetch_bytes))
    if plan.estimated_seconds is not None:
        table.add_row("may take", f"{human_age(plan.estimated_seconds)}, by the last good drill")
    console.print(table)
    for warning in plan.warnings:
        console.print(f"[yellow]![/] {escape(warning)}")


def _outcome_document(outcome: Outcome, seconds: dict[str, float]) -> dict[str, Any]:
    achieved = outcome.achieved
    return {
        "data_directory": str(outcome.data),
        "achieved": {"lsn": str(achieved.lsn), "at": achieved.at, "timeline": achieved.timeline},
        "stage_seconds": {name: round(value, 3) for name, value in seconds.items()},
        "start": _start_command(outcome),
        "notes": list(outcome.notes),
    }


def _start_command(outcome: Outcome) -> str:
    from gs_backup_assets.postgres.pg_ctl import start_command

    return start_command(outcome.toolchain, outcome.data, outcome.data.parent / "log")


def _show_outcome(console: Console, outcome: Outcome) -> None:
    from rich.markup import escape

    from gs_backup_assets.catalogue.recovery_target import moment_text

    achieved = outcome.achieved
    when = "" if achieved.at is None else f", the last transaction ended at {moment_text(achieved.at)}"
    console.print(f"[green]✔[/] Recovered to [bold]{achieved.lsn}[/]{when}; timeline {achieved.timeline} begins there.")
    console.print(f"  {'  '.join(f'{name} {value:.1f} s' for name, value in outcome.seconds.items())}")
    console.print(f"The server was stopped. Its data directory is [bold]{escape(str(outcome.data))}[/].")
    console.print(f"Start it as the account {outcome.account}:\n  {escape(_start_command(outcome))}")
    for text in outcome.notes:
        console.print(f"[yellow]![/] {escape(text)}")
