"""The policies of deploy/iam are enough for what each role does, and give nothing that it does not use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.catalogue.audit import AuditLog, Author, mirror
from gs_backup_assets.catalogue.catalogue import Catalogue, PhysicalCatalogue
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.catalogue.wal_positions import Position, put_position
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.wal import PAGE_BYTES
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.doctor import machine as doctor_machine
from gs_backup_assets.recovery.doctor.bucket import CHECKS, bucket_config, examine_bucket, open_bucket
from gs_backup_assets.recovery.doctor.bucket_setup import apply_rules, plan_rules
from gs_backup_assets.recovery.dumps.proving import prove_and_record
from gs_backup_assets.recovery.dumps.recording import Proved
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.offsite.offsite import copy_backup, mirror_beside, uncopied
from gs_backup_assets.recovery.offsite.offsite_check import compare_copy
from gs_backup_assets.recovery.retention.holding import hold_backup, release_backup
from gs_backup_assets.recovery.retention.pruning_store import plan_store, prune_store
from gs_backup_assets.recovery.stored.keyring import begin_encryption
from gs_backup_assets.recovery.stored.rewrapping import rewrap_backups
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes, write_sums
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.recovery.wal.offsite import mirror_wal
from gs_backup_assets.vault.keys import load_key
from gs_backup_assets.vault.opening import Vault, open_configured, open_vault
from gs_backup_assets.vault.store import Store
from gs_backup_assets_tests.catalogue.physical import made_up_base, shelve_base
from gs_backup_assets_tests.catalogue.wal import SEGMENT_BYTES, SYSTEM, log_of, put_segments, segment
from gs_backup_assets_tests.chain import execute, throwaway_beside
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.iam import (
    CREDENTIALS_OF,
    FOLDER,
    OFFSITE,
    PREFIX,
    PRIMARY,
    ROLES,
    Need,
    Record,
    RolesServer,
    fits,
    grants,
    login,
    policy,
    recording,
)
from gs_backup_assets_tests.recovery.retention.shelves import NOW, fill, id_of, keeper, shelve, taken
from gs_backup_assets_tests.s3_server import REGION, MotoServer, running

BY = Author("somebody", "test")
_BROKEN_OFF = 20 << 20


@dataclass
class Scene:
    """Two buckets on a server that enforces the policies, a key of KMS, and what each role asked for."""

    server: RolesServer
    folder: Path
    keys: list[dict[str, str]]
    admin: Vault
    records: dict[str, Record]
    proved: Proved | None = None

    def settings(self, role: str, **changes: Any) -> DatabaseSettings:
        """A role's own backup.yaml."""
        mine = login(role)
        stores = {
            "primary": self.server.config(PRIMARY, PREFIX, object_lock_days=1, **mine).model_dump(exclude_unset=True),
            "offsite": self.server.config(OFFSITE, PREFIX, **mine).model_dump(exclude_unset=True),
        }
        return DatabaseSettings.model_validate(
            {
                "name": "studio",
                "url_env": "UNUSED",
                "timezone": "UTC",
                "folder": self.folder,
                "stores": stores,
                "encryption": self.keys[0],
                "logical": {"compression": "none"},
                **changes,
            }
        )

    def vault(self, role: str) -> Vault:
        return open_vault(self.settings(role))


class BreaksOff:
    """A source that ends with an error in its third part."""

    def __init__(self, size: int = _BROKEN_OFF) -> None:
        self._bytes = BytesIO(bytes(size))
        self._left = size - 1

    def read(self, size: int, /) -> bytes:
        self._left -= size
        if self._left < 0:
            raise OSError("broken off")
        return self._bytes.read(size)


@pytest.fixture(scope="module")
def scene(server17: Cluster, moto_server: MotoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Every role does all that it is for, one after the other, as in the life of a backup."""
    kms = moto_server.client("kms")
    keys = [
        {
            "kind": "aws-kms",
            "key_id": kms.create_key()["KeyMetadata"]["Arn"],
            "region": REGION,
            "endpoint": moto_server.endpoint,
        }
        for _ in range(2)
    ]
    with running(RolesServer) as server, pytest.MonkeyPatch.context() as patch:
        for credentials in CREDENTIALS_OF.values():
            for name, value in credentials.items():
                patch.setenv(name, value)
        client = server.client()
        client.create_bucket(Bucket=PRIMARY, ObjectLockEnabledForBucket=True)
        client.create_bucket(Bucket=OFFSITE)
        config = server.config(PRIMARY, PREFIX), server.config(OFFSITE, PREFIX)
        admin = Vault(*(open_configured(one, server.folder) for one in config))
        made = Scene(server, tmp_path_factory.mktemp("roles"), keys, admin, {})
        for role, act in _ACTS.items():
            with recording() as record:
                act(made, server17)
            made.records[role] = record
        yield made


def write(scene: Scene, cluster: Cluster) -> None:
    """The daily job but for the proof: the doctor, a backup, its checks, its copy, and work that breaks off."""
    settings = scene.settings("writer")
    vault = scene.vault("writer")
    primary, offsite = vault.primary, vault.store("offsite")
    for which in ("primary", "offsite"):
        assert doctor_machine.store(settings, which, None).details == ()
        assert all(d.status is not Status.FAILED for d in examine_bucket(settings, which))
    with fresh_database(cluster) as source:
        execute(
            source,
            "CREATE TABLE large (id int PRIMARY KEY, t text)",
            "INSERT INTO large SELECT n, repeat(md5(n::text), 300) FROM generate_series(1, 2000) AS n",
        )
        today = DAY.of(datetime.now(timezone.utc), settings.zone)
        manifest = take_backup(settings, source, primary, today, Progress())
    catalogue = Catalogue(primary, settings.name)
    entry = catalogue.find("latest")
    assert write_sums(primary, entry)
    with Progress().stage("check") as stage:
        assert check_stored_bytes(primary, entry, stage).status is Status.PASSED
    large = max(manifest.files, key=lambda file: file.stored.size)
    assert large.stored.size > 2 * (8 << 20), "it is copied in parts"
    with pytest.raises(OSError, match="broken off"):
        primary.put(BreaksOff(), f"{manifest.folder}/dump/never.dat", size=_BROKEN_OFF)
    with pytest.raises(OSError, match="broken off"):
        offsite.put(BreaksOff(), f"{manifest.folder}/{large.stored_path}", size=large.stored.size, resume=True)
    assert [summary.id for summary in uncopied(primary, offsite, settings.name)] == [entry.id]
    copy_backup(primary, offsite, entry, Progress())
    with Progress().stage("compare") as stage:
        for read_back in (False, True):
            assert compare_copy(primary, offsite, entry, stage, read_back=read_back).status is Status.PASSED
    base = made_up_base(datetime.now(timezone.utc), database=settings.name)
    assert settings.encryption is not None
    _, record = begin_encryption(primary, load_key(settings.encryption, settings.folder), base)
    shelve_base(primary, base.model_copy(update={"encryption": record}), Verdict.NOT_VERIFIED)
    copy_backup(primary, offsite, PhysicalCatalogue(primary, settings.name).find(base.id), Progress())
    _write_log(settings, primary, offsite)
    AuditLog(primary, settings.name).append(BY, "copy", {"backup": entry.id}, "passed")
    assert mirror(primary, offsite, settings.name) == 1
    mirror_beside(primary, offsite, settings.name)


def _write_log(settings: DatabaseSettings, primary: Store, offsite: Store) -> None:
    """Parts of segments and positions come and go, whole segments stay; all of it off-site as well."""
    log = open_archive(settings, primary, SYSTEM, writing=True, segment_bytes=SEGMENT_BYTES)
    log.put(segment(3), log_of(segment(3)))
    for pages in (1, 2):
        log.put_partial(segment(4), log_of(segment(4), written=pages * PAGE_BYTES))
        for number in range(4):
            at = datetime.now(timezone.utc) + timedelta(seconds=10 * pages + number)
            position = Position(
                system_identifier=SYSTEM, timeline=1, at=at, server_lsn="0/400000", archived_lsn="0/400000"
            )
            put_position(primary, settings.name, position)
        assert mirror_wal(primary, offsite, settings.name, Progress()).findings == ()
    log.put(segment(4), log_of(segment(4)))
    log.drop_partials(segment(4))
    assert mirror_wal(primary, offsite, settings.name, Progress()).removed == 1


def prove(scene: Scene, cluster: Cluster) -> None:
    """A proof in another place, by somebody who can only read."""
    settings = scene.settings("prover")
    vault = scene.vault("prover")
    entry = Catalogue(vault.store("offsite"), settings.name).find("latest")
    with throwaway_beside(cluster) as server:
        scene.proved = prove_and_record(settings, vault, entry, Progress(), by=BY, server=server)


def prune(scene: Scene, cluster: Cluster) -> None:
    """Retention, holds, and what others left unfinished."""
    settings = scene.settings("pruner", name="shop")
    vault = open_vault(settings)
    for place, store in scene.admin.named().items():
        fill(store, (0, 1, 2, 3))
        raced = shelve(store, 4)
        bases = [shelve_base(store, made_up_base(taken(age), start=start)) for age, start in ((5, 10), (4.5, 20))]
        for age, start in ((1.2, 28), (0.1, 30)):
            shelve_base(store, made_up_base(taken(age), start=start))
        put_segments(store, (5, 10, 30))
        store.put_bytes(b"x", f"shop/logical/2026-01-01/20260101T000000Z/dump/{place}.dat")
        store.put_bytes(b"x", f"shop/physical/2025-12-28/20260101T000000Z/base/{place}.tar")
        for name in (
            "logical/2026-01-01/20260101T000000Z/dump/large.dat",
            "physical/2025-12-28/20260101T000000Z/base/base.tar",
            f"wal/{SYSTEM}/00000001/{segment(9).name}.zst",
        ):
            with pytest.raises(OSError, match="broken off"):
                store.put(BreaksOff(), f"shop/{name}", size=_BROKEN_OFF, resume=True)
    for backup in (id_of(2), bases[1].id):
        hold_backup(vault, "shop", backup, by=BY, reason="an inquiry", now=NOW)
        release_backup(vault, "shop", backup, by=BY)

    def hold_meanwhile(**_: Any) -> None:
        """Somebody holds a backup at the moment at which its manifest has gone."""
        for store in scene.admin.named().values():
            for folder in (raced.folder, bases[0].folder):
                if not store.exists(f"{folder}/manifest.json") and not store.exists(f"{folder}/hold.json"):
                    store.put_bytes(b"held", f"{folder}/hold.json", locked=False)

    for store in vault.named().values():
        events = store.client.meta.events  # type: ignore[attr-defined]
        events.register("after-call.s3.DeleteObject", hold_meanwhile)
        later = NOW + timedelta(hours=48)
        made = plan_store(store, keeper(settings, store).settings, later)
        done = prune_store(store, made, by=BY, progress=Progress(), now=later)
        assert id_of(3) in done.dumps.deleted and id_of(4) in done.dumps.left and len(done.dumps.swept) == 1
        assert (done.base_backups.deleted, done.base_backups.left) == ((bases[1].id,), (bases[0].id,))
        assert len(done.base_backups.swept) == 1
        assert (done.wal.segments, done.wal.left) == (1, 1), "the one that was held meanwhile keeps its log"


def rewrap(scene: Scene, cluster: Cluster) -> None:
    """A new key for old backups."""
    new, old = reversed(scene.keys)
    settings = scene.settings("rewrapper", encryption={**new, "previous": [old]})
    results = rewrap_backups(settings, open_vault(settings).named(), Progress(), by=BY)
    for result in results.values():
        assert len(result.moved) == 3 and result.failed == {}  # a dump, a base backup, a timeline


def put_bucket_rules(scene: Scene, cluster: Cluster) -> None:
    settings = scene.settings("bucket-rules")
    config, bucket = bucket_config(settings, "primary"), open_bucket(settings, "primary")
    assert config is not None
    apply_rules(bucket, plan_rules(bucket, config))


_ACTS = {"writer": write, "prover": prove, "pruner": prune, "rewrapper": rewrap, "bucket-rules": put_bucket_rules}


def needed(scene: Scene, role: str) -> set[Need]:
    """The rights that a role's requests needed. To be told of locks is needed only by the one who deletes."""
    locks = {"s3:GetObjectRetention", "s3:GetObjectLegalHold"}
    return {need for need in scene.records[role].asked if role == "pruner" or need.action not in locks}


def granted(scene: Scene, role: str) -> list[tuple[str, str, str | None]]:
    """What a role's policies give, for both buckets and both keys."""
    documents = [policy(role, bucket, key["key_id"]) for bucket in (PRIMARY, OFFSITE) for key in scene.keys]
    return [grant for document in documents for grant in grants(document)]


def test_every_role_has_a_policy_and_every_policy_a_role() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(ROLES) == set(_ACTS)


@pytest.mark.parametrize("role", ROLES)
def test_a_policy_gives_all_that_its_role_asks_for(scene: Scene, role: str) -> None:
    """The server enforces it; this also holds for what SeaweedFS leaves unchecked."""
    rights = granted(scene, role)
    lacking = {need for need in needed(scene, role) if not any(fits(right, need) for right in rights)}
    refused = {need.action for need in scene.records[role].refused}
    if role == "prover":  # proofs and the audit log: it goes on without
        assert {need.action for need in lacking} == refused == {"s3:PutObject", "s3:PutObjectRetention"}
    else:
        assert lacking == set()
        # SeaweedFS wants s3:GetBucketPolicy for this one; Amazon does not.
        assert refused <= {"s3:GetBucketPolicyStatus"}


@pytest.mark.parametrize("role", ROLES)
def test_a_policy_gives_nothing_that_its_role_does_not_use(scene: Scene, role: str) -> None:
    """Each right of each policy file is used, in one of the two buckets and with one of the two keys."""
    needs = needed(scene, role)
    unused = set()
    for right in grants(policy(role, "*", "*")):
        if not any(fits(right, need) for need in needs):
            unused.add(right)
    assert unused == set()


def test_a_prover_that_only_reads_proves_and_says_that_nobody_keeps_it(scene: Scene) -> None:
    assert scene.proved is not None
    assert scene.proved.record.verdict is Verdict.PROVEN and scene.proved.report_path.is_file()
    assert [refusal.code for refusal in scene.proved.not_kept] == ["STORE_ACCESS_DENIED"] * 2
    assert scene.proved.not_logged is not None


def refused(role: str, scene: Scene, *, delete: str | None = None, put: str | None = None) -> bool:
    store = scene.vault(role).store("offsite")
    try:
        if delete is not None:
            store.delete(delete)
        if put is not None:
            store.put_bytes(b"other", put)
    except StoreError as error:
        return error.code == "STORE_ACCESS_DENIED"
    return False


@pytest.mark.parametrize("role", ["writer", "prover", "bucket-rules"])
def test_who_does_not_prune_cannot_delete_a_backup(scene: Scene, role: str) -> None:
    entry = Catalogue(scene.admin.store("offsite"), "studio").find("latest")
    assert refused(role, scene, delete=f"{entry.folder}/manifest.json")
    assert refused(role, scene, delete=f"{entry.folder}/dump/toc.dat.enc")
    assert refused(role, scene, delete="studio/audit-copy/00000/00000001.json")
    base = PhysicalCatalogue(scene.admin.store("offsite"), "studio").find("latest")
    assert refused(role, scene, delete=f"{base.folder}/manifest.json")
    assert refused(role, scene, delete=f"studio/wal/{SYSTEM}/00000001/{segment(3).name}.zst.enc")
    assert refused(role, scene, delete=f"studio/wal/{SYSTEM}/00000001/keys/0.enc")


def test_who_writes_can_replace_parts_of_segments_and_positions_only(scene: Scene) -> None:
    for path in (f"00000001/partial/{segment(5).name}.00002000.zst.enc", "positions/20261124T000000000000Z.json"):
        assert not refused("writer", scene, delete=f"studio/wal/{SYSTEM}/{path}")
        assert refused("prover", scene, delete=f"studio/wal/{SYSTEM}/{path}")


def test_who_prunes_cannot_edit_backups_or_the_log(scene: Scene) -> None:
    assert refused("pruner", scene, delete="shop/audit/00000/00000001.json")
    assert refused("pruner", scene, put=f"shop/logical/2026-11-22/{id_of(0)}/dump/new.dat")
    for path in ("points/before.json", "positions/1.json", f"00000001/{segment(99).name}.zst"):
        assert refused("pruner", scene, put=f"shop/wal/{SYSTEM}/{path}")
    assert refused("rewrapper", scene, delete=f"shop/logical/2026-11-22/{id_of(0)}/manifest.json")


def test_a_prefix_is_a_border(scene: Scene) -> None:
    """Another team's backups in the same bucket."""
    scene.server.store(OFFSITE, prefix="theirs").put_bytes(b"x", "shop/x")
    for role in ROLES:
        store = scene.server.store(OFFSITE, prefix="theirs", **login(role))
        for attempt in (lambda: list(store.objects("shop")), lambda: store.open("shop/x")):  # noqa: B023
            with pytest.raises(StoreError) as caught:
                attempt()
            assert caught.value.code == "STORE_ACCESS_DENIED"
        assert refused_elsewhere(store)


def refused_elsewhere(store: Any) -> bool:
    try:
        store.put_bytes(b"y", "shop/y")
    except StoreError as error:
        return error.code == "STORE_ACCESS_DENIED"
    return False


def test_who_may_not_ask_gets_no_pass(scene: Scene) -> None:
    """The prover's doctor: each question to the bucket stays open, with the permission that it needs."""
    found = {d.name.removeprefix("offsite_"): d for d in examine_bucket(scene.settings("prover"), "offsite")}
    assert {name for name, d in found.items() if d.status is Status.NOT_VERIFIED} == set(CHECKS) - {"bucket"}
    for name in set(CHECKS) - {"bucket", "public_access"}:
        assert "PERMISSION_MISSING" in found[name].summary and "Allow s3:" in found[name].hint


def test_placeholders_are_all_that_is_to_be_filled_in() -> None:
    for role in ROLES:
        text = json.dumps(policy(role, "backups"))
        assert not any(word in text for word in ("BUCKET", "PREFIX", "KMS_KEY_ARN")), role
        assert os.environ.get("AWS_ACCESS_KEY_ID", "none") not in text
