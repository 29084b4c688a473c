"""`gs-backup restore`: bring a backup back into a database, proved equal before anything is replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, emit, finish, terminal_progress
from gs_backup_assets.cli.listing import BackupArgument
from gs_backup_assets.errors import ExitStatus

if TYPE_CHECKING:
    from rich.console import Console

IntoOption = Annotated[
    str, typer.Option("--into", help="URL of the database to make, or the name of an environment variable that holds it.")
]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Restore beside an existing database, prove, then swap the names; the old one is kept.")
]
CriticalOption = Annotated[
    bool, typer.Option("--critical-first", help="Load, index and analyse the tables of the class `critical` first.")
]


def restore(
    backup: BackupArgument,
    into: IntoOption,
    replace: ReplaceOption = False,
    critical_first: CriticalOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Restore a backup into a new database and compare it with its manifest. Needs no source and no Dagster."""
    from gs_backup_assets.catalogue.catalogue import Catalogue
    from gs_backup_assets.config import load_config
    from gs_backup_assets.postgres.connection import target_from_environment, target_from_url
    from gs_backup_assets.recovery.restore import restore_backup
    from gs_backup_assets.vault.opening import open_store

    settings = load_config(config).database(database)
    store = open_store(settings)
    entry = Catalogue(store, settings.name).find(backup)
    is_url = "://" in into or "=" in into
    target = target_from_url(into, name="--into") if is_url else target_from_environment(into)
    outcome = restore_backup(
        settings, store, entry, target, terminal_progress(), replace=replace, critical_first=critical_first
    )

    def show(console: Console) -> None:
        from rich.markup import escape

        for check in outcome.checks:
            sign = {"passed": "[green]✔[/]", "failed": "[red]✘[/]", "not_verified": "[yellow]?[/]"}[check.status.value]
            console.print(f"{sign} {check.name}: {escape(check.summary)}")
            for finding in check.findings[:10]:
                console.print(f"    [bold]{finding.code}[/] {escape(finding.message)} {escape(finding.hint)}")
        if outcome.core_seconds is not None:
            console.print(f"Critical tables usable after {outcome.core_seconds:.1f} s.")
        console.print(f"Everything usable after {outcome.full_seconds:.1f} s, in the database [bold]{escape(outcome.database)}[/].")
        if outcome.replaced is not None:
            console.print(f"The old database is kept as [bold]{escape(outcome.replaced)}[/]; drop it when you no longer need it.")
        if not outcome.owners:
            console.print("[yellow]![/] The role is not a superuser: owners, roles and grants were not restored.")
        console.print(f"[bold]{outcome.verdict.value}[/]")

    emit(outcome.model_dump(mode="json"), json, show)
    statuses = {"PROVEN": ExitStatus.GOOD, "FAILED": ExitStatus.FAILED, "NOT_VERIFIED": ExitStatus.NOT_VERIFIED}
    finish(statuses[outcome.verdict.value])
