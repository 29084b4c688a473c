"""Real base backups and log through the vault: off-site, proved, pruned, rewrapped, and recovered from the copy."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.catalogue.audit_check import check_audit
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry, catalogue_of
from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.postgres.wal import Lsn, Segment
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.copying import copy_and_compare, copy_log
from gs_backup_assets.recovery.offsite.offsite import mirror_beside, mirror_log, uncopied
from gs_backup_assets.recovery.point_in_time.prove_base import prove_base
from gs_backup_assets.recovery.point_in_time.recover import recovered
from gs_backup_assets.recovery.point_in_time.recover_plan import plan_recovery
from gs_backup_assets.recovery.retention.pruning_store import plan_store, prune_store
from gs_backup_assets.recovery.stored.rewrapping import rewrap_backups
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets_tests.archived import Site, configuration, site
from gs_backup_assets_tests.processes import wait_until

BY = Author("tester", "test")
OLD = {"kind": "raw-aes-256", "key_env": "TEST_OLD_KEY"}
NEW = {"kind": "raw-aes-256", "key_env": "TEST_NEW_KEY"}


def bring_off_site(place: Site) -> None:
    """As the verb `copy` and the daily copy do it."""
    primary, offsite = place.vault.primary, place.vault.store("offsite")
    for summary in reversed(uncopied(primary, offsite, "studio")):
        entry = catalogue_of(primary, "studio", summary.kind).find(summary.id)
        _, compared = copy_and_compare(place.vault, entry, Progress(), by=BY, told=pytest.fail)
        assert compared.status is Status.PASSED, compared
    assert copy_log(place.vault, "studio", Progress(), by=BY, told=pytest.fail, read_back=True).findings == ()
    mirror_beside(primary, offsite, "studio")
    assert mirror_log(primary, offsite, "studio", by=BY).status is Status.PASSED


def values(place: Site, settings: DatabaseSettings, target: str) -> list[int]:
    """What a recovery from the off-site copy brings back."""
    wanted = RecoveryTarget.parse(target)
    plan = plan_recovery(settings, place.vault, wanted, which="offsite", now=datetime.now(timezone.utc))
    with (
        workspace("vault", owner=server_account()) as folder,
        recovered(plan, settings, place.vault, folder / "into", Progress(), durable=False) as found,
        connect(found.target("studio"), settings={"search_path": "public"}) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT value FROM lesson ORDER BY id")
        return [row[0] for row in cursor.fetchall()]


def next_one(place: Site, *, full: bool) -> PhysicalEntry:
    """Ids name seconds."""
    newest = PhysicalCatalogue(place.store, "studio").summaries()[0].id
    wait_until(lambda: backup_id(datetime.now(timezone.utc)) != newest, what="another second")
    return place.base_backup(full=full)


def prune(place: Site, old: PhysicalEntry, full: PhysicalEntry) -> None:
    """The unproven one before the proven chain goes, and the log before the chain, in both stores."""
    manifest = full.require_manifest()
    first = Segment.at(Lsn.parse(manifest.start_lsn), manifest.timeline, manifest.wal_segment_bytes)
    later = datetime.now(timezone.utc) + timedelta(minutes=1)
    for store in place.vault.named().values():
        done = prune_store(store, plan_store(store, place.settings, later), by=BY, progress=Progress(), now=later)
        assert done.base_backups.deleted == (old.id,) and done.wal.segments >= 3
        archive = open_archive(place.settings, store, place.cluster)
        assert min(found.segment for found in archive.segments(manifest.timeline)) == first


def test_the_life_of_a_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEST_OLD_KEY", "TEST_NEW_KEY"):
        monkeypatch.setenv(name, new_raw_key())
    stores = {"primary": {"path": "backups"}, "offsite": {"kind": "local", "path": "elsewhere"}}
    kept = {"daily": 1, "weekly": 0, "monthly": 0, "keep_proven": 1}
    with site(17, tmp_path, server={"summarize_wal": "on"}, stores=stores, retention=kept, encryption=OLD) as place:
        place.commit(1)
        old = place.base_backup(full=True)
        place.commit(2)
        for _ in range(3):
            place.switch()
            place.commit(3)
        full = next_one(place, full=True)
        place.commit(4)
        place.switch()
        newest = next_one(place, full=False)
        assert newest.require_manifest().base == full.id
        moment = place.commit(5)
        place.switch()
        place.commit(6)
        place.archive_all()
        bring_off_site(place)
        proved = prove_base(place.settings, place.vault, newest, Progress(), by=BY)
        assert proved.record.verdict is Verdict.PROVEN
        audit = check_audit(place.vault.primary, "studio", other=place.vault.offsite)
        assert audit.status is Status.PASSED, audit
        prune(place, old, full)
        new = configuration(tmp_path, stores=stores, retention=kept, encryption={**NEW, "previous": [OLD]})
        moved = rewrap_backups(new, place.vault.named(), Progress(), by=BY)
        assert {len(result.moved) for result in moved.values()} == {3}, "two base backups and a timeline"
        monkeypatch.delenv("TEST_OLD_KEY")
        shutil.rmtree(tmp_path / "backups")
        alone = configuration(tmp_path, stores=stores, retention=kept, encryption=NEW)
        assert values(place, alone, "latest") == [1, 2, 3, 3, 3, 4, 5, 6]
        assert values(place, alone, moment.isoformat()) == [1, 2, 3, 3, 3, 4, 5]
