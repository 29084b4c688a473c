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
                lost, allowed = _against(goal.rpo_seconds, goal.rpo_target_seconds)
                back, promised = _against(goal.rto_seconds, goal.rto_target_seconds)
                missed, unknown = False in (goal.rpo_met, goal.rto_met), None in (goal.rpo_met, goal.rto_met)
                sign = "[red]✘[/]" if missed else "[yellow]?[/]" if unknown else "[green]✔[/]"
                way = f", by the {goal.way}" if goal.way else ""
                console.print(
                    f"  {sign} {goal.name:<14} would lose {lost} now (target {allowed}),"
                    f" back in {back} (target {promised}){way}"
                )

    emit(document.model_dump(mode="json"), json, show)
    finish(document.exit_status)


def _against(seconds: float | None, target_seconds: float) -> tuple[str, str]:
    """A time and its target in words; a question mark for one that was not measured."""
    from gs_backup_assets.words import over_text

    return ("?", human_age(target_seconds)) if seconds is None else over_text(seconds, target_seconds)
