"""The audit log: who did what to the backups, one JSON line a record, each with the digest of the line before it."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, FiniteFloat, ValidationError, field_validator

from gs_backup_assets.errors import BackupError, ConfigError, StoreError
from gs_backup_assets.system.threads import Threads, clean_up
from gs_backup_assets.vault.store import Store, keys, unless_there

ACTOR_VARIABLE = "GS_BACKUP_ACTOR"
FIRST_PREVIOUS = "0" * 64
Event = Literal[
    "backup", "copy", "read_back", "proof", "restore", "prune", "hold", "release", "rewrap", "sweep", "replica",
    "promote", "disaster_recovery", "wal_gap", "drill", "restore_point", "recover", "staging_test",
    "anonymise", "resume",
]  # fmt: skip
RESUMED: Event = "resume"  # the log was lost and goes on from its copy; what was not copied yet is missing before it

# Records lie in folders of a thousand, by number and not by time: a key that depends on nothing but the number can be
# taken only once, whatever the writers' clocks say; and the newest folder is one page of a listing.
_KEY = re.compile(r"(\d{5})/(\1\d{3})\.json")
_READERS = 8
_TRIES = 40
_LONGEST_PAUSE = 0.5


@dataclass(frozen=True)
class Author:
    """Who acts, and with which verb. `command` is a verb such as "verify", never the arguments: they hold passwords."""

    actor: str
    command: str

    @classmethod
    def here(cls, command: str) -> Author:
        """This process: whom GS_BACKUP_ACTOR names, or else the operating system's user."""
        return cls(os.environ.get(ACTOR_VARIABLE) or _user(), command)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # containers run under numbers that no file names
        return f"uid {os.geteuid()}"


class AuditRecord(BaseModel):
    """One thing that was done. `at` is aware, in UTC; `previous` is the SHA-256 of the line before, in hex digits.

    `event` is one of `Event`, or of those that a later release knows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: int
    at: AwareDatetime
    actor: str
    command: str
    event: str
    database: str
    ids: dict[str, str]
    result: str
    details: dict[str, str | int | FiniteFloat]
    previous: str

    @field_validator("at")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.astimezone(timezone.utc)


def encode(record: AuditRecord) -> bytes:
    """The one line that a record may be: sorted keys, no spaces, a newline at the end."""
    contents = record.model_dump(mode="json")
    return (json.dumps(contents, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def decode(data: bytes, *, key: str) -> AuditRecord:
    """Read a line. StoreError: `AUDIT_DAMAGED` for what is no record, `AUDIT_EDITED` for one written in another way."""
    hint = "Run `gs-backup audit verify`."
    try:
        record = AuditRecord.model_validate_json(data)
        canonical = encode(record)
    except (ValidationError, OverflowError):  # a time so near the end of the calendar that its UTC is beyond it
        raise StoreError("AUDIT_DAMAGED", f"{key} is not a record of the audit log.", hint) from None
    if canonical != data:
        raise StoreError("AUDIT_EDITED", f"{key} is not written as records of the audit log are.", hint)
    return record


def sha256(line: bytes) -> str:
    """What the next record has as `previous`."""
    return hashlib.sha256(line).hexdigest()


class AuditLog:
    """The log that a store keeps about one database: write-once objects, numbered from 1.

    `<database>/audit/<first 5 digits>/<8 digits>.json` is the store's own log, `<database>/audit-copy/...` what
    `mirror` brought of the log of the other store.
    """

    def __init__(self, store: Store, database: str, *, copied: bool = False) -> None:
        self.store = store
        self.database = database
        self.folder = f"{database}/audit-copy" if copied else f"{database}/audit"

    def append(
        self,
        author: Author,
        event: Event,
        ids: Mapping[str, str],
        result: str,
        details: Mapping[str, str | int | float] | None = None,
        *,
        now: datetime | None = None,
        copied: tuple[int, bytes] | None = None,
    ) -> AuditRecord:
        """Write what was done behind the newest record, however many others are writing.

        Where there is none at all: behind the newest record of the log's copy, `copied`, its number and line.
        `ids` are `backup`, `partition`, `proof` (its stem, the time), whatever the event is about. `result` is one word
        or a code. Raises StoreError: `AUDIT_BUSY` after some seconds of being overtaken, and what the store raises.
        """
        record = AuditRecord(
            sequence=0,
            at=now or datetime.now(timezone.utc),
            actor=_printable(author.actor),
            command=_printable(author.command),
            event=event,
            database=self.database,
            ids={name: _printable(value) for name, value in ids.items()},
            result=_printable(result),
            details={n: _printable(v) if isinstance(v, str) else v for n, v in (details or {}).items()},
            previous="",
        )
        for attempt in range(_TRIES):
            number = self.newest()
            line = self.line(number) if number else None
            if line is None and copied is not None:
                number, line = copied
            previous = FIRST_PREVIOUS if line is None else sha256(line)
            record = record.model_copy(update={"sequence": number + 1, "previous": previous})
            try:
                self.store.put_bytes(encode(record), self.key(record.sequence))
            except StoreError as error:
                if error.code != "OBJECT_EXISTS":
                    raise
                time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.005 * 2**attempt)))
            else:
                return record
        raise StoreError(
            "AUDIT_BUSY",
            f"The audit log {self.folder} in {self.store.describe()} could not be written: others were always quicker.",
            "Try again; if it stays, look for a program that writes to the log all the time.",
        )

    def records(self) -> list[AuditRecord]:
        """All records in their order; StoreError (`AUDIT_DAMAGED`, `AUDIT_EDITED`)."""
        found = self.stored_keys()
        return [decode(line, key=key) for key, line in zip(found, self.lines(found), strict=True)]

    def newest(self) -> int:
        """The newest record's number; 0 when there is none. Lists one folder of at most a thousand records."""
        for name in reversed(self.store.folders(self.folder)):
            numbers = [self.number(key) or 0 for key in keys(self.store, f"{self.folder}/{name}")]
            if any(numbers):
                return max(numbers)
        return 0

    def key(self, number: int) -> str:
        """Where the record with a number lies."""
        return f"{self.folder}/{number // 1000:05}/{number:08}.json"

    def number(self, key: str) -> int | None:
        """The number that a key gives to its record; None for what is no key of a record."""
        match = _KEY.fullmatch(key.removeprefix(f"{self.folder}/"))
        return int(match[2]) if match else None

    def stored_keys(self) -> list[str]:
        """Keys of all records, in their order."""
        return [key for key in keys(self.store, self.folder) if self.number(key) is not None]

    def line(self, number: int) -> bytes:
        """The bytes of one record; StoreError (`OBJECT_MISSING`)."""
        return self._read(self.key(number))

    def lines(self, wanted: Sequence[str]) -> list[bytes]:
        """The bytes of many records, read side by side."""
        with Threads(_READERS, "audit") as pool:
            return list(pool.map(self._read, wanted))

    def _read(self, key: str) -> bytes:
        with self.store.open(key) as stream:
            return stream.read()


class _Backup(Protocol):
    """An entry of the catalogue, a summary, a manifest."""

    @property
    def id(self) -> str: ...

    @property
    def partition(self) -> str: ...

    @property
    def kind(self) -> str: ...


def ids_of(backup: _Backup) -> dict[str, str]:
    """What a record calls a backup by. Of a kind nothing is said for dumps: logs from before base backups say none."""
    ids = {"backup": backup.id, "partition": backup.partition}
    return ids if backup.kind == "logical" else {**ids, "kind": backup.kind}


def note(
    store: Store,
    database: str,
    author: Author,
    event: Event,
    *,
    ids: Mapping[str, str],
    result: str,
    details: Mapping[str, str | int | float] | None = None,
    otherwise: Store | None = None,
) -> StoreError | None:
    """Write a record about work that is done, from where it may be impossible: a proof by a role that only reads.

    `otherwise` is the other store. Where the store refuses, or has nothing of the database, that one's log gets the
    record; a log that was lost first comes back from its copy there, and is not begun anew while nobody knows whether
    there is one. Returns the error in place of raising it when no store took it; the caller tells it as a warning.
    """
    refusal: StoreError | None = None
    try:
        # A store that is lost, or a disk that is not mounted, must not get the beginning of another log.
        if otherwise is None or store.folders(database):
            if otherwise is not None:
                resume(store, otherwise, database, author)
            AuditLog(store, database).append(author, event, ids, result, details)
            return None
    except StoreError as error:
        refusal = error
    try:
        if otherwise is not None:
            AuditLog(otherwise, database).append(author, event, ids, result, details)
            return None
    except StoreError as error:
        refusal = refusal or error
    return refusal


@contextmanager
def failure_noted(
    store: Store,
    database: str,
    author: Author,
    event: Event,
    *,
    ids: Mapping[str, str],
    otherwise: Store | None = None,
) -> Iterator[None]:
    """Write a record when the work inside breaks off, the error's code as its result. A ConfigError began nothing."""
    try:
        yield
    except ConfigError:
        raise
    except BaseException as error:
        # What went wrong first is told; that the log could not be written either would only hide it.
        code = error.code if isinstance(error, BackupError) else type(error).__name__
        clean_up(lambda: note(store, database, author, event, ids=ids, result=code, otherwise=otherwise), after=error)
        raise


def resume(store: Store, other: Store, database: str, author: Author) -> int:
    """Bring a log that was lost back from its copy in the other store, byte for byte; returns how many records.

    A record of its own says so: what was not copied yet is lost. Nothing happens while the log has its first record, or
    when the copy lacks it as well. Raises what the stores raise.
    """
    log, copy = AuditLog(store, database), AuditLog(other, database, copied=True)
    if store.exists(log.key(1)):
        return 0
    numbers = [copy.number(key) or 0 for key in copy.stored_keys()]
    if numbers[:1] != [1]:
        return 0
    last = numbers[-1]
    # What says so comes first: whoever writes meanwhile goes on behind it, and takes no number that the copy has.
    log.append(author, RESUMED, {"records": str(last)}, "log_lost", copied=(last, copy.line(last)))

    def bring(number: int) -> None:
        line = copy.line(number)
        with unless_there():  # `check_audit` compares what another one brought
            store.put_bytes(line, log.key(number))

    with Threads(_READERS, "audit") as pool:
        list(pool.map(bring, numbers[1:]))
    bring(1)  # last: when this breaks off, the next one begins again
    return len(numbers)


def mirror(source: Store, other: Store, database: str) -> int:
    """Bring the records of a store's own log that the copy in another store lacks, byte for byte; returns how many.

    Whoever edits the log in one place does not reach the copy: what does not go on from it is not brought. Raises
    StoreError (`AUDIT_DIFFERS`), and what the stores raise.
    """
    log, copy = AuditLog(source, database), AuditLog(other, database, copied=True)
    there = copy.newest()  # first: the log may grow meanwhile
    end = log.newest()
    if there > end:
        raise _differs(log, copy, end + 1)
    previous = FIRST_PREVIOUS
    if there:
        line = _line_to_mirror(log, copy, there)
        if line != copy.line(there):
            raise _differs(log, copy, there)
        previous = sha256(line)
    for number in range(there + 1, end + 1):
        line = _line_to_mirror(log, copy, number)
        if decode(line, key=log.key(number)).previous != previous:
            raise _differs(log, copy, number - 1)
        try:
            other.put_bytes(line, copy.key(number))
        except StoreError as error:
            if error.code != "OBJECT_EXISTS":
                raise
            if copy.line(number) != line:
                raise _differs(log, copy, number) from None
        previous = sha256(line)
    return end - there


def _line_to_mirror(log: AuditLog, copy: AuditLog, number: int) -> bytes:
    try:
        return log.line(number)
    except StoreError as error:
        if error.code == "OBJECT_MISSING":
            raise _differs(log, copy, number) from None
        raise


def _differs(log: AuditLog, copy: AuditLog, number: int) -> StoreError:
    return StoreError(
        "AUDIT_DIFFERS",
        f"The audit log in {log.store.describe()} is not the one of which {copy.store.describe()} has a copy,"
        f" from record {number} on.",
        "`gs-backup audit verify` shows what differs; docs/audit.md says what to do, also after a store was lost.",
    )


def _printable(text: str) -> str:
    """Text that can be shown on a terminal and stored as UTF-8, whatever a user's or a role's name is made of."""
    return "".join(character if character.isprintable() else "?" for character in text)
