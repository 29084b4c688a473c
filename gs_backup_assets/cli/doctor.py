"""`gs-backup doctor`: checks everything that a backup needs, and explains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gs_backup_assets.cli.common import ConfigOption, DatabaseOption, JsonOption, emit, finish
from gs_backup_assets.cli.fix_bucket import fix_buckets
from gs_backup_assets.errors import ConfigError, ExitStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis


ThoroughOption = Annotated[bool, typer.Option("--thorough", help="Also start a throwaway server and try it.")]
FixOption = Annotated[
    bool, typer.Option("--fix-bucket", help="Show the lifecycle rules that buckets should have, ask, and put them.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="With --fix-bucket: do not ask.")]


def doctor(  # noqa: PLR0917 - Typer makes its options of them
    config: ConfigOption = None,
    database: DatabaseOption = None,
    thorough: ThoroughOption = False,
    fix_bucket: FixOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check address, TLS, rights, programs, disk space, stores, keys and who is told, and say what to do."""
    from gs_backup_assets.alerts.examine import examine_alerts
    from gs_backup_assets.config import load_config
    from gs_backup_assets.recovery.doctor.doctor import examine

    if yes and not fix_bucket:
        raise ConfigError("YES_WITHOUT_FIX", "--yes answers a question of --fix-bucket only.", "Leave it out.")
    settings = load_config(config).database(database)
    if fix_bucket:
        fix_buckets(settings, yes=yes, as_json=as_json)
        return
    diagnoses = (*examine(settings, thorough=thorough), *examine_alerts(settings))
    status = exit_status(diagnoses)
    document = {
        "database": settings.name,
        "status": status.name.lower(),
        "checks": [diagnosis.model_dump(mode="json") for diagnosis in diagnoses],
    }
    emit(document, as_json, lambda console: _show(console, settings.name, diagnoses))
    finish(status)


def exit_status(diagnoses: Sequence[Diagnosis]) -> ExitStatus:
    """Failed wins over not verified, and that over passed."""
    from gs_backup_assets.catalogue.verdict import Status

    found = {diagnosis.status for diagnosis in diagnoses}
    if Status.FAILED in found:
        return ExitStatus.FAILED
    return ExitStatus.NOT_VERIFIED if Status.NOT_VERIFIED in found else ExitStatus.GOOD


_WORDS = {"passed": "ok", "note": "note", "failed": "FAILED", "not_verified": "not verified"}
_STYLES = {"passed": "green", "note": "cyan", "failed": "bold red", "not_verified": "yellow"}


def _show(console: Console, name: str, diagnoses: Sequence[Diagnosis]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"What backups of {escape(name)} need", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("check", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for diagnosis in diagnoses:
        lines = [diagnosis.summary, *(f"  - {detail}" for detail in diagnosis.details)]
        if diagnosis.hint:
            lines.append(f"  > {diagnosis.hint}")
        status = "note" if diagnosis.is_note else diagnosis.status.value
        result = f"[{_STYLES[status]}]{_WORDS[status]}[/]"
        table.add_row(diagnosis.name, result, escape("\n".join(lines)))
    console.print(table)
    # Below the table and unwrapped, so that it can be copied as it is.
    for title, statements in (
        ("SQL for an administrator of the server:", [sql for diagnosis in diagnoses for sql in diagnosis.sql]),
        ("Or, schema by schema, where pg_read_all_data is too much:", [s for d in diagnoses for s in d.narrower_sql]),
    ):
        if statements:
            console.print(f"\n{title}\n")
            for statement in statements:
                console.print(escape(statement), soft_wrap=True)
