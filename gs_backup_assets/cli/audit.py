"""`gs-backup audit`: who did what to the backups, and whether that log is what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    JsonOption,
    StoreOption,
    emit,
    finish,
    settings_of,
    terminal_progress,
)
from gs_backup_assets.errors import ExitStatus, StoreError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="The audit log: list it, or verify that nobody changed it.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("verify")
def verify(
    store: StoreOption = None, config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False
) -> None:
    """Find any edit, gap or reorder in the audit log, alone and against its copy in the other store."""
    from gs_backup_assets.catalogue.audit_check import check_audit
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database, store)
    vault = open_vault(settings)
    with terminal_progress().stage("audit"):
        result = check_audit(vault.primary, settings.name, other=vault.offsite)

    def show(console: Console) -> None:
        from rich.markup import escape

        sign = {"passed": "[green]✔[/]", "failed": "[red]✘[/]", "not_verified": "[yellow]?[/]"}[result.status.value]
        console.print(f"{sign} {result.name}: {escape(result.summary)}")
        for finding in result.findings:
            console.print(f"  [bold]{finding.code}[/] {escape(finding.message)} {escape(finding.hint)}")

    emit({"database": settings.name, **result.model_dump(mode="json")}, json, show)
    statuses = {"passed": ExitStatus.GOOD, "failed": ExitStatus.FAILED, "not_verified": ExitStatus.NOT_VERIFIED}
    finish(statuses[result.status.value])


@app.command("list")
def list_records(
    store: StoreOption = None, config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False
) -> None:
    """List what was done to the backups, newest first: time, who, what, with what result."""
    from gs_backup_assets.catalogue.audit import AuditLog, AuditRecord
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database, store)
    vault = open_vault(settings)
    records: list[tuple[str, AuditRecord]] = [("primary", r) for r in AuditLog(vault.primary, settings.name).records()]
    unreadable: StoreError | None = None
    try:
        # Without the other store the copy of its log stands for it.
        elsewhere = AuditLog(vault.offsite or vault.primary, settings.name, copied=vault.offsite is None)
        records += [("offsite" if vault.offsite else "copy", record) for record in elsewhere.records()]
    except StoreError as error:
        unreadable = error
    records.sort(key=lambda one: (one[1].at, one[1].sequence), reverse=True)

    def show(console: Console) -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            f"time ({settings.timezone})", "who", "command", "what", "result", "about", box=None, pad_edge=False
        )
        for _, record in records:
            about = " ".join(f"{name}={value}" for name, value in sorted(record.ids.items()))
            texts = (record.actor, record.command, record.event, record.result, about)
            table.add_row(f"{record.at.astimezone(settings.zone):%Y-%m-%d %H:%M:%S}", *(escape(text) for text in texts))
        console.print(table if records else f"There is no audit log of {settings.name} yet.")
        if unreadable is not None:
            console.print(f"[yellow]![/] The other store's own log cannot be read: {escape(str(unreadable))}")

    document = {
        "database": settings.name,
        "records": [{"store": which, **record.model_dump(mode="json")} for which, record in records],
        "unreadable": unreadable.code if unreadable is not None else None,
    }
    emit(document, json, show)
