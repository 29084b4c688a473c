"""`gs-backup watch`: the look from outside, for cron, a systemd timer or a CronJob; it needs no Dagster."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, emit, finish
from gs_backup_assets.errors import ExitStatus

if TYPE_CHECKING:
    from rich.console import Console


def watch(
    state: Annotated[
        Path | None,
        typer.Option(help="The file that remembers what people were told.", show_default="one in the user's cache"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing while nothing is wrong.")] = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Read the stores, and tell people when a backup or a proof is stale, missing or unreadable, and when it is over.

    Exit status 1 when anything is wrong, 2 when a receiver's address is, 4 when a message was not accepted (it is sent
    again at the next call).
    """
    from gs_backup_assets.alerts.watching import default_state, watch
    from gs_backup_assets.config import FILE_NAME, FILE_VARIABLE, load_config

    loaded = load_config(config)
    file = config or Path(os.environ.get(FILE_VARIABLE) or FILE_NAME)
    path = state or default_state(file)
    seen = watch(loaded, path, datetime.now(timezone.utc), database=database)

    def show(console: Console) -> None:
        from rich.markup import escape

        for problem in seen.problems:
            words = " ".join(filter(None, (f"{problem.title}.", problem.body, problem.last_good, problem.hint)))
            console.print(f"[red]✘[/] {escape(words)}")
        if not seen.problems:
            console.print("[green]✔[/] every backup and proof is fresh")
        for message in seen.said:
            console.print(f"told: {escape(message.title)}")

    document = {
        "problems": [problem.model_dump(mode="json") for problem in seen.problems],
        "told": [message.model_dump(mode="json", include={"kind", "title", "body"}) for message in seen.said],
        "unheard": list(seen.unheard),
        "refused": {"code": seen.refused.code, "message": seen.refused.message} if seen.refused else None,
        "state": str(path),
    }
    if json or seen.problems or not quiet:
        emit(document, json, show)
    for variable in seen.unheard:
        was = "WAS" if seen.problems else "WOULD BE"
        sys.stderr.write(f"NOBODY {was} TOLD: {variable} names no receiver.\n")
    if seen.refused is not None:
        sys.stderr.write(f"{seen.refused.code}: {seen.refused.message}\n{seen.refused.hint}\n")
        finish(seen.refused.exit_status)
    finish(ExitStatus.FAILED if seen.problems else ExitStatus.GOOD)
