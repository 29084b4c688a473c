"""How old the newest backup and the newest proven backup are, and whether that is too old. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from gs_backup_assets.catalogue.catalogue import Catalogue, Entry
from gs_backup_assets.catalogue.verdict import Verdict


class Kind(str, Enum):
    """What can be stale."""

    BACKUP = "backup"
    PROOF = "proof"


@dataclass(frozen=True)
class Freshness:
    """The newest backup and the newest PROVEN backup, and how old they may be."""

    newest: Entry | None
    newest_proven: Entry | None
    stale_after: timedelta

    def stale(self, now: datetime) -> tuple[Kind, ...]:
        """What is stale at `now`. Never having been run counts as stale."""
        ages = {Kind.BACKUP: self.newest, Kind.PROOF: self.newest_proven}
        return tuple(kind for kind, entry in ages.items() if entry is None or now - entry.taken_at > self.stale_after)


def read_freshness(catalogue: Catalogue, stale_after: timedelta) -> Freshness:
    """Read as few manifests as possible: usually the newest backup is the newest proven one as well."""
    newest = catalogue.latest()
    proven = newest if newest is not None and newest.verdict is Verdict.PROVEN else catalogue.last_proven()
    return Freshness(newest, proven, stale_after)
