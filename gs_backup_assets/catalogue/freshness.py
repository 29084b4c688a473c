"""How old the newest backup and the newest proven backup are, and whether that is too old. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import Verdict

# Clocks of machines differ. What is dated later comes from one that was far ahead, and says nothing of today.
_CLOCKS_DIFFER = timedelta(hours=1)


def dated_by(moment: datetime, now: datetime) -> bool:
    """Whether something of that moment can have been there at `now`: else it would be fresh until then."""
    return moment <= now + _CLOCKS_DIFFER


class Kind(str, Enum):
    """What can be stale."""

    BACKUP = "backup"
    PROOF = "proof"


@dataclass(frozen=True)
class Freshness:
    """The newest backup and the newest PROVEN backup, and how old they may be."""

    newest: Summary | None
    newest_proven: Summary | None
    stale_after: timedelta

    def stale(self, now: datetime) -> tuple[Kind, ...]:
        """What is stale at `now`. Never having been run counts as stale."""
        ages = {Kind.BACKUP: self.newest, Kind.PROOF: self.newest_proven}
        return tuple(kind for kind, entry in ages.items() if entry is None or now - entry.taken_at > self.stale_after)


def freshness_of(summaries: Sequence[Summary], stale_after: timedelta) -> Freshness:
    """What backups, newest first, come to."""
    proven = next((summary for summary in summaries if summary.verdict is Verdict.PROVEN), None)
    return Freshness(summaries[0] if summaries else None, proven, stale_after)
