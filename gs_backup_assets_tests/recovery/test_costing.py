"""What the cost report gathers from real stores: a folder, and a bucket with several storage classes."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.costs import CostReport
from gs_backup_assets.catalogue.manifest import StoredFile
from gs_backup_assets.catalogue.periods import MONTH
from gs_backup_assets.catalogue.usage import Age
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.errors import ConfigError, StoreError
from gs_backup_assets.recovery.costing import cost_report
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.opening import open_vault
from gs_backup_assets.vault.store import Store
from gs_backup_assets_tests.catalogue.manifests import NOW, made_up, proof_of, put
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.s3_server import S3Server

SIZE = 200_000


def put_backup(store: Store, taken: datetime, size: int = SIZE) -> str:
    """A made-up backup with a file of `size` bytes, and a proof; returns its folder."""
    file = StoredFile(path="dump/1.dat", size=size, sha256="ab" * 32)
    manifest = made_up(taken).model_copy(update={"files": (file,)})
    store.put(BytesIO(bytes(size)), f"{manifest.folder}/{file.path}", size=size)
    digest = put(store, manifest)
    Catalogue(store, "shop").add_proof(proof_of(manifest, digest, Verdict.PROVEN, taken), b"<html>")
    return manifest.folder


def report_of(folder: Path, **overrides: object) -> CostReport:
    settings = settings_in(folder, **overrides)
    return cost_report(settings, open_vault(settings), NOW + timedelta(hours=1))


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_folder_is_reported_as_it_is(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "backups")
    for back in range(8):
        taken = NOW - timedelta(days=back)
        for path in (tmp_path / "backups" / put_backup(store, taken, SIZE - 1000 * back)).rglob("*"):
            os.utime(path, (taken.timestamp(), taken.timestamp()))
    store.put_bytes(b"of another database", "other/logical/2026-11-22/20261122T080003Z/manifest.json")
    made = report_of(tmp_path, retention={"daily": 2, "weekly": 0, "monthly": 0})
    (primary,) = made.stores
    assert primary.address == str(tmp_path / "backups")
    assert (primary.backups, primary.objects) == (8, 8 * 4)
    assert primary.stored_bytes == bytes_below(tmp_path / "backups" / "shop")
    assert {age.age for age in primary.ages} == {Age.WEEK}
    assert made.growth is not None and made.growth.bytes_per_day == pytest.approx(1000)
    assert made.month == "2026-11" and made.forecast[0].month == "2026-11"
    beside = bytes_below(tmp_path / "backups" / "shop") / 8 - (SIZE - 3500)
    # The two newest at the end of November are those of the 29th and the 30th.
    assert made.forecast[0].stored_bytes == pytest.approx(2 * (SIZE + beside) + 7000 + 8000, abs=20)


def test_a_bucket_is_reported_by_its_storage_classes(tmp_path: Path, s3_server: S3Server, bucket: str) -> None:
    put_backup(s3_server.store(bucket), NOW - timedelta(days=1))
    put_backup(s3_server.store(bucket, storage_class="GLACIER_IR"), NOW)
    offsite = s3_server.config(bucket, transitions={"STANDARD_IA": "30d"}).model_dump(exclude_unset=True)
    made = report_of(tmp_path, stores={"offsite": offsite})
    primary, other = made.stores
    assert (primary.objects, primary.stored_bytes, primary.classes) == (0, 0, ())
    classes = {one.storage_class: one for one in other.classes}
    assert classes.keys() == {"STANDARD", "GLACIER_IR"}
    assert [classes[name].objects for name in ("STANDARD", "GLACIER_IR")] == [4, 4]
    assert classes["GLACIER_IR"].cost.known == pytest.approx(classes["GLACIER_IR"].stored_bytes / 1e9 * 0.004)
    listed = s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert other.stored_bytes == sum(one["Size"] for one in listed)
    assert made.cost.known == pytest.approx(sum(one.cost.known for one in other.classes))
    # What comes is in both stores: they are one backup of which one store has none yet.
    assert {c.store for c in made.forecast[0].classes} == {"primary", "offsite"}
    assert made.forecast[-1].class_bytes("STANDARD_IA") > 0 and made.savings[1].configured


@pytest.mark.parametrize(("size", "moves"), [(17 << 20, False), ((17 << 20) + 1, True)])
def test_what_is_archived_is_as_large_as_our_own_rules_want(
    tmp_path: Path, s3_server: S3Server, bucket: str, size: int, moves: bool
) -> None:
    put_backup(s3_server.store(bucket), NOW, size)
    offsite = s3_server.config(bucket, transitions={"GLACIER": "30d"}).model_dump(exclude_unset=True)
    made = report_of(tmp_path, stores={"offsite": offsite})
    assert (made.forecast[-1].class_bytes("GLACIER") > 0) is moves


def test_each_store_is_listed_once(tmp_path: Path, s3_server: S3Server, bucket: str) -> None:
    put_backup(s3_server.store(bucket), NOW)
    config = s3_server.config(bucket).model_dump(exclude_unset=True)
    settings = settings_in(tmp_path, stores={"offsite": config})
    vault = open_vault(settings)
    pages: list[object] = []
    client = vault.store("offsite").client  # type: ignore[attr-defined]
    client.meta.events.register("before-call.s3.ListObjectsV2", lambda **_: pages.append(1))
    assert cost_report(settings, vault, NOW).stores[1].backups == 1
    assert len(pages) == 1


def test_a_store_that_cannot_be_read_is_an_error_and_no_zero(tmp_path: Path, s3_server: S3Server) -> None:
    config = s3_server.config("no-such-bucket-here").model_dump(exclude_unset=True)
    with pytest.raises(StoreError):
        report_of(tmp_path, stores={"offsite": config})


def test_a_month_is_that_of_the_zone() -> None:
    chicago = ZoneInfo("America/Chicago")
    moment = datetime(2026, 12, 1, 5, 59, tzinfo=timezone.utc)
    assert MONTH.of(moment, chicago) == "2026-11-01"
    assert MONTH.of(moment + timedelta(minutes=1), chicago) == "2026-12-01"
    MONTH.require_current("2026-11-01", moment, chicago)
    with pytest.raises(ConfigError, match="PARTITION_NOT_THIS_MONTH"):
        MONTH.require_current("2026-12-01", moment, chicago)
