"""The watch from outside: every database looked at once, people told of changes, with a memory in a small file."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.alerts.message import Message, Problem
from gs_backup_assets.alerts.notify import Notifier
from gs_backup_assets.alerts.staleness import stale_problems
from gs_backup_assets.alerts.state import AlertState, decide, empty, memory_lost
from gs_backup_assets.config import BackupConfig, DatabaseSettings
from gs_backup_assets.errors import BackupError, ProgramError
from gs_backup_assets.system.cache import cache_root
from gs_backup_assets.system.threads import Threads

_READERS = 16  # databases looked at side by side: their stores may be far away
PATIENCE_SECONDS = 120.0
NotifierFactory = Callable[[str], Notifier]


class Memory(BaseModel):
    """What people were told at earlier looks, by the variable that names whom to tell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    told: dict[str, AlertState] = {}


@dataclass(frozen=True)
class Watched:
    """One look: what is wrong, what was said, variables that name no receiver, and why a receiver is not served: its
    URL is wrong, or it did not accept a message."""

    problems: tuple[Problem, ...]
    said: tuple[Message, ...]
    unheard: tuple[str, ...]
    refused: BackupError | None


def default_state(config_file: Path) -> Path:
    """Where what people were told is kept for one configuration: a file in the user's cache."""
    name = hashlib.sha256(str(config_file.resolve()).encode()).hexdigest()[:16]
    return cache_root() / "watch" / f"{name}.json"


def look(
    settings: Sequence[DatabaseSettings],
    now: datetime,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    links: Mapping[str, str] | None = None,
) -> tuple[Problem, ...]:
    """What is wrong with the backups of the databases at `now`, by their stores alone. `links` has a page for each.

    A store that does not answer within `patience_seconds` counts as one that cannot be read: who watches must not hang.
    """
    pool = Threads(_READERS, "watch")
    futures = {pool.submit(stale_problems, one, now, (links or {}).get(one.name, "")): one for one in settings}
    done = wait(futures, timeout=patience_seconds).done
    found: list[Problem] = []
    for future, one in futures.items():
        if future not in done:
            future.cancel()
            words = f"It gave no answer within {patience_seconds:.0f} s."
            found.append(_unknown(one.name, words, "STORE_UNAVAILABLE"))
        elif (error := future.exception()) is not None:  # a fault of ours must not silence the watch
            found.append(_unknown(one.name, f"{type(error).__name__}: {error}", "UNEXPECTED"))
        else:
            found += future.result()
    return tuple(found)


def watch(
    config: BackupConfig,
    state: Path,
    now: datetime,
    *,
    database: str | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
    notifier: NotifierFactory = Notifier,
) -> Watched:
    """Look at all databases (or one), and tell what has changed since the look that is remembered in the file `state`.

    What was not accepted is remembered as not said, so that the next look says it again; the same holds where nobody is
    configured to be told. A receiver's URL that is wrong shows at every look. Raises ConfigError (`DATABASE_UNKNOWN`),
    and ProgramError (`WATCH_STATE_UNAVAILABLE`) when the file cannot be read or written; what is to be said is said
    before.
    """
    watched = [config.database(name) for name in ((database,) if database else config.names())]
    problems = look(watched, now, patience_seconds=patience_seconds)
    memory, damaged, trouble = _read(state)
    told = dict(memory.told)
    said: list[Message] = []
    unheard: list[str] = []
    refused: BackupError | None = None
    for urls_env, group in _groups(watched).items():
        names = {one.name for one in group}
        others = set(config.names()) - names
        theirs = [problem for problem in problems if _database_of(problem.fingerprint) in names]
        known = memory.told.get(urls_env, empty())
        aside = {key: value for key, value in known.told.items() if _database_of(key) in others}
        mine = {key: value for key, value in known.told.items() if key not in aside}
        remind_after = min(one.alerts.remind_after for one in group)
        flap_window = max(one.alerts.flap_window for one in group)
        decision = decide(
            AlertState(told=mine),
            theirs,
            now,
            remind_after,
            flap_window=flap_window,
            watched=lambda fingerprint: _database_of(fingerprint) in config.names(),
        )
        messages = (memory_lost(), *decision.messages) if damaged else decision.messages
        try:
            receivers = notifier(urls_env)
            # Without news the addresses are looked at all the same: that one is wrong must not show only in need.
            heard = receivers.send_all(messages) if messages else bool(receivers.receivers())
        except BackupError as error:  # the others are told all the same
            refused = refused or error
            continue
        if not heard:
            unheard.append(urls_env)
        if messages and not heard:
            continue
        said += messages
        told[urls_env] = AlertState(told={**aside, **decision.state.told})
    if trouble is not None:
        raise trouble
    _write(state, Memory(told=told))
    return Watched(problems, tuple(said), tuple(unheard), refused)


def _groups(watched: Sequence[DatabaseSettings]) -> Mapping[str, list[DatabaseSettings]]:
    """The databases by whom to tell: when many fail together, each hears one message."""
    groups: dict[str, list[DatabaseSettings]] = {}
    for one in watched:
        groups.setdefault(one.alerts.urls_env, []).append(one)
    return groups


def _database_of(fingerprint: str) -> str:
    return fingerprint.partition(":")[0]


def _unknown(name: str, words: str, code: str) -> Problem:
    return Problem(
        fingerprint=f"{name}:store",
        title=f"{name}: the backup store cannot be read",
        body=words,
        hint="See whether the store and the network are up: `gs-backup doctor` looks at both.",
        severity="critical",
        code=code,
        hides=(f"{name}:",),
    )


def _read(path: Path) -> tuple[Memory, bool, ProgramError | None]:
    """What is remembered; whether the memory is damaged; and why it cannot be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Memory(), False, None
    except OSError as error:
        return Memory(), False, _unavailable(path, error)
    try:
        return Memory.model_validate_json(data), False, None
    except (ValueError, OverflowError):
        return Memory(), True, None


def _write(path: Path, memory: Memory) -> None:
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            aside.write_text(memory.model_dump_json(), encoding="utf-8")
            os.replace(aside, path)
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
    except OSError as error:
        raise _unavailable(path, error) from error


def _unavailable(path: Path, error: OSError) -> ProgramError:
    return ProgramError(
        "WATCH_STATE_UNAVAILABLE",
        f"What people were told cannot be kept in {path}: {error.strerror}.",
        "Name a file with --state in a folder that may be written to: without it the same is told again and again.",
    )
