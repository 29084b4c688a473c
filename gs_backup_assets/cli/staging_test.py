"""`gs-backup staging-test`: the newest proven backup becomes the staging database, and the application has to work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    FromOption,
    JsonOption,
    chosen_copy,
    emit,
    finish,
    settings_of,
    terminal_progress,
)

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from gs_backup_assets.catalogue.staging_tests import StagingTestRecord
    from gs_backup_assets.config import DatabaseSettings

PutBackOption = Annotated[
    bool, typer.Option("--put-back", help="Only put right what a test that was killed has left, and start again.")
]


def staging_test(
    put_back: PutBackOption = False,
    copy: FromOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Restore the newest proven backup on staging, prove and mask it, start the application and ask for its health."""
    from datetime import datetime, timezone

    from gs_backup_assets.alerts.staging import failed_message, staging_message, told
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.catalogue.verdict import Status
    from gs_backup_assets.errors import BackupError
    from gs_backup_assets.recovery.staging.staging_test import run_staging_test
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database)
    now = datetime.now(timezone.utc)
    if put_back:
        _put_back(settings, now, as_json=json)
        return
    try:
        done = run_staging_test(
            settings,
            open_vault(settings),
            terminal_progress(),
            by=Author.here("staging-test"),
            now=now,
            which=chosen_copy(copy),
        )
    except BackupError as error:
        told(settings, failed_message(settings.name, error))
        raise
    message = told(settings, staging_message(done.record))
    warnings = [str(error) for error in (*done.not_kept, *((done.not_logged,) if done.not_logged else ()))]
    if message.status is not Status.PASSED:
        warnings.append(message.summary)
    document: dict[str, Any] = {**done.record.model_dump(mode="json"), "id": done.record.id, "warnings": warnings}
    emit(document, json, lambda console: _show(console, done.record, warnings))
    finish(done.record.exit_status)


def _put_back(settings: DatabaseSettings, now: datetime, *, as_json: bool) -> None:
    from gs_backup_assets.recovery.staging.staging_test import put_staging_back

    repaired = put_staging_back(settings, terminal_progress(), now=now)
    words = repaired or "nothing of an earlier test was left"
    emit({"repaired": repaired}, as_json, lambda console: console.print(f"{words}; the application was started."))


def _show(console: Console, record: StagingTestRecord, warnings: list[str]) -> None:
    from rich.markup import escape

    colour = {"PROVEN": "green", "FAILED": "red", "NOT_VERIFIED": "yellow"}[record.verdict.value]
    console.print(f"\n[bold {colour}]{record.verdict.value.replace('_', ' ')}[/]  restore test on {record.staging}")
    console.print(f"  backup {record.backup_id}, {record.store} copy, {record.server}", markup=False)
    signs = {"passed": "[green]✔[/]", "failed": "[red]✘[/]", "not_verified": "[yellow]?[/]"}
    for check in record.checks:
        console.print(f"{signs[check.status.value]} {check.name}: {escape(check.summary)}")
        for finding in check.findings[:5]:
            console.print(f"    [bold]{finding.code}[/] {escape(finding.message)} {escape(finding.hint)}")
    if record.repaired:
        console.print(f"  put right before: {record.repaired}", markup=False)
    for warning in warnings:
        console.print(f"[yellow]![/] {escape(warning)}")
