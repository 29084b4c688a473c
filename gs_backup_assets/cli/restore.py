"""`gs-backup restore`: bring a backup back into a database, proved equal before anything is replaced."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from gs_backup_assets.cli.common import (
    BackupArgument,
    ConfigOption,
    DatabaseOption,
    FromOption,
    JsonOption,
    StoreOption,
    chosen_copy,
    emit,
    find_backup,
    finish,
    settings_of,
    terminal_progress,
)
from gs_backup_assets.errors import ExitStatus

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.postgres.connection import Target

IntoOption = Annotated[
    str,
    typer.Option("--into", help="URL of the database to make, or the name of an environment variable that holds it."),
]
ReplaceOption = Annotated[
    bool,
    typer.Option(
        "--replace", help="Restore beside an existing database, prove, then swap the names; the old one is kept."
    ),
]
CriticalOption = Annotated[
    bool, typer.Option("--critical-first", help="Load, index and analyse the tables of the class `critical` first.")
]


def _target(into: str) -> Target:
    """What --into names: an address, or the environment variable that holds one."""
    from gs_backup_assets.errors import ConfigError
    from gs_backup_assets.postgres.connection import target_from_environment, target_from_url

    if "://" in into or "=" in into:
        return target_from_url(into, name="--into")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", into):  # not repeated: it may be an address with a password
        raise ConfigError(
            "INTO_INVALID",
            "--into is neither a PostgreSQL URL nor the name of an environment variable.",
            "Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or put it into a variable and give its name.",
        )
    return target_from_environment(into)


def restore(  # noqa: PLR0917 - Typer makes its options of them
    backup: BackupArgument,
    into: IntoOption,
    replace: ReplaceOption = False,
    critical_first: CriticalOption = False,
    copy: FromOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Restore a backup into a new database and compare it with its manifest. Needs no source and no Dagster."""
    from gs_backup_assets.catalogue.audit import Author, failure_noted, note
    from gs_backup_assets.recovery.dumps.restore import restore_backup
    from gs_backup_assets.recovery.objectives_report import CRITICAL_SECONDS
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database, store)
    vault = open_vault(settings)
    which = chosen_copy(copy) or vault.best
    source = vault.store(which)
    entry = find_backup(vault, which, settings.name, backup)
    target = _target(into)
    by = Author.here("restore")
    ids = {"backup": entry.id, "partition": entry.partition, "into": target.database}
    with failure_noted(vault.primary, settings.name, by, "restore", ids=ids, otherwise=vault.offsite):
        outcome = restore_backup(
            settings, source, entry, target, terminal_progress(), replace=replace, critical_first=critical_first
        )
    not_logged = note(
        vault.primary,
        settings.name,
        by,
        "restore",
        ids={**ids, "into": outcome.database, **({"replaced": outcome.replaced} if outcome.replaced else {})},
        result=outcome.verdict.value,
        details={
            "store": which,
            "seconds": round(outcome.full_seconds, 3),
            **({CRITICAL_SECONDS: round(outcome.core_seconds, 3)} if outcome.core_seconds is not None else {}),
        },
        otherwise=vault.offsite,
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
        where = f"in the database [bold]{escape(outcome.database)}[/]"
        console.print(f"Everything usable after {outcome.full_seconds:.1f} s, {where}.")
        if outcome.replaced is not None:
            console.print(
                f"The old database is kept as [bold]{escape(outcome.replaced)}[/]; drop it when you no longer need it."
            )
        if not outcome.owners:
            console.print("[yellow]![/] The role is not a superuser: owners, roles and grants were not restored.")
        if outcome.half_restored:
            names = escape(", ".join(outcome.half_restored))
            console.print(f"[yellow]![/] Left by restores that were killed, or still at work: {names}.")
        if not_logged is not None:
            console.print(f"[yellow]![/] The audit log could not be written: {escape(str(not_logged))}")
        console.print(f"[bold]{outcome.verdict.value}[/]")

    emit(outcome.model_dump(mode="json"), json, show)
    statuses = {"PROVEN": ExitStatus.GOOD, "FAILED": ExitStatus.FAILED, "NOT_VERIFIED": ExitStatus.NOT_VERIFIED}
    finish(statuses[outcome.verdict.value])
