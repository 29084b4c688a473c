"""Made-up base backups, whole to the last file, for tests of the vault."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue
from gs_backup_assets.catalogue.manifest import ServerRecord, StoredFile, backup_id
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.proof import Blame, ProofRecord
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict
from gs_backup_assets.vault.store import Store
from gs_backup_assets_tests.catalogue.wal import SEGMENT_BYTES, SYSTEM, segment

FILES = {"base/base.tar.zst": b"a cluster", "base/pg_wal.tar.zst": b"its log", "base/backup_manifest": b"{}"}


def sunday_of(moment: datetime) -> str:
    """The week's partition."""
    return (moment.date() - timedelta(days=moment.isoweekday() % 7)).isoformat()


def made_up_base(
    taken: datetime,
    *,
    start: int = 10,
    timeline: int = 1,
    base: str | None = None,
    system: str = SYSTEM,
    database: str = "shop",
) -> PhysicalManifest:
    """A base backup whose log begins in the middle of the segment with the number `start`."""
    files = tuple(
        StoredFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for path, data in FILES.items()
    )
    first = segment(start, timeline)
    return PhysicalManifest(
        id=backup_id(taken),
        database=database,
        partition=sunday_of(taken),
        timezone="UTC",
        software="0",
        finished_at=taken + timedelta(seconds=9),
        server=ServerRecord(release="17.10", system_identifier=system, in_recovery=False, lsn=str(first.end)),
        files=files,
        warnings=(),
        stage_seconds={"base backup": 1.5, "store": 0.25},
        system_identifier=system,
        timeline=timeline,
        start_lsn=f"{first.start.value >> 32:X}/{(first.start.value & 0xFFFFFFFF) + 40:X}",
        stop_lsn=str(first.end),
        started_at=taken,
        consistent_at=taken + timedelta(seconds=5),
        base=base,
        programs="17.10",
        compression="zstd:1",
        cluster_bytes=1000,
        unpacked_bytes=1000,
        wal_segment_bytes=SEGMENT_BYTES,
        data_checksums=True,
    )


def shelve_base(store: Store, manifest: PhysicalManifest, verdict: Verdict = Verdict.PROVEN) -> PhysicalManifest:
    """Put a base backup into a store, with all its files; with a proof unless it was never verified."""
    for path, data in FILES.items():
        store.put_bytes(data, f"{manifest.folder}/{path}")
    data = manifests.encode(manifest)
    store.put_bytes(data, f"{manifest.folder}/{manifests.NAME}")
    if verdict is not Verdict.NOT_VERIFIED:
        proof = _proof(manifest, hashlib.sha256(data).hexdigest(), verdict)
        PhysicalCatalogue(store, manifest.database).add_proof(proof, b"report")
    return manifest


def _proof(manifest: PhysicalManifest, digest: str, verdict: Verdict) -> ProofRecord:
    status = Status.PASSED if verdict is Verdict.PROVEN else Status.FAILED
    return ProofRecord(
        backup_id=manifest.id,
        database=manifest.database,
        partition=manifest.partition,
        manifest_sha256=digest,
        started_at=manifest.started_at,
        finished_at=manifest.finished_at,
        software="0",
        programs="17.10",
        server="throwaway",
        verdict=verdict,
        checks=(CheckResult(name="recovers", status=status, summary=""),),
        rules=(),
        foreign_keys=(),
        tables=(),
        blame=Blame.UNKNOWN,
        stage_seconds={},
        rto_seconds=None,
        rto_target_seconds=None,
    )
