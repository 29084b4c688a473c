"""`gs-backup prune`: shows which backups stay and which go, each with the reason, and deletes if it is told to."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
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

    from gs_backup_assets.recovery.pruning import Pruned, PrunePlan
    from gs_backup_assets.vault.opening import Which

ApplyOption = Annotated[bool, typer.Option("--apply", help="Delete what goes. Without it nothing is deleted.")]
PrunedOption = Annotated[
    str | None, typer.Option("--from", help="Which store: primary or offsite.", show_default="every store")
]


def prune(
    apply: ApplyOption = False,
    copy: PrunedOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Show which backups stay and which go by the retention of backup.yaml, and why; --apply deletes what goes."""
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.recovery.pruning import apply as carry_out
    from gs_backup_assets.recovery.pruning import make_plan
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database)
    which = chosen_copy(copy)
    vault = open_vault(settings)
    stores = vault.named() if which is None else {which: vault.store(which)}
    now = datetime.now(timezone.utc)
    # All plans come first: when one store cannot be read, nothing is deleted in the other.
    plans = {name: make_plan(store, settings, now) for name, store in stores.items()}
    done: dict[Which, Pruned] = {}
    if apply:
        progress, author = terminal_progress(), Author.here("prune")
        for name, store in stores.items():
            done[name] = carry_out(store, plans[name], by=author, progress=progress, now=now)
    documents = [_document(name, plan, done.get(name)) for name, plan in plans.items()]

    def show(console: Console) -> None:
        for name, plan in plans.items():
            console.print(f"\n[bold]{name}[/] {stores[name].describe()}")
            _show(console, plan, done.get(name))

    emit({"database": settings.name, "stores": documents}, json, show)


def _document(which: Which, plan: PrunePlan, done: Pruned | None) -> dict[str, Any]:
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
        "store": which,
        "backups": backups,
        "keep": plan.kept,
        "delete": len(plan.going),
        "freed_bytes": plan.freed_bytes if done is None else done.freed_bytes,
        "applied": done is not None,
        "deleted": [] if done is None else list(done.deleted),
        "left": [] if done is None else list(done.left),
        "swept": [] if done is None else list(done.swept),
    }


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
