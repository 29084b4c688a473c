"""`gs-backup replica`: watch standbys, build one, and promote one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    JsonOption,
    emit,
    finish,
    human_age,
    human_bytes,
    settings_of,
    terminal_progress,
)
from gs_backup_assets.errors import ConfigError, ExitStatus, ProofFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from gs_backup_assets.catalogue.verdict import CheckResult
    from gs_backup_assets.recovery.replicas.limits import Observation

app = typer.Typer(help="Watch, build and promote streaming standbys.", no_args_is_help=True)
IntoOption = Annotated[Path, typer.Option("--into", help="The data directory to make: a folder that is new, or empty.")]
NameOption = Annotated[
    str | None, typer.Option("--name", help="The replica's name, also its slot's.", show_default="the only one")
]
BackupOption = Annotated[
    str | None,
    typer.Option("--from-backup", help="A base backup of the store, or latest: production is not burdened."),
]
StartOption = Annotated[bool, typer.Option("--start", help="Start it, and wait until it streams.")]
PortOption = Annotated[int | None, typer.Option("--port", help="Its port.", show_default="the primary's")]
ForceOption = Annotated[bool, typer.Option("--force", help="Promote whatever the checks say.")]
_SIGNS = {"passed": "[green]✔[/]", "failed": "[red]✘[/]", "not_verified": "[yellow]?[/]"}


@app.command("status")
def status(config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False) -> None:
    """Lag, slots, replay and conflicts of every configured replica. Status 1 beyond a limit, 3 when it is not known."""
    from datetime import datetime, timezone

    from gs_backup_assets.recovery.replicas.replicas import observe_replicas

    settings = settings_of(config, database)
    if not settings.replicas:
        raise ConfigError("NO_REPLICAS", "backup.yaml names no replicas.", "docs/replicas.md shows how to add one.")
    observed = observe_replicas(settings, datetime.now(timezone.utc))
    document = {**observed.observation.model_dump(mode="json"), "check": observed.check.model_dump(mode="json")}
    emit(document, json, lambda console: _show(console, observed.observation, observed.check))
    _finish_with(observed.check.status.value)


@app.command("create")
def create(  # noqa: PLR0917 - Typer makes its options of them
    into: IntoOption,
    name: NameOption = None,
    from_backup: BackupOption = None,
    start: StartOption = False,
    port: PortOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Build a streaming standby: its slot, its files, its settings; nothing of it stays after an error."""
    from gs_backup_assets.catalogue.audit import Author, failure_noted, note
    from gs_backup_assets.postgres.connection import target_from_environment
    from gs_backup_assets.recovery.replicas.create import create_replica
    from gs_backup_assets.recovery.replicas.source import archive_environment, from_store, restore_command
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database)
    name = name or _only_one(list(settings.replicas))
    configured = settings.replicas.get(name)
    vault = open_vault(settings)
    fill = from_store(settings, vault, from_backup) if from_backup is not None else None
    by, ids = Author.here("replica create"), {"replica": name}
    with failure_noted(vault.primary, settings.name, by, "replica", ids=ids, otherwise=vault.offsite):
        made = create_replica(
            target_from_environment(settings.wal_url_env),
            into.absolute(),
            name,
            terminal_progress(),
            slot=configured.slot if configured else None,
            restore_command=restore_command(settings, config),
            environment=archive_environment(settings) if settings.wal is not None else None,
            port=port,
            start=start,
            fill=fill,
        )
    note(vault.primary, settings.name, by, "replica", ids=ids, result="created", otherwise=vault.offsite)
    document = {
        "name": made.name,
        "slot": made.slot,
        "data": str(made.data),
        "programs": str(made.toolchain),
        "account": made.account.name,
        "started": made.started,
        "start": made.start,
        "log": str(made.log),
        "warnings": list(made.warnings),
    }

    def show(console: Console) -> None:
        from rich.markup import escape

        state = "streams" if made.started else "is ready"
        console.print(f"[green]✔[/] The replica [bold]{made.name}[/] {state}: {escape(str(made.data))}")
        for warning in made.warnings:
            console.print(f"[yellow]![/] {escape(warning)}")
        if not made.started:
            console.print(f"Start it as the account {made.account.name}: [bold]{escape(made.start)}[/]")
            console.print(f"Until then its slot {made.slot} keeps the primary's WAL: start it soon.")
        if configured is None:
            console.print(f"To watch it, add to backup.yaml: replicas: {{{made.name}: {{url_env: VARIABLE}}}}")

    emit(document, json, show)


@app.command("promote")
def promote(
    name: Annotated[str, typer.Argument(help="The replica's name in backup.yaml.")],
    force: ForceOption = False,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Make a standby the primary, after checks: the old primary must be gone, and nothing must be lost."""
    from gs_backup_assets.catalogue.audit import Author, failure_noted, note
    from gs_backup_assets.recovery.replicas.promote import NEXT_STEPS, check_promotion, promote_replica
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database)
    vault = open_vault(settings)
    by, ids = Author.here("replica promote"), {"replica": name}
    with failure_noted(vault.primary, settings.name, by, "promote", ids=ids, otherwise=vault.offsite):
        checked = check_promotion(settings, vault, name)
        if not json:
            emit({}, False, lambda console: _show_checks(console, checked.checks))
        if checked.against and not force:
            findings = [finding for check in checked.against for finding in check.findings]
            words = " ".join(finding.message for finding in findings)
            raise ProofFailed(findings[0].code, f"{name} was not promoted: {words}", findings[0].hint)
        promoted = promote_replica(settings, name)
    note(
        vault.primary,
        settings.name,
        by,
        "promote",
        ids=ids,
        result="promoted",
        details={"timeline": promoted.timeline, "lsn": promoted.lsn, "forced": str(bool(checked.against)).lower()},
        otherwise=vault.offsite,
    )
    document = {
        "name": name,
        "timeline": promoted.timeline,
        "lsn": promoted.lsn,
        "seconds": round(promoted.seconds, 3),
        "forced": bool(checked.against),
        "checks": [check.model_dump(mode="json") for check in checked.checks],
        "next": list(NEXT_STEPS),
    }

    def show(console: Console) -> None:
        console.print(
            f"[green]✔[/] [bold]{name}[/] was promoted in {promoted.seconds:.1f} s: it is a primary, on timeline"
            f" {promoted.timeline} from {promoted.lsn} on. What to do next:"
        )
        for number, step in enumerate(NEXT_STEPS, 1):
            console.print(f"  {number}. {step}", markup=False)

    emit(document, json, show)


def _only_one(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    raise ConfigError("NAME_MISSING", "The replica needs a name.", "Add --name NAME: small letters and digits.")


def _finish_with(word: str) -> None:
    statuses = {"passed": ExitStatus.GOOD, "failed": ExitStatus.FAILED, "not_verified": ExitStatus.NOT_VERIFIED}
    finish(statuses[word])


def _show(console: Console, observation: Observation, check: CheckResult) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("replica", "state", "behind", "slot retains", "conflicts", "timeline", box=None, pad_edge=False)
    for replica in observation.replicas:
        state, slot = replica.state, observation.slot(replica.slot)
        sync = f", {replica.sender.sync_state}" if replica.sender and replica.sender.sync_state else ""
        word = "[red]does not answer[/]"
        if state is not None:
            word = (state.receiver or "no connection") + sync if state.in_recovery else "[red]no standby[/]"
            word += ", paused" if state.replay_paused else ""
        retained = None if slot is None else slot.retained_bytes
        table.add_row(
            replica.name,
            word,
            _behind(replica.lag_bytes, replica.lag_seconds),
            "-" if retained is None else human_bytes(retained),
            "-" if state is None else str(state.all_conflicts),
            "-" if state is None or state.timeline is None else str(state.timeline),
        )
    console.print(table)
    _show_checks(console, (check,))
    ours = {replica.slot for replica in observation.replicas}
    for slot in observation.primary.slots if observation.primary else ():
        if slot.name not in ours:
            use = "in use" if slot.active else "not in use"
            console.print(f"  slot {escape(slot.name)}: {use}, retains {human_bytes(slot.retained_bytes or 0)}")


def _behind(size: int | None, seconds: float | None) -> str:
    if size is None:
        return "?"
    if seconds is None:
        return human_bytes(size)
    return f"{human_bytes(size)}, {f'{seconds:.1f} s' if seconds < 60 else human_age(seconds)}"


def _show_checks(console: Console, checks: Iterable[CheckResult]) -> None:
    from rich.markup import escape

    for check in checks:
        console.print(f"{_SIGNS[check.status.value]} {check.name}: {escape(check.summary)}")
        for finding in check.findings:
            console.print(f"    [bold]{finding.code}[/] {escape(finding.message)} {escape(finding.hint)}")
