"""`gs-backup prune`: shows which backups stay and which go, each with the reason, and deletes if it is told to."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    EitherStoreOption,
    JsonOption,
    chosen_copy,
    emit,
    human_bytes,
    settings_of,
    terminal_progress,
)
from gs_backup_assets.cli.listing import verdict_text
from gs_backup_assets.words import counted

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.recovery.retention.pruning import Pruned, PrunePlan
    from gs_backup_assets.recovery.retention.pruning_store import StorePlan, StorePruned
    from gs_backup_assets.recovery.retention.wal_pruning import WalPlan, WalPruned
    from gs_backup_assets.vault.opening import Which

ApplyOption = Annotated[bool, typer.Option("--apply", help="Delete what goes. Without it nothing is deleted.")]


def prune(
    apply: ApplyOption = False,
    copy: EitherStoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Show which backups stay and which go by the retention of backup.yaml, and why; --apply deletes what goes."""
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.recovery.retention.pruning_store import plan_store, prune_store
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database)
    which = chosen_copy(copy)
    vault = open_vault(settings)
    stores = vault.named() if which is None else {which: vault.store(which)}
    now = datetime.now(timezone.utc)
    # All plans come first: when one store cannot be read, nothing is deleted in the other.
    plans = {name: plan_store(store, settings, now) for name, store in stores.items()}
    done: dict[Which, StorePruned] = {}
    if apply:
        progress, author = terminal_progress(), Author.here("prune")
        for name, store in stores.items():
            done[name] = prune_store(store, plans[name], by=author, progress=progress, now=now)
    documents = [_document(name, plan, done.get(name)) for name, plan in plans.items()]

    def show(console: Console) -> None:
        for name, plan in plans.items():
            console.print(f"\n[bold]{name}[/] {stores[name].describe()}")
            _show_all(console, plan, done.get(name))

    emit({"database": settings.name, "stores": documents}, json, show)


def _document(which: Which, plan: StorePlan, done: StorePruned | None) -> dict[str, Any]:
    return {
        "store": which,
        **_kind_document(plan.dumps, done.dumps if done else None),
        "base_backups": _kind_document(plan.base_backups, done.base_backups if done else None),
        "wal": _wal_document(plan.wal, done.wal if done else None),
    }


def _wal_document(plan: WalPlan, done: WalPruned | None) -> dict[str, Any]:
    ranges = [
        {
            "system_identifier": decision.system_identifier,
            "timeline": decision.timeline,
            "first": decision.first or None,
            "last": decision.last or None,
            "segments": decision.segments,
            "keep": decision.keep,
            "reason": decision.reason,
            "stored_bytes": decision.stored_bytes,
        }
        for decision in plan.decisions
    ]
    return {
        "ranges": ranges,
        "keep": plan.kept_segments,
        "delete": sum(decision.segments for decision in plan.going),
        "freed_bytes": plan.freed_bytes if done is None else done.freed_bytes,
        "applied": done is not None,
        "deleted": 0 if done is None else done.segments,
        "left": 0 if done is None else done.left,
    }


def _kind_document(plan: PrunePlan, done: Pruned | None) -> dict[str, Any]:
    backups = [
        {
            "id": decision.candidate.id,
            "partition": decision.candidate.partition,
            "verdict": decision.candidate.verdict.value,
            "keep": decision.keep,
            "reasons": list(decision.reasons),
            "stored_bytes": decision.candidate.stored_bytes,
        }
        for decision in plan.decisions
    ]
    return {
        "backups": backups,
        "keep": plan.kept,
        "delete": len(plan.going),
        "freed_bytes": plan.freed_bytes if done is None else done.freed_bytes,
        "applied": done is not None,
        "deleted": [] if done is None else list(done.deleted),
        "left": [] if done is None else list(done.left),
        "swept": [] if done is None else list(done.swept),
    }


def _show_all(console: Console, plan: StorePlan, done: StorePruned | None) -> None:
    _show(console, plan.dumps, done.dumps if done else None)
    if plan.base_backups.decisions or (done and done.base_backups.swept):
        console.print("\n[bold]Base backups[/]")
        _show(console, plan.base_backups, done.base_backups if done else None)
    if plan.wal.decisions:
        console.print("\n[bold]Write-ahead log[/]")
        _show_wal(console, plan.wal, done.wal if done else None)


def _show_wal(console: Console, plan: WalPlan, done: WalPruned | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from gs_backup_assets.recovery.retention.wal_pruning import range_of

    table = Table("segments", "timeline", "number", "stored", "", "why", box=None, pad_edge=False)
    for decision in plan.decisions:
        table.add_row(
            range_of(decision),
            "all" if decision.timeline is None else str(decision.timeline),
            str(decision.segments),
            human_bytes(decision.stored_bytes),
            "stays" if decision.keep else "[bold]goes[/]",
            escape(decision.reason),
        )
    console.print(table)
    going = sum(decision.segments for decision in plan.going)
    if done is None:
        freed = f", which frees {human_bytes(plan.freed_bytes)}: --apply deletes" if plan.going else ""
        console.print(
            f"\n{counted(plan.kept_segments, 'segment')} stay, {going} {'goes' if going == 1 else 'go'}{freed}."
        )
        return
    console.print(f"\n{counted(done.segments, 'segment')} deleted: {human_bytes(done.freed_bytes)} freed.")
    if done.left:
        console.print(f"Left, as a base backup that was held meanwhile needs them: {counted(done.left, 'object')}.")


def _show(console: Console, plan: PrunePlan, done: Pruned | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not plan.decisions:
        console.print(f"There is no backup of {plan.database}.")
    else:
        table = Table("backup", "day", "verdict", "stored", "", "why", box=None, pad_edge=False)
        for decision in plan.decisions:
            backup = decision.candidate
            table.add_row(
                backup.id,
                escape(backup.partition),
                verdict_text(backup.verdict),
                human_bytes(backup.stored_bytes),
                "stays" if decision.keep else "[bold]goes[/]",
                escape("; ".join(decision.reasons)),
            )
        console.print(table)
    going = len(plan.going)
    if done is None:
        freed = f", which frees {human_bytes(plan.freed_bytes)}: --apply deletes" if going else ""
        console.print(f"\n{plan.kept} stay, {going} {'goes' if going == 1 else 'go'}{freed}.")
        return
    console.print(f"\n{plan.kept} stay, {len(done.deleted)} deleted: {human_bytes(done.freed_bytes)} freed.")
    if done.left:
        console.print(f"Left, as somebody held or deleted them meanwhile: {', '.join(done.left)}.")
    if done.swept:
        console.print(f"{counted(len(done.swept), 'unfinished attempt')} removed.")
