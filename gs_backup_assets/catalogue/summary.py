"""What a backup comes to in a few words, remembered for as long as its manifest and its proofs are the same."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import gs_backup_assets
from gs_backup_assets.catalogue.manifest import Kind, backup_folder, parse_id
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.system.cache import cache_root


@dataclass(frozen=True)
class Summary:
    """One finished backup. `damage` is the code of what is wrong with its manifest; sizes in bytes, times aware.

    `base` is the id of the backup without which an incremental one cannot be restored.
    """

    database: str
    partition: str
    id: str
    manifest_sha256: str
    damage: str | None
    stored_bytes: int | None
    source_bytes: int | None
    key_id: str | None
    verdict: Verdict
    proved_at: datetime | None
    rto_seconds: float | None
    broken_rules: tuple[str, ...]
    held: bool = False
    kind: Kind = "logical"
    base: str | None = None

    @property
    def taken_at(self) -> datetime:
        """When the backup was started, read from its id; aware, in UTC."""
        return parse_id(self.id)

    @property
    def folder(self) -> str:
        """The backup's folder in the store."""
        return backup_folder(self.database, self.partition, self.id, self.kind)

    def held_as(self, held: bool) -> Summary:
        """The same backup, held or not: holds come and go without a trace in manifest and proofs."""
        return self if held == self.held else replace(self, held=held)


class Summaries:
    """Summaries by partition and id of the backup, each with the tag of the objects that it was made from."""

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known
        self.changed = False

    def recall(self, name: str, tag: str) -> Summary | None:
        """The summary, if it was made from the very objects that have this tag."""
        entry = self._known.get(name)
        if entry is None or entry[0] != tag:
            return None
        if not isinstance(entry[1], Summary):
            entry[1] = _parse(entry[1])
        return entry[1] if isinstance(entry[1], Summary) else None

    def keep(self, name: str, tag: str, summary: Summary) -> None:
        self._known[name] = [tag, summary]
        self.changed = True

    def forget_but(self, names: set[str]) -> None:
        """Forget backups that are no longer there."""
        for name in self._known.keys() - names:
            del self._known[name]
            self.changed = True

    def document(self) -> dict[str, Any]:
        """What is written down, as JSON."""
        return {key: [tag, _plain(s) if isinstance(s, Summary) else s] for key, (tag, s) in self._known.items()}


@contextmanager
def remembered(store: str, database: str) -> Iterator[Summaries]:
    """What is known of a database's backups in a store; what was learned is kept. A cache that fails is no failure."""
    path = _path(store, database)
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        document = json.loads(path.read_bytes())
        if isinstance(document, dict) and all(isinstance(e, list) and len(e) == 2 for e in document.values()):
            known = document
    memory = Summaries(known)
    yield memory
    if memory.changed:
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            aside.write_text(json.dumps(memory.document()), encoding="utf-8")
            os.replace(aside, path)


def _path(store: str, database: str) -> Path:
    """A file for each store and database; another release of this software may see other things in the same objects."""
    name = hashlib.sha256(f"{gs_backup_assets.__version__}\n{store}\n{database}".encode()).hexdigest()[:32]
    return cache_root() / "catalogue" / f"{name}.json"


def _plain(summary: Summary) -> list[Any]:
    proved_at = summary.proved_at.isoformat() if summary.proved_at else None
    values = {field.name: getattr(summary, field.name) for field in fields(summary)}
    return list({**values, "verdict": summary.verdict.value, "proved_at": proved_at}.values())


def _parse(values: Any) -> Summary | None:
    """The summary that `_plain` wrote; None for anything else."""
    names = [field.name for field in fields(Summary)]
    try:
        made = dict(zip(names, values, strict=True))
        made["verdict"] = Verdict(made["verdict"])
        made["proved_at"] = datetime.fromisoformat(made["proved_at"]) if made["proved_at"] else None
        made["broken_rules"] = tuple(made["broken_rules"])
        return Summary(**made)
    except (TypeError, ValueError):
        return None
