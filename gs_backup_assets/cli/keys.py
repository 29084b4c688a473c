"""`gs-backup keys`: make a key, see which backups the given keys open, and move old backups to the current key."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.cli.common import (
    ConfigOption,
    DatabaseOption,
    EitherStoreOption,
    JsonOption,
    StoreOption,
    chosen_copy,
    emit,
    finish,
    settings_of,
    terminal_progress,
)
from gs_backup_assets.errors import ConfigError, ExitStatus
from gs_backup_assets.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from gs_backup_assets.recovery.stored.key_survey import KeySurvey
    from gs_backup_assets.recovery.stored.rewrapping import Rewrapped
    from gs_backup_assets.vault.opening import Which

app = typer.Typer(
    help="Keys of encrypted backups: make one, see what the given ones open, move backups to the current one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FileOption = Annotated[
    Path | None, typer.Option("--file", help="Write the key to this new file, mode 0600, and not to standard output.")
]
MovedArgument = Annotated[
    str | None, typer.Argument(help="A backup id, a day such as 2026-11-22, or latest.", show_default="all")
]


@app.command("new")
def new(file: FileOption = None, json: JsonOption = False) -> None:
    """Make a key for encrypted backups. Nothing keeps it but you: without it nobody ever reads what it encrypted."""
    from gs_backup_assets.recovery.stored.keyring import KEY_VARIABLE
    from gs_backup_assets.vault.keys import new_raw_key, raw_key

    text = new_raw_key()
    key_id = raw_key(text, "here").id
    if file is not None:
        _write_private(file, f"{text}\n")
    place = f"key_file: {file.absolute()}" if file is not None else f"key_env: {KEY_VARIABLE}"
    document = {"id": key_id, "file": str(file)} if file is not None else {"id": key_id, "key": text}
    sys.stderr.write(
        f"The key's id is {key_id}. In backup.yaml:\n\n"
        f"    encryption: {{kind: raw-aes-256, {place}}}\n\n"
        "Whoever loses the key loses every backup that it encrypts. Keep it in two places, neither of them beside the\n"
        "backups: not in their store, not in its account. docs/encryption.md says more.\n"
    )
    emit(document, json, lambda console: console.print(file if file is not None else text, markup=False))


@app.command("show")
def show(
    store: StoreOption = None, config: ConfigOption = None, database: DatabaseOption = None, json: JsonOption = False
) -> None:
    """Show the given keys, and try which backups each of them opens; status 1 when some backup is opened by none."""
    from gs_backup_assets.recovery.stored.key_survey import survey_keys
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database, store)
    stores = open_vault(settings).named()
    surveys: dict[Which, KeySurvey] = {}
    progress = terminal_progress()
    for which, place in stores.items():
        with progress.stage("keys"):
            surveys[which] = survey_keys(place, settings)
    documents = [
        {"store": which, "address": stores[which].describe(), **_survey_document(survey)}
        for which, survey in surveys.items()
    ]

    def draw(console: Console) -> None:
        for which, survey in surveys.items():
            console.print(f"\n[bold]{which}[/] {stores[which].describe()}")
            _show_survey(console, survey)

    emit({"database": settings.name, "stores": documents}, json, draw)
    finish(ExitStatus.GOOD if all(survey.good for survey in surveys.values()) else ExitStatus.FAILED)


@app.command("rewrap")
def rewrap(
    backup: MovedArgument = None,
    copy: EitherStoreOption = None,
    config: ConfigOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
) -> None:
    """Move backups and the log to the current key, in every store: only the wrapping of data keys is made anew."""
    from gs_backup_assets.catalogue.audit import Author
    from gs_backup_assets.recovery.stored.rewrapping import rewrap_backups
    from gs_backup_assets.vault.opening import open_vault

    settings = settings_of(config, database)
    vault = open_vault(settings)
    which = chosen_copy(copy)
    stores = vault.named() if which is None else {which: vault.store(which)}
    progress, author = terminal_progress(), Author.here("keys rewrap")
    results = rewrap_backups(settings, stores, progress, by=author, only=backup)
    emit(
        {"database": settings.name, "stores": [_rewrapped_document(name, one) for name, one in results.items()]},
        json,
        lambda console: _show_rewrapped(console, results),
    )
    failures = [error for one in results.values() for error in one.failed.values()]
    finish(failures[0].exit_status if failures else ExitStatus.GOOD)


def _write_private(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except FileExistsError:
        raise ConfigError(
            "FILE_EXISTS", f"{path} is there already.", "Name a new file: a key that is overwritten is gone."
        ) from None
    except OSError as error:
        raise ConfigError("FILE_UNUSABLE", f"{path} cannot be made: {error.strerror}.", "Name another file.") from None


def _survey_document(survey: KeySurvey) -> dict[str, Any]:
    return {
        "encrypted": survey.encrypted,
        "plain": survey.plain,
        "wal_timelines": survey.timelines,
        "keys": [
            {
                "role": key.role,
                "place": key.place,
                "id": key.id,
                "opens": len(key.opens),
                "problem": key.problem.code if key.problem else None,
            }
            for key in survey.keys
        ],
        "locked": list(survey.locked),
    }


def _show_survey(console: Console, survey: KeySurvey) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "for", "key", "where", "opens", "", box=None, pad_edge=False)
    for key in survey.keys:
        sign = "[red]✘[/]" if key.problem else "[green]✔[/]"
        words = f"{key.problem.code}: {key.problem.message}" if key.problem else ""
        table.add_row(sign, key.role, escape(key.id or ""), escape(key.place), str(len(key.opens)), escape(words))
    if survey.keys:
        console.print(table)
    else:
        console.print("No key is given: new backups are not encrypted.")
    console.print(f"{counted(survey.encrypted, 'backup')} encrypted, {survey.plain} not.")
    if survey.timelines:
        console.print(f"{counted(survey.timelines, 'timeline')} of the write-ahead log encrypted.")
    if survey.locked:
        console.print(f"[red]✘[/] No given key opens: {', '.join(survey.locked)}.")


def _rewrapped_document(which: Which, result: Rewrapped) -> dict[str, Any]:
    failed = [{"id": backup, "code": error.code, "message": error.message} for backup, error in result.failed.items()]
    return {
        "store": which,
        "key": result.key_id,
        "moved": list(result.moved),
        "as_they_were": result.as_they_were,
        "plain": result.plain,
        "failed": failed,
    }


def _show_rewrapped(console: Console, results: Mapping[Which, Rewrapped]) -> None:
    from rich.markup import escape

    for which, result in results.items():
        timelines = sum("/" in name for name in result.moved)  # of the write-ahead log
        log = f" and {counted(timelines, 'timeline')}" if timelines else ""
        console.print(
            f"[bold]{which}[/]: {counted(len(result.moved) - timelines, 'backup')}{log} moved to the key"
            f" {escape(result.key_id)},"
            f" {result.as_they_were} were under it already, {result.plain} are not encrypted."
        )
        for backup, error in result.failed.items():
            console.print(f"  [red]✘[/] {backup} stays as it is: [bold]{error.code}[/] {escape(str(error.message))}")
            console.print(f"    {escape(error.hint)}")
