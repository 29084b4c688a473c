"""Ways in which an audit log on a disk can be tampered with, each with the finding code that must name it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue.audit import AuditLog, sha256
from gs_backup_assets.vault.local import LocalStore


@dataclass(frozen=True)
class AuditBreakage:
    """One way to tamper with a log of at least four records. `apply` takes the store's root and the database."""

    name: str
    title: str
    expected: str
    apply: Callable[[Path, str], None]


class _Records:
    """The files of a log. They may be hard links to a sound one, so they are replaced and never written in place."""

    def __init__(self, root: Path, database: str) -> None:
        log = AuditLog(LocalStore(root), database)
        self.paths = [root / key for key in log.stored_keys()]

    def replace(self, index: int, line: bytes) -> None:
        self.paths[index].unlink()
        self.paths[index].write_bytes(line)

    def edited(self, index: int) -> bytes:
        """The line with another actor, written as records are."""
        contents = {**json.loads(self.paths[index].read_bytes()), "actor": "nobody"}
        return (json.dumps(contents, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def edit_line(root: Path, database: str) -> None:
    """Somebody else did it, says the second record now."""
    records = _Records(root, database)
    records.replace(1, records.edited(1))


def edit_line_and_link(root: Path, database: str) -> None:
    """As `edit_line`, and the next record has the digest of the edited line."""
    records = _Records(root, database)
    before = records.paths[1].read_bytes()
    records.replace(1, records.edited(1))
    line = records.paths[2].read_bytes()
    records.replace(2, line.replace(sha256(before).encode(), sha256(records.edited(1)).encode()))


def damage_line(root: Path, database: str) -> None:
    """Half of the second record is gone."""
    records = _Records(root, database)
    line = records.paths[1].read_bytes()
    records.replace(1, line[: len(line) // 2])


def remove_line(root: Path, database: str) -> None:
    """The second record is gone."""
    _Records(root, database).paths[1].unlink()


def exchange_lines(root: Path, database: str) -> None:
    """The second and the third record have changed places."""
    records = _Records(root, database)
    second, third = (records.paths[index].read_bytes() for index in (1, 2))
    records.replace(1, third)
    records.replace(2, second)


def cut_end(root: Path, database: str) -> None:
    """Everything after the first record is gone, with what it told of the backups and proofs that lie in the store."""
    for path in _Records(root, database).paths[1:]:
        path.unlink()


AUDIT: tuple[AuditBreakage, ...] = (
    AuditBreakage("audit_edited", "a record of the audit log was edited", "AUDIT_EDITED", edit_line),
    AuditBreakage(
        "audit_relinked", "a record was edited, and the next one's digest", "AUDIT_EDITED", edit_line_and_link
    ),
    AuditBreakage("audit_damaged", "a record of the audit log was cut in half", "AUDIT_DAMAGED", damage_line),
    AuditBreakage("audit_removed", "a record of the audit log was removed", "AUDIT_GAP", remove_line),
    AuditBreakage("audit_exchanged", "two records of the audit log were exchanged", "AUDIT_REORDERED", exchange_lines),
    AuditBreakage("audit_cut", "the end of the audit log was removed", "AUDIT_CUT", cut_end),
)
