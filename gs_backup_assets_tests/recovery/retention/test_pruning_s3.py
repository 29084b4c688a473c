"""Retention in a bucket: locks, versions, refusals, and a deletion that breaks off between any two requests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from gs_backup_assets.catalogue.audit import AuditLog
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.holds import hold, read_hold, release
from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.catalogue.manifests import made_up
from gs_backup_assets_tests.chain import settings_in
from gs_backup_assets_tests.faults import Answer, Break, Proxy, proxy_before
from gs_backup_assets_tests.recovery.retention.shelves import NOW, Keeper, fill, finished, id_of, keeper, shelve, taken
from gs_backup_assets_tests.s3_server import READER, S3Server

REFUSED = Answer(403, "AccessDenied")
BATCH = r"\?delete"


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with proxy_before(s3_server.endpoint) as made:
        yield made


def shop_in(folder: Path, store: S3Store) -> Keeper:
    return keeper(settings_in(folder), store)


def records(shop: Keeper) -> list[tuple[str, str]]:
    return [(record.event, record.result) for record in AuditLog(shop.store, "shop").records()]


def test_what_goes_is_gone_and_what_stays_is_whole(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    shop = shop_in(tmp_path, s3_server.store(bucket, prefix="prod"))
    fill(shop.store, (0, 1, 2, 3))
    shop.store.put_bytes(b"x", f"{made_up(taken(5)).folder}/dump/1.dat")
    done = shop.apply()
    assert done.deleted == (id_of(3), id_of(2)) and done.swept == ()
    assert finished(shop.store) == {id_of(0), id_of(1)}
    later = shop.apply(now=NOW + timedelta(hours=25))
    assert later.swept == (made_up(taken(5)).folder,)
    assert {key.split("/")[3] for key in keys(shop.store, "shop/logical")} == {id_of(0), id_of(1)}


def test_locked_ones_are_planned_as_staying(s3_server: S3Server, proxy: Proxy, tmp_path: Path) -> None:
    bucket = s3_server.bucket(lock=True)
    locking = s3_server.store(bucket, object_lock_days=2, object_lock_mode="GOVERNANCE")
    shop = shop_in(tmp_path, s3_server.store(bucket, endpoint=proxy.endpoint))
    shelve(shop.store, 4)
    locked = shelve(locking, 3)
    fill(shop.store, (2, 1, 0))
    proxy.heal()
    planned = shop.plan()
    assert [c.id for c in planned.going] == [id_of(4), id_of(2)]
    assert proxy.count("HEAD", "manifest.json") == 3, "only what would go is asked for its lock"
    until = locking.locked_until(f"{locked.folder}/manifest.json")
    assert until is not None
    assert shop.reason(3) == f"object lock until {until:%Y-%m-%d %H:%M} UTC"
    shop.apply(planned)
    assert finished(shop.store) == {id_of(0), id_of(1), id_of(3)}
    after = shop.plan(now=until + timedelta(seconds=1))
    assert [c.id for c in after.going] == [id_of(3)], "once the lock is over, it goes"


def test_what_goes_from_a_bucket_with_versions_can_be_brought_back(s3_server: S3Server, tmp_path: Path) -> None:
    """Deletion leaves a marker; the bytes stay as old versions until a lifecycle rule of the bucket ends them."""
    bucket = s3_server.bucket(lock=True)
    shop = shop_in(tmp_path, s3_server.store(bucket))
    fill(shop.store, (0, 1, 2))
    shop.apply()
    assert finished(shop.store) == {id_of(0), id_of(1)}
    client = s3_server.client()
    prefix = made_up(taken(2)).folder
    markers = client.list_object_versions(Bucket=bucket, Prefix=prefix)["DeleteMarkers"]
    assert {marker["Key"].removeprefix(f"{prefix}/").split("/")[0] for marker in markers} == {
        "dump",
        "globals.sql",
        "manifest.json",
        "proofs",
    }
    for marker in markers:
        client.delete_object(Bucket=bucket, Key=marker["Key"], VersionId=marker["VersionId"])
    assert finished(shop.store) == {id_of(0), id_of(1), id_of(2)}


@pytest.mark.parametrize("lock", [False, True])
def test_a_hold_comes_and_goes(s3_server: S3Server, lock: bool, tmp_path: Path) -> None:
    """Also where every other object is locked, and where a deletion leaves a marker."""
    options = {"object_lock_days": 1} if lock else {}
    shop = shop_in(tmp_path, s3_server.store(s3_server.bucket(lock=lock), **options))
    fill(shop.store, (0, 1, 2))
    backup = Catalogue(shop.store, "shop").find(id_of(2))
    for reason in ("first", "second"):
        placed = hold(shop.store, backup, by="anna", reason=reason, now=NOW)
        assert placed.reason == reason and "held" in shop.reason(2)
        assert release(shop.store, backup) == placed
        assert read_hold(shop.store, backup) is None and "held" not in shop.reason(2)


def test_a_hold_at_the_very_moment_of_the_deletion_is_respected(
    s3_server: S3Server, bucket: str, proxy: Proxy, tmp_path: Path
) -> None:
    plain = s3_server.store(bucket)
    fill(plain, (0, 1, 2))
    backup = Catalogue(plain, "shop").find(id_of(2))
    shop = shop_in(tmp_path, s3_server.store(bucket, endpoint=proxy.endpoint))

    def place() -> None:
        hold(plain, backup, by="anna", reason="law suit", now=NOW)

    proxy.on("DELETE", "manifest.json", Break("pass", "request", meanwhile=place))
    done = shop.apply()
    assert (done.deleted, done.left) == ((), (id_of(2),))
    assert finished(plain) == {id_of(0), id_of(1), id_of(2)}


def test_a_role_that_may_not_delete_is_told_of_the_pruners_policy(
    s3_server: S3Server, bucket: str, proxy: Proxy, tmp_path: Path
) -> None:
    fill(s3_server.store(bucket), (0, 1, 2))
    shop = shop_in(tmp_path, s3_server.store(bucket, endpoint=proxy.endpoint))
    proxy.on("DELETE", "", REFUSED, times=None)
    with pytest.raises(StoreError) as caught:
        shop.apply()
    assert caught.value.code == "STORE_ACCESS_DENIED"
    assert "pruner's policy" in caught.value.hint and "docs/retention.md" in caught.value.hint
    assert finished(shop.store) == {id_of(0), id_of(1), id_of(2)}
    assert records(shop) == [("prune", "started"), ("prune", "STORE_ACCESS_DENIED")]


def test_a_role_that_may_only_look_deletes_nothing(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    """The audit log cannot be written, so nothing is even tried; the plan can be looked at."""
    fill(s3_server.store(bucket), (0, 1, 2))
    shop = shop_in(tmp_path, s3_server.store(bucket, **READER))
    assert shop.going() == [id_of(2)]
    with pytest.raises(StoreError) as caught:
        shop.apply()
    assert caught.value.code == "STORE_ACCESS_DENIED" and "pruner's policy" in caught.value.hint
    assert finished(shop.store) == {id_of(0), id_of(1), id_of(2)}


@pytest.mark.parametrize(
    ("method", "pattern", "number", "gone"),
    [
        # A backup goes by a DELETE of its manifest, which delete_tree repeats, and one request for all the rest.
        *(("DELETE", "manifest.json", number, (number + 1) // 2) for number in range(8)),
        *(("POST", BATCH, number, number + 1) for number in range(4)),
    ],
)
def test_it_breaks_off_between_any_two_requests_and_goes_on(
    s3_server: S3Server, bucket: str, proxy: Proxy, tmp_path: Path, method: str, pattern: str, number: int, gone: int
) -> None:
    fill(s3_server.store(bucket), range(6))
    shop = shop_in(tmp_path, s3_server.store(bucket, endpoint=proxy.endpoint))
    proxy.on(method, pattern, REFUSED, skip=number, times=None)
    with pytest.raises(StoreError):
        shop.apply()
    assert finished(shop.store) == {id_of(age) for age in range(6 - gone)}
    proxy.heal()
    assert len(shop.apply().deleted) == 4 - gone
    assert finished(shop.store) == {id_of(0), id_of(1)}
    shop.apply(now=NOW + timedelta(hours=25))
    assert {key.split("/")[3] for key in keys(shop.store, "shop/logical")} == {id_of(0), id_of(1)}


def test_a_lock_is_the_servers(s3_server: S3Server) -> None:
    """What retention plans around is what the server would do."""
    bucket = s3_server.bucket(lock=True)
    locked = shelve(s3_server.store(bucket, object_lock_days=2), 3)
    client = s3_server.client()
    key = f"{locked.folder}/manifest.json"
    version = client.head_object(Bucket=bucket, Key=key)["VersionId"]
    with pytest.raises(ClientError):
        client.delete_object(Bucket=bucket, Key=key, VersionId=version)
