"""Made-up manifests, proofs and stores for tests of the catalogue."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.manifest import DumpRecord, Manifest, ServerRecord, StoredFile, backup_id, parse_id
from gs_backup_assets.catalogue.proof import Blame, ProofRecord
from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict
from gs_backup_assets.postgres.database import DatabaseFacts, Extension
from gs_backup_assets.postgres.fingerprint import Fingerprint, Level, SequencePrint, SequenceState, TablePrint
from gs_backup_assets.postgres.inventory import Omission
from gs_backup_assets.postgres.schema import SchemaObject
from gs_backup_assets.postgres.settings import SettingPrint
from gs_backup_assets.vault.local import LocalStore

NOW = datetime(2026, 11, 22, 8, 0, 3, tzinfo=timezone.utc)


def made_up(
    taken: datetime = NOW, *, database: str = "shop", partition: str | None = None, text: str = "Ä"
) -> Manifest:
    """A manifest with something of everything in it."""
    state = SequenceState(last_value=7, is_called=True)
    return Manifest(
        id=backup_id(taken),
        database=database,
        partition=partition or taken.date().isoformat(),
        timezone="UTC",
        software="0",
        snapshot_at=taken,
        finished_at=taken + timedelta(seconds=9),
        server=ServerRecord(release="17.10", system_identifier="73", in_recovery=False, lsn="0/1"),
        source=DatabaseFacts(
            name=text,
            encoding="UTF8",
            collate="C",
            ctype="C",
            provider="c",
            locale=None,
            collation_version=None,
            total_bytes=10,
            bootstrap_role="postgres",
            extensions=(Extension(name="pg_trgm", version="1.6"),),
            settings=(SettingPrint(role="", name="work_mem", sha256="12" * 32),),
        ),
        dump=DumpRecord(programs="17.10", compression="zstd:1", jobs=2, role_passwords=True),
        files=(StoredFile(path="dump/toc.dat", size=3, sha256="ab" * 32),),
        fingerprint=Fingerprint(
            level=Level.FULL,
            tables=(TablePrint(table_schema="public", name=text, rows=2, content="-5", total_bytes=8),),
            sequences=(SequencePrint(sequence_schema="public", name="s", increment=1, before=state, after=state),),
        ),
        schema_objects=(SchemaObject(type="TABLE", object_schema="public", name=text, owner="o", sha256="cd" * 32),),
        omissions=(Omission(kind="foreign_table", name=text, reason="elsewhere", loses_data=False),),
        warnings=("one",),
        stage_seconds={"dump": 1.5, "store": 0.25},
    )


def put(store: LocalStore, manifest: Manifest) -> str:
    """Store a manifest where it belongs; returns its digest."""
    data = manifests.encode(manifest)
    store.put_bytes(data, f"{manifest.folder}/{manifests.NAME}")
    return hashlib.sha256(data).hexdigest()


def proof_of(manifest: Manifest, digest: str, verdict: Verdict, at: datetime) -> ProofRecord:
    """A proof of exactly this manifest."""
    status = {Verdict.PROVEN: Status.PASSED, Verdict.FAILED: Status.FAILED}.get(verdict, Status.NOT_VERIFIED)
    return ProofRecord(
        backup_id=manifest.id,
        database=manifest.database,
        partition=manifest.partition,
        manifest_sha256=digest,
        started_at=parse_id(manifest.id),
        finished_at=at,
        software="0",
        programs="17.10",
        server="throwaway",
        verdict=verdict,
        checks=(CheckResult(name="rows_equal", status=status, summary=""),),
        rules=(),
        foreign_keys=(),
        tables=(),
        blame=Blame.UNKNOWN,
        stage_seconds={},
        rto_seconds=None,
        rto_target_seconds=None,
    )
