"""Audit logs for tests: made quickly, and tampered with as nobody should."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from gs_backup_assets.catalogue.audit import (
    FIRST_PREVIOUS,
    AuditLog,
    AuditRecord,
    Author,
    encode,
    sha256,
)
from gs_backup_assets.catalogue.audit_check import check_audit
from gs_backup_assets.catalogue.verdict import CheckResult
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.store import Store
from gs_backup_assets_tests.catalogue.manifests import NOW, made_up, put

BY = Author("tester", "verify")
SECOND = timedelta(seconds=1)
APPEND = [sys.executable, "-m", "gs_backup_assets_tests.catalogue.audit_logs"]


def write_lines(store: Store, records: Sequence[AuditRecord], database: str = "shop") -> list[bytes]:
    """Put records into a store as `append` would have, each linked to the one before; returns their lines."""
    log = AuditLog(store, database)
    lines: list[bytes] = []
    for number, record in enumerate(records, start=1):
        previous = sha256(lines[-1]) if lines else FIRST_PREVIOUS
        lines.append(encode(record.model_copy(update={"sequence": number, "previous": previous})))
        store.put_bytes(lines[-1], log.key(number))
    return lines


def proofs(count: int, *, since: datetime = NOW) -> list[AuditRecord]:
    """Records of made-up proofs, a second apart."""
    return [
        AuditRecord(
            sequence=0,
            at=since + timedelta(seconds=number),
            actor=BY.actor,
            command=BY.command,
            event="proof",
            database="shop",
            ids={"backup": f"b{number}"},
            result="PROVEN",
            details={"seconds": number / 4},
            previous="",
        )
        for number in range(count)
    ]


def path_of(store: LocalStore, number: int, database: str = "shop") -> Path:
    """The file of a record."""
    return store.root / AuditLog(store, database).key(number)


def found(store: Store, other: Store | None = None) -> set[str]:
    """The codes that the check of the log finds."""
    return {finding.code for finding in checked(store, other).findings}


def checked(store: Store, other: Store | None = None) -> CheckResult:
    return check_audit(store, "shop", other=other)


def append_in_processes(address: str, count: int = 4, each: int = 25) -> None:
    """Processes that append at the same time, each its own records."""
    running = [subprocess.Popen([*APPEND, address, f"p{number}", str(each)]) for number in range(count)]
    assert [process.wait(timeout=120) for process in running] == [0] * count


def assert_all_there(records: list[AuditRecord], count: int = 4, each: int = 25) -> None:
    """One chain with all records of those processes, those of each in its order."""
    assert [record.sequence for record in records] == list(range(1, count * each + 1))
    for number in range(count):
        own = [record.ids["backup"] for record in records if record.actor == f"p{number}"]
        assert own == [f"p{number}-{turn}" for turn in range(each)]


def put_backup(store: LocalStore, taken: datetime) -> str:
    """A backup that was taken then; returns its id."""
    manifest = made_up(taken)
    put(store, manifest)
    return manifest.id


def note_backup(store: LocalStore, taken: datetime) -> None:
    """The record of a backup that was taken then."""
    AuditLog(store, "shop").append(BY, "backup", {"backup": made_up(taken).id}, "stored", now=taken + SECOND)


def main(address: str, name: str, count: str) -> None:
    """Append records to the store at an address, in a process of its own."""
    from gs_backup_assets.vault.opening import open_configured, stores_at

    store = open_configured(stores_at(address).primary, Path.cwd())
    log = AuditLog(store, "shop")
    for number in range(int(count)):
        log.append(Author(name, "verify"), "proof", {"backup": f"{name}-{number}"}, "PROVEN")


if __name__ == "__main__":
    main(*sys.argv[1:])
