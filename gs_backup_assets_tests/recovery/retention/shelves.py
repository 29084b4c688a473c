"""Stores full of made-up backups, whole to the last file, for tests of retention."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import Manifest, StoredFile, backup_id
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.retention.pruning import Pruned, PrunePlan, apply, make_plan
from gs_backup_assets.vault.store import Store, keys
from gs_backup_assets_tests.catalogue.audit_logs import BY
from gs_backup_assets_tests.catalogue.manifests import made_up, proof_of, put

# The real time: locks and sweeping compare with the clocks of servers and file systems.
NOW = datetime.now(timezone.utc).replace(microsecond=0)
FILES = {"dump/toc.dat": b"abc", "dump/1.dat": b"a table", "globals.sql": b"roles"}


def taken(age: float) -> datetime:
    """The moment `age` days ago."""
    return NOW - timedelta(days=age)


def id_of(age: float) -> str:
    """The id of a backup that was taken `age` days ago."""
    return backup_id(taken(age))


def shelve(store: Store, age: float, verdict: Verdict = Verdict.PROVEN, *, database: str = "shop") -> Manifest:
    """Put a backup of `age` days into a store, with all its files; with a proof unless it was never verified."""
    files = tuple(
        StoredFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for path, data in FILES.items()
    )
    manifest = made_up(taken(age), database=database).model_copy(update={"files": files})
    for path, data in FILES.items():
        store.put_bytes(data, f"{manifest.folder}/{path}")
    digest = put(store, manifest)
    if verdict is not Verdict.NOT_VERIFIED:
        Catalogue(store, database).add_proof(proof_of(manifest, digest, verdict, taken(age)), b"report")
    return manifest


def fill(store: Store, ages: Iterable[float], *, database: str = "shop") -> None:
    """Proven backups of so many days."""
    for age in ages:
        shelve(store, age, database=database)


def finished(store: Store) -> set[str]:
    """Ids of the backups that are there. Each is whole, or the test has failed."""
    entries = Catalogue(store, "shop").entries()
    for entry in entries:
        there = set(keys(store, entry.folder))
        missing = [f.path for f in entry.require_manifest().files if f"{entry.folder}/{f.stored_path}" not in there]
        assert not missing, (entry.id, missing)
    return {entry.id for entry in entries}


@dataclass(frozen=True)
class Keeper:
    """Carries retention out in one store, as the verb and the asset do."""

    settings: DatabaseSettings
    store: Store

    def plan(self, now: datetime = NOW) -> PrunePlan:
        return make_plan(self.store, self.settings, now)

    def apply(self, plan: PrunePlan | None = None, now: datetime = NOW) -> Pruned:
        return apply(self.store, plan or self.plan(now), by=BY, progress=Progress(), now=now)

    def going(self) -> list[str]:
        return [candidate.id for candidate in self.plan().going]

    def reason(self, age: float) -> str:
        """Why the backup of `age` days stays or goes."""
        wanted = id_of(age)
        return "; ".join(next(d.reasons for d in self.plan().decisions if d.candidate.id == wanted))


def keeper(settings: DatabaseSettings, store: Store, **policy: Any) -> Keeper:
    """Retention with a policy in a store: two days unless told otherwise."""
    wanted = {"daily": 2, "weekly": 0, "monthly": 0, **policy}
    return Keeper(DatabaseSettings.model_validate({**settings.model_dump(), "retention": wanted}), store)
