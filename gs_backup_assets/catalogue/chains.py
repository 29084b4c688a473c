"""Chains of base backups: a full one, and incremental ones that each add to the one before. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gs_backup_assets.catalogue.catalogue import PhysicalEntry
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.errors import StoreError


def chain_of(entries: Iterable[PhysicalEntry], entry: PhysicalEntry) -> tuple[PhysicalEntry, ...]:
    """The backups that are needed to restore `entry`: the full one first, `entry` itself last.

    Raises StoreError: `CHAIN_BROKEN` when one of them is not there, what makes a manifest unreadable, or
    `CHAIN_INCONSISTENT` when what is named as a base cannot be one.
    """
    by_id = {other.id: other for other in entries}
    chain = [entry]
    while (base := chain[-1].require_manifest().base) is not None:
        below, above = by_id.get(base), chain[-1]
        if below is None:
            raise StoreError(
                "CHAIN_BROKEN",
                f"{above.folder} adds to the backup {base}, which is not in this store.",
                "Use the other store, where it may be, or a backup of another chain: a full one needs no other.",
            )
        _require_a_base(below, above)
        chain.append(below)
    return tuple(reversed(chain))


def _require_a_base(below: PhysicalEntry, above: PhysicalEntry) -> None:
    lower, upper = below.require_manifest(), above.require_manifest()
    if lower.system_identifier != upper.system_identifier:
        why = f"it is of another cluster, {lower.system_identifier}"
    elif not below.id < above.id:  # ids are times; this also ends every circle
        why = "it is not older"
    elif lower.release.major != upper.release.major:
        why = f"it is of PostgreSQL {lower.release.major}"
    else:
        return
    raise StoreError(
        "CHAIN_INCONSISTENT",
        f"{above.folder} cannot add to the backup {below.id}: {why}.",
        "Somebody changed the store; use a backup of another chain.",
    )


@dataclass(frozen=True)
class Next:
    """What the next backup is to be: incremental on the last one of `chain`, or full when there is none, and why."""

    chain: tuple[PhysicalEntry, ...]
    reason: str

    @property
    def base(self) -> PhysicalEntry | None:
        return self.chain[-1] if self.chain else None


def next_backup(
    entries: Iterable[PhysicalEntry], *, system_identifier: str, major: int, longest: int, full: bool
) -> Next:
    """Decide: incremental on the newest sound chain that may still grow, else full. `full` demands a full one.

    A chain is sound when none of its backups is damaged, or FAILED its proof, and all are of this cluster and major.
    Another timeline is no reason for a full one: PostgreSQL takes an increment across it. `longest` counts the full
    one; chains that are shorter make recovery quicker and lose less with one bad backup.
    """
    if full:
        return Next((), "a full one was asked for")
    known = list(entries)
    for entry in sorted(known, key=lambda one: one.id, reverse=True):
        chain = _sound_chain(known, entry)
        if chain is None or chain[-1].require_manifest().system_identifier != system_identifier:
            continue
        if chain[-1].require_manifest().release.major != major:
            continue
        if len(chain) >= longest:
            return Next(
                (), f"the chain that ends with {entry.id} has {len(chain)} backups, at most {longest} are wanted"
            )
        return Next(chain, f"it adds to {entry.id}")
    return Next((), "there is no sound backup of this cluster to add to" if known else "it is the first one")


def _sound_chain(entries: list[PhysicalEntry], entry: PhysicalEntry) -> tuple[PhysicalEntry, ...] | None:
    if entry.damage is not None:
        return None
    try:
        chain = chain_of(entries, entry)
    except StoreError:
        return None
    return None if any(one.verdict is Verdict.FAILED for one in chain) else chain
