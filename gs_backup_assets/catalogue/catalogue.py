"""The catalogue: which backups a store holds, found by reading the store and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Generic, Protocol, TypeVar

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue import proof as proofs
from gs_backup_assets.catalogue.freshness import dated_by
from gs_backup_assets.catalogue.manifest import (
    BULK,
    HOLD,
    KINDS,
    PROOFS,
    UNKNOWN_VERSION,
    BackupManifest,
    Kind,
    M,
    Manifest,
    backup_folder,
    parse_id,
)
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.proof import ProofRecord
from gs_backup_assets.catalogue.summary import Summaries, Summary, remembered
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.errors import ConfigError, StoreError
from gs_backup_assets.system.threads import Threads
from gs_backup_assets.vault.store import Listed, Store

UNFINISHED_AFTER = timedelta(hours=24)
_READERS = 8  # manifests read side by side, for stores that are far away
M_co = TypeVar("M_co", bound=BackupManifest, covariant=True)
_CLOCKS_DIFFER = timedelta(hours=1)  # more than clocks that are set may be apart


@dataclass(frozen=True)
class BackupEntry(Generic[M_co]):
    """A finished backup in the store. `damage` says why its manifest cannot be read; then `manifest` is None."""

    database: str
    partition: str
    id: str
    manifest: M_co | None
    manifest_sha256: str
    damage: StoreError | None
    proof: ProofRecord | None
    held: bool = False
    kind: Kind = "logical"

    @property
    def folder(self) -> str:
        return backup_folder(self.database, self.partition, self.id, self.kind)

    @property
    def taken_at(self) -> datetime:
        """When the backup was started, read from its id; aware, in UTC."""
        return parse_id(self.id)

    @property
    def verdict(self) -> Verdict:
        """The newest proof's verdict; NOT_VERIFIED without one; FAILED for a damaged manifest, not for a newer one."""
        if self.damage is not None:
            return Verdict.NOT_VERIFIED if self.damage.code == UNKNOWN_VERSION else Verdict.FAILED
        return Verdict.NOT_VERIFIED if self.proof is None else self.proof.verdict

    def require_manifest(self) -> M_co:
        """The manifest; StoreError (`MANIFEST_DAMAGED` and its like) when it cannot be read."""
        if self.manifest is None:
            raise self.require_damage()
        return self.manifest

    def require_damage(self) -> StoreError:
        """Why the manifest cannot be read."""
        assert self.damage is not None
        return self.damage


Entry = BackupEntry[Manifest]
PhysicalEntry = BackupEntry[PhysicalManifest]
AnyEntry = BackupEntry[BackupManifest]


def proof_id(record: ProofRecord) -> str:
    """What a proof's objects are called: the moment at which it ended."""
    return f"{record.finished_at:%Y%m%dT%H%M%S%fZ}"


def _is_id(name: str) -> bool:
    """Whether a folder's name is a backup id, and names a moment that there is."""
    try:
        parse_id(name)
    except ValueError:
        return False
    return True


def _is_day(partition: str) -> bool:
    try:
        return date.fromisoformat(partition).isoformat() == partition
    except ValueError:
        return False


class _Dated(Protocol):
    @property
    def taken_at(self) -> datetime: ...


D = TypeVar("D", bound=_Dated)


def _newest(some: Sequence[D]) -> D | None:
    """The first of what comes newest first, but for what is dated after now, unless all of it is."""
    now = datetime.now(timezone.utc)
    return next((one for one in some if dated_by(one.taken_at, now)), next(iter(some), None))


@dataclass(frozen=True)
class _Found:
    """A folder with a backup's id, and what lies in it: name below the folder -> object."""

    partition: str
    id: str
    objects: Mapping[str, Listed]

    @property
    def finished(self) -> bool:
        return manifests.NAME in self.objects

    @property
    def name(self) -> str:
        """A copy in another folder has the same id."""
        return f"{self.partition}/{self.id}"

    @property
    def order(self) -> tuple[str, bool, str]:
        """Sorts by age. What was copied to a folder that is named after no day comes before the original."""
        return self.id, _is_day(self.partition), self.partition

    @property
    def taken_at(self) -> datetime:
        return parse_id(self.id)

    @property
    def held(self) -> bool:
        return HOLD in self.objects

    @property
    def proofs(self) -> list[str]:
        """Names of the proof records, newest first."""
        return sorted((n for n in self.objects if n.startswith(f"{PROOFS}/") and n.endswith(".json")), reverse=True)

    @property
    def tag(self) -> str:
        """Differs when the manifest or a proof is another than before."""
        return "\n".join(f"{name} {self.objects[name].tag}" for name in (manifests.NAME, *self.proofs))


class BackupCatalogue(Generic[M]):
    """Reads one database's backups of one kind from a store: the store is the truth.

    What was read of a manifest and its proofs is remembered for as long as they are the same objects, so that to look
    at thousands of backups is to list their names.
    """

    kind: Kind
    model: type[M]

    def __init__(self, store: Store, database: str) -> None:
        self.store = store
        self.database = database

    def entries(self) -> list[BackupEntry[M]]:
        """Every finished backup, newest first. Attempts without a manifest are not backups."""
        with Threads(_READERS, "catalogue") as pool:
            return list(pool.map(self._load, self._finished()))

    def summaries(self, listing: Iterable[Listed] | None = None) -> list[Summary]:
        """What every finished backup comes to, newest first; far quicker than `entries`.

        `listing` holds the objects of the database where the caller has listed them already.
        """
        finished = self._finished(listing=listing)
        with remembered(self.store.describe(), f"{self.database}/{self.kind}") as memory:
            fresh = [found for found in finished if memory.recall(found.name, found.tag) is None]
            with Threads(_READERS, "catalogue") as pool:
                for found, entry in zip(fresh, pool.map(self._load, fresh), strict=True):
                    memory.keep(found.name, found.tag, _summary(entry))
            memory.forget_but({found.name for found in finished})
            return [self._recalled(memory, found) for found in finished]

    def latest(self, partition: str | None = None) -> BackupEntry[M] | None:
        """The newest finished backup (of one partition), or None; reads no other manifest."""
        newest = next(iter(self._finished(partition)), None)
        return None if newest is None else self._load(newest)

    def entry(self, partition: str, backup_id: str) -> BackupEntry[M] | None:
        """One backup, read anew from its folder; None when it is not there."""
        found = next((one for one in self._finished(partition) if one.id == backup_id), None)
        return None if found is None else self._load(found)

    def find(self, wanted: str) -> BackupEntry[M]:
        """A backup by id, by partition (its newest), or `latest`. ConfigError (`BACKUP_NOT_FOUND`).

        What is dated after now is the latest only where there is nothing else: a clock was ahead when it was taken, and
        it would hide for so long all that came after it.
        """
        finished = self._finished()
        named = [one for one in finished if wanted in (one.id, one.partition)]
        found = _newest(finished) if wanted == "latest" else next(iter(named), None)
        if found is not None:
            return self._load(found)
        raise ConfigError(
            "BACKUP_NOT_FOUND",
            f"{self.store.describe()} has no backup {wanted!r} of {self.database}.",
            "`gs-backup list` shows the backups that are there; --from primary or --from offsite chooses the store.",
        )

    def last_proven(self) -> BackupEntry[M] | None:
        """The newest backup that is PROVEN; of what is dated after now as for `find`."""
        proven = _newest([summary for summary in self.summaries() if summary.verdict is Verdict.PROVEN])
        return None if proven is None else self.find(proven.id)

    def add_proof(self, record: ProofRecord, report_html: bytes) -> str:
        """Store a proof and its report beside the manifest; returns the report's key. The record is written last."""
        folder = backup_folder(record.database, record.partition, record.backup_id, self.kind)
        stem = f"{folder}/{PROOFS}/{proof_id(record)}"
        self.store.put_bytes(report_html, f"{stem}.html")
        self.store.put_bytes(proofs.encode(record), f"{stem}.json")
        return f"{stem}.html"

    def sweep(self, now: datetime) -> list[str]:
        """Remove attempts that never got a manifest, 24 hours after their last sign of life; returns their folders.

        A copy of an old backup is an attempt as well while it is under way: what counts is when it was written to. One
        that is held is none: somebody wants it kept, and its manifest was lost.
        """
        swept = []
        for found in self._survey(None, skip=()):
            written = max((listed.modified for listed in found.objects.values()), default=parse_id(found.id))
            if not found.finished and not found.held and now - max(parse_id(found.id), written) > UNFINISHED_AFTER:
                folder = backup_folder(self.database, found.partition, found.id, self.kind)
                self.store.delete_tree(folder)
                swept.append(folder)
        self.store.sweep_uploads(self.database, now - UNFINISHED_AFTER)
        return swept

    def _finished(self, partition: str | None = None, listing: Iterable[Listed] | None = None) -> list[_Found]:
        """Finished backups, newest first."""
        found = [one for one in self._survey(partition, skip=BULK, listing=listing) if one.finished]
        return sorted(found, key=lambda one: one.order, reverse=True)

    def _survey(
        self, partition: str | None, *, skip: tuple[str, ...], listing: Iterable[Listed] | None = None
    ) -> Iterator[_Found]:
        """Every folder that has a backup's id, from one listing."""
        top = f"{self.database}/{self.kind}"
        prefix = f"{top}/{partition}" if partition else top
        folders: dict[tuple[str, str], dict[str, Listed]] = {}
        for listed in self.store.objects(prefix, skip=skip) if listing is None else listing:
            parts = listed.key.removeprefix(f"{top}/").split("/", 2)
            if len(parts) == 3:
                folders.setdefault((parts[0], parts[1]), {})[parts[2]] = listed
        return (_Found(day, name, objects) for (day, name), objects in folders.items() if _is_id(name))

    def _recalled(self, memory: Summaries, found: _Found) -> Summary:
        summary = memory.recall(found.name, found.tag)
        assert summary is not None
        return summary.held_as(found.held)

    def _load(self, found: _Found) -> BackupEntry[M]:
        folder = backup_folder(self.database, found.partition, found.id, self.kind)
        with self.store.open(f"{folder}/{manifests.NAME}") as stream:
            data = stream.read()
        digest = hashlib.sha256(data).hexdigest()
        try:
            manifest, damage = manifests.decode_as(self.model, data, folder=folder), None
        except StoreError as error:
            manifest, damage = None, error
        proof = self._decisive_proof(folder, found, digest)
        return BackupEntry(
            self.database, found.partition, found.id, manifest, digest, damage, proof, found.held, self.kind
        )

    def _decisive_proof(self, folder: str, found: _Found, manifest_sha256: str) -> ProofRecord | None:
        """The newest proof of exactly this manifest, but a failure of one copy until the same copy passes again.

        A proof of the other copy says nothing of the one that failed. A newest proof that cannot be read leaves the
        backup open: it may have been a failure. One that was finished after it was stored comes from a clock that is
        ahead, and proves nothing.
        """
        newest: dict[str, ProofRecord] = {}
        for name in found.proofs:
            with self.store.open(f"{folder}/{name}") as stream:
                try:
                    record = proofs.decode(stream.read(), key=name)
                except StoreError:
                    if not newest:
                        return None
                    continue
            skewed = record.finished_at > found.objects[name].modified + _CLOCKS_DIFFER
            if record.manifest_sha256 == manifest_sha256 and not (skewed and record.verdict is Verdict.PROVEN):
                newest.setdefault(record.store, record)
        failed = [record for record in newest.values() if record.verdict is Verdict.FAILED]
        return next(iter(failed or newest.values()), None)


class Catalogue(BackupCatalogue[Manifest]):
    """The logical backups of a database."""

    kind = "logical"
    model = Manifest


class PhysicalCatalogue(BackupCatalogue[PhysicalManifest]):
    """The base backups of a database's cluster, full and incremental."""

    kind = "physical"
    model = PhysicalManifest


def catalogue_of(store: Store, database: str, kind: Kind) -> Catalogue | PhysicalCatalogue:
    """The backups of one kind."""
    return Catalogue(store, database) if kind == "logical" else PhysicalCatalogue(store, database)


def all_summaries(store: Store, database: str) -> list[Summary]:
    """What every finished backup of every kind comes to, newest first."""
    found = [s for kind in KINDS for s in catalogue_of(store, database, kind).summaries()]
    return sorted(found, key=lambda summary: summary.id, reverse=True)


def find_any(store: Store, database: str, wanted: str) -> Entry | PhysicalEntry:
    """A backup of any kind by id, by partition, or `latest`: a dump, where there is one. Errors as for `find`."""
    try:
        return Catalogue(store, database).find(wanted)
    except ConfigError as missing:
        try:
            return PhysicalCatalogue(store, database).find(wanted)
        except ConfigError:
            raise missing from None


def _summary(entry: BackupEntry[M]) -> Summary:
    manifest, proof = entry.manifest, entry.proof
    return Summary(
        database=entry.database,
        partition=entry.partition,
        id=entry.id,
        manifest_sha256=entry.manifest_sha256,
        damage=entry.damage.code if entry.damage else None,
        stored_bytes=manifest.stored_bytes if manifest else None,
        source_bytes=manifest.source_bytes if manifest else None,
        kind=entry.kind,
        base=manifest.needs if manifest else None,
        key_id=manifest.encryption.key_id if manifest and manifest.encryption else None,
        verdict=entry.verdict,
        proved_at=proof.finished_at if proof else None,
        rto_seconds=proof.rto_seconds if proof else None,
        broken_rules=tuple(rule.id for rule in proof.broken_rules) if proof else (),
    )
