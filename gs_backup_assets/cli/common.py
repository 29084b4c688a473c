"""What the verbs share: options, output as text or as one JSON document, and progress on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gs_backup_assets.errors import ConfigError, ExitStatus, StoreError
from gs_backup_assets.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.catalogue.catalogue import Entry
    from gs_backup_assets.config import DatabaseSettings
    from gs_backup_assets.vault.opening import Vault, Which

# Columns where nobody looks at a terminal: ids, times and folders stay in one piece where a program reads them.
_WIDTH_OF_FILES = 200

BackupArgument = Annotated[str, typer.Argument(help="A backup id, a day such as 2026-11-22, or latest.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The configuration file.", envvar="GS_BACKUP_CONFIG", show_default="backup.yaml"),
]
DatabaseOption = Annotated[str | None, typer.Option("--database", help="Which database, when there are several.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="The store's address, a folder or s3://bucket/prefix?endpoint=...&region=...: no configuration is read.",
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", help="Which copy: primary or offsite.", show_default="offsite where there is one"),
]
EitherStoreOption = Annotated[
    str | None, typer.Option("--from", help="Which store: primary or offsite.", show_default="every store")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, progress on standard error.")
]


def settings_of(config: Path | None, database: str | None, store: str | None = None) -> DatabaseSettings:
    """The settings of one database: from the configuration, or from a store's address and nothing else.

    Errors as for `load_config`; also ConfigError: `STORE_ADDRESS_INVALID`, `DATABASE_AMBIGUOUS`, `DATABASE_UNKNOWN`.
    """
    if store is None:
        from gs_backup_assets.config import load_config

        return load_config(config).database(database)
    from gs_backup_assets.recovery.stored.bare import settings_at

    return settings_at(store, database)


def chosen_copy(name: str | None) -> Which | None:
    """What --from names; ConfigError (`FROM_INVALID`)."""
    choices: dict[str | None, Which | None] = {None: None, "primary": "primary", "offsite": "offsite"}
    if name in choices:
        return choices[name]
    raise ConfigError("FROM_INVALID", f"--from knows no {name!r}.", "Write --from primary or --from offsite.")


def find_backup(vault: Vault, which: Which, database: str, wanted: str) -> Entry:
    """A backup in the chosen store; where that cannot be used, the error names the way to the other copy.

    That `latest` passed by one that is dated after now is said: it may be this machine's clock that is wrong.
    """
    from gs_backup_assets.catalogue.catalogue import Catalogue

    try:
        catalogue = Catalogue(vault.store(which), database)
        found = catalogue.find(wanted)
        newest = catalogue.latest() if wanted == "latest" else None
        if newest is not None and newest.id > found.id:
            sys.stderr.write(
                f"{newest.id} is dated after now: a clock was ahead when it was taken, or this machine's is behind."
                f" Taken as the latest is {found.id}; if that is wrong, give the id in place of `latest`.\n"
            )
        return found
    except StoreError as error:
        if vault.offsite is None:
            raise
        other = "primary" if which == "offsite" else "offsite"
        raise StoreError(error.code, error.message, f"{error.hint} Or use the other copy: --from {other}.") from error


def emit(document: dict[str, Any], as_json: bool, show: Callable[[Console], None]) -> None:
    """Print a result: the document as JSON, or what `show` draws for people."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=_text) + "\n")
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    show(console)


def _text(value: object) -> str:
    """What JSON has no kind for. Times as ISO 8601 writes them, with a T and their offset."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def finish(status: ExitStatus) -> None:
    """End the verb with an exit status."""
    raise typer.Exit(int(status))


def terminal_progress() -> Progress:
    """Progress on standard error: one line per stage, with a moving counter on a terminal."""
    return Progress(TerminalListener())


class TerminalListener:
    """Writes stages as lines; on a terminal the running stage is redrawn at most five times a second."""

    def __init__(self) -> None:
        self._moving = sys.stderr.isatty()
        self._drawn = 0.0

    def stage_started(self, stage: str) -> None:
        if self._moving:
            self._write(f"\r\x1b[K  {stage} ...")

    def stage_advanced(self, stage: str, done: int, total: int | None, unit: str, seconds: float) -> None:
        now = time.monotonic()
        if not self._moving or now - self._drawn < 0.2:
            return
        self._drawn = now
        if unit != "bytes":
            self._write(f"\r\x1b[K  {stage} ... {done}{f' of {total}' if total else ''} {unit}")
            return
        share = f" of {human_bytes(total)}" if total else ""
        rate = f", {human_bytes(done / seconds)}/s" if seconds > 0 else ""
        self._write(f"\r\x1b[K  {stage} ... {human_bytes(done)}{share}{rate}")

    def stage_ended(self, stage: str, seconds: float, ok: bool) -> None:
        lead = "\r\x1b[K" if self._moving else ""
        self._write(f"{lead}  {'ok' if ok else '--'}  {stage:<14}{seconds:8.2f} s\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def human_bytes(size: float) -> str:
    """`1.4 GB`, in powers of 1000 as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_age(seconds: float) -> str:
    """`3 h 20 min`, `2 d 4 h`: the two largest units, as in messages."""
    from gs_backup_assets.words import duration_text

    return duration_text(timedelta(seconds=seconds))
