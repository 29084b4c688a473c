"""`gs-backup status`: is everything backed up, proven and fresh?"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, emit, finish, human_age, human_bytes
from gs_backup_assets.words import counted

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {"healthy": "green", "warning": "yellow", "error": "red"}


def status(config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False) -> None:
    """Show the status of every database; exit status 1 unless all are healthy."""
    from gs_backup_assets.config import load_config
    from gs_backup_assets.status.document import build_status

    document = build_status(load_config(config), datetime.now(timezone.utc), database)

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        for one in document.databases:
            total = counted(one.total_backups, "backup")
            console.print(f"[bold]{one.database}[/]: [{_COLOURS[one.status]}]{one.status}[/], {total}")
            for problem in one.problems:
                console.print(f"  [red]✘[/] {escape(problem)}")
            table = Table("backup", "age", "stored", "verdict", box=None, pad_edge=False)
            for backup in one.backups:
                size = human_bytes(backup.size) if backup.size is not None else "?"
                table.add_row(backup.name, human_age(backup.age / 1000), size, backup.verdict.value.replace("_", " "))
            if one.backups:
                console.print(table)
            for goal in one.objectives:
                rpo = "?" if goal.rpo_seconds is None else human_age(goal.rpo_seconds)
                rto = "?" if goal.rto_seconds is None else f"{goal.rto_seconds:.1f} s"
                way = f", by the {goal.way}" if goal.way else ""
                console.print(
                    f"  {goal.name:<14} would lose {rpo} (target {human_age(goal.rpo_target_seconds)}),"
                    f" back in {rto} (target {human_age(goal.rto_target_seconds)}){way}"
                )

    emit(document.model_dump(mode="json"), json, show)
    finish(document.exit_status)
