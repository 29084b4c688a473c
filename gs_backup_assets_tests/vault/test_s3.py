"""The store in a bucket: whole or not there, never replaced, checked by the server, locked, and listed to the end."""

from __future__ import annotations

import base64
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gs_backup_assets.errors import ConfigError, StoreError
from gs_backup_assets.vault.opening import open_configured
from gs_backup_assets.vault.pipeline import Hashing
from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.faults import Proxy
from gs_backup_assets_tests.s3_server import CREDENTIALS, READER, MotoServer, S3Server

PART = 8 << 20
DATA = random.Random(1).randbytes(2 * PART + 1)
NOW = datetime.now(timezone.utc)


@pytest.fixture
def store(s3_server: S3Server, bucket: str) -> S3Store:
    return s3_server.store(bucket, prefix="prod")


def read(store: S3Store, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()


def code_of(action: Callable[[], object]) -> str:
    """The code of the StoreError that calling `action` raises. No secret is in its words."""
    with pytest.raises(StoreError) as caught:
        action()
    assert caught.value.exit_status == 4
    assert not any(secret in str(caught.value) for secret in CREDENTIALS.values())
    return caught.value.code


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1])
def test_what_is_put_is_there_and_the_server_says_the_same_of_it(store: S3Store, size: int) -> None:
    data = DATA[:size]
    moved: list[int] = []
    stored = store.put(Hashing(BytesIO(data), moved.append), "shop/dump/1.dat", size=size)
    assert (stored.size, stored.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert sum(moved) == size
    assert read(store, "shop/dump/1.dat") == data
    assert store.exists("shop/dump/1.dat")
    assert not store.exists("shop/dump"), "a folder is no object"
    told = store.own_checksum("shop/dump/1.dat")
    assert told is not None
    assert told.size == size
    if size <= PART:
        assert (told.sha256, told.parts, stored.parts) == (stored.sha256, None, None)
    else:
        assert stored.parts is not None
        assert (told.sha256, told.parts) == (stored.parts.sha256, stored.parts.count)
        assert (stored.parts.count, stored.parts.size) == (-(-size // PART), PART)


def test_a_source_may_give_less_than_it_is_asked_for(store: S3Store) -> None:
    class Dripping(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 1_000_003))

    stored = store.put(Dripping(DATA), "shop/1.dat", size=len(DATA))
    assert stored.parts is not None and stored.parts.count == 3
    assert read(store, "shop/1.dat") == DATA


@pytest.mark.parametrize("size", [5, PART + 1], ids=["one part", "two parts"])
def test_objects_are_never_replaced(store: S3Store, s3_server: S3Server, size: int) -> None:
    store.put_bytes(DATA[:size], "shop/manifest.json")
    assert code_of(lambda: store.put_bytes(DATA[-size:], "shop/manifest.json")) == "OBJECT_EXISTS"
    assert code_of(lambda: store.put_bytes(DATA[:size], "shop/manifest.json")) == "OBJECT_EXISTS"
    assert read(store, "shop/manifest.json") == DATA[:size]
    assert uploads_in(s3_server, store.bucket) == []


@pytest.mark.parametrize("size", [1000, PART + 1], ids=["one part", "two parts"])
def test_of_many_writers_of_one_key_one_wins(store: S3Store, size: int) -> None:
    writers = 6
    gate = threading.Barrier(writers)

    def put(number: int) -> bool:
        gate.wait()
        try:
            store.put_bytes(bytes([number]) * size, "shop/manifest.json")
        except StoreError as error:
            assert error.code == "OBJECT_EXISTS"
            return False
        return True

    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(put, range(writers)))
    winner = read(store, "shop/manifest.json")
    assert winner == winner[:1] * size
    assert won[winner[0]]
    # SeaweedFS looks for the object and completes an upload in two steps: two may pass between them. Amazon's does not.
    assert won.count(True) == 1 or size > PART


def uploads_in(server: S3Server, bucket: str) -> list[str]:
    """Keys of the uploads that were begun and neither completed nor ended."""
    return [upload["Key"] for upload in server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


ESCAPES = ["../x", "shop/../../x", "/etc/passwd", "..", "shop/..", "shop//x", "a\0b"]


@pytest.mark.parametrize("key", ESCAPES)
def test_keys_that_lead_out_are_refused(store: S3Store, s3_server: S3Server, key: str) -> None:
    store.put_bytes(b"x", "shop/x")
    s3_server.client().put_object(Bucket=store.bucket, Key="x", Body=b"not ours")
    for action in (
        lambda: store.put_bytes(b"x", key),
        lambda: store.open(key),
        lambda: store.own_checksum(key),
        lambda: store.locked_until(key),
        lambda: store.folders(key),
        lambda: list(keys(store, key)),
        lambda: store.delete(key),
        lambda: store.delete_tree(key),
        lambda: store.sweep_uploads(key, NOW),
    ):
        assert code_of(action) == "KEY_INVALID"
    assert not store.exists(key)
    assert read(store, "shop/x") == b"x"
    assert s3_server.client().get_object(Bucket=store.bucket, Key="x")["Body"].read() == b"not ours"


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b", "%2e%2e", "\\"]), max_size=6).map("/".join))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_key_reaches_outside(store: S3Store, s3_server: S3Server, key: str) -> None:
    try:
        store.put_bytes(b"x", key)
    except StoreError as error:
        assert error.code in ("KEY_INVALID", "OBJECT_EXISTS", "STORE_UNAVAILABLE")
    found = s3_server.client().list_objects_v2(Bucket=store.bucket).get("Contents", ())
    assert [entry["Key"] for entry in found if not entry["Key"].startswith("prod/")] == []


def test_stores_of_one_bucket_do_not_see_each_other(store: S3Store, s3_server: S3Server) -> None:
    other = s3_server.store(store.bucket, prefix="prod2")
    whole = s3_server.store(store.bucket)
    store.put_bytes(b"one", "shop/x")
    other.put_bytes(b"two", "shop/x")
    assert list(keys(store, "")) == list(keys(other, "")) == ["shop/x"]
    assert list(keys(whole, "")) == ["prod/shop/x", "prod2/shop/x"]
    assert whole.folders("") == ["prod", "prod2"]
    store.delete_tree("shop")
    assert read(other, "shop/x") == b"two"


def test_a_missing_object_says_so(store: S3Store) -> None:
    store.put_bytes(b"x", "shop/x")
    for action in (
        lambda: store.open("shop/none"),
        lambda: store.own_checksum("shop/none"),
        lambda: store.locked_until("shop/none"),
    ):
        assert code_of(action) == "OBJECT_MISSING"
    assert not store.exists("shop/none")
    store.delete("shop/none")


def test_an_absent_prefix_is_empty(store: S3Store) -> None:
    assert store.folders("shop/logical") == []
    assert list(keys(store, "shop/logical")) == []
    store.delete_tree("shop/logical")
    store.put_bytes(b"x", "shop/x")
    assert store.folders("shop") == []


def test_folders_and_keys_are_sorted_and_some_are_skipped(store: S3Store) -> None:
    for key in ("s/b/2", "s/a/1", "s/c/3", "s/a/0", "s/file", "s2/z", "s/dump"):
        store.put_bytes(b"x", key)
    assert store.folders("s") == ["a", "b", "c"]
    assert list(keys(store, "s")) == ["s/a/0", "s/a/1", "s/b/2", "s/c/3", "s/dump", "s/file"]
    assert [found.key for found in store.objects("s", skip=("a", "dump"))] == ["s/b/2", "s/c/3", "s/dump", "s/file"]
    assert [found.key for found in store.objects("s", after="s/b/2")] == ["s/c/3", "s/dump", "s/file"]
    assert [found.key for found in store.objects("s", after="s/b/")] == ["s/b/2", "s/c/3", "s/dump", "s/file"]


def test_a_listing_tells_size_time_class_and_a_tag_of_the_bytes(store: S3Store) -> None:
    store.put_bytes(b"one", "s/1")
    store.put_bytes(b"one", "s/2")
    store.put_bytes(b"two", "s/3")
    first, same, other = store.objects("s")
    assert (first.size, first.storage_class) == (3, "STANDARD")
    assert abs(first.modified - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert first.tag == same.tag != other.tag


def test_more_keys_than_one_answer_holds(store: S3Store, s3_server: S3Server, proxy: Proxy) -> None:
    """S3 lists and deletes 1,000 keys at a time; also as many folders, and the manifest goes first."""
    wanted = [f"many/{number:04}/x" for number in range(2_500)] + ["many/manifest.json"]
    client = s3_server.client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=store.bucket, Key=f"prod/{key}", Body=b"x"), wanted))
    assert list(keys(store, "many")) == wanted
    assert store.folders("many") == [f"{number:04}" for number in range(2_500)]
    counting = s3_server.store(store.bucket, prefix="prod", endpoint=proxy.endpoint)
    counting.delete_tree("many")
    assert list(keys(store, "")) == []
    changes = [f"{seen.method} {seen.target}" for seen in proxy.seen if seen.method in ("DELETE", "POST")]
    assert changes == [f"DELETE /{store.bucket}/prod/many/manifest.json"] + [f"POST /{store.bucket}?delete"] * 3


def test_uploads_that_nobody_completed_are_swept(store: S3Store, s3_server: S3Server) -> None:
    client = s3_server.client()

    def begin(key: str) -> None:
        begun = client.create_multipart_upload(Bucket=store.bucket, Key=key, ChecksumAlgorithm="SHA256")
        client.upload_part(
            Bucket=store.bucket,
            Key=key,
            UploadId=begun["UploadId"],
            PartNumber=1,
            Body=b"x",
            ChecksumSHA256=base64.b64encode(hashlib.sha256(b"x").digest()).decode(),
        )

    for key in ("prod/shop/a", "prod/shop/deep/b", "prod/shop2/c", "elsewhere/d"):
        begin(key)
    assert store.sweep_uploads("shop", datetime.now(timezone.utc) - timedelta(hours=24)) == 0
    assert len(uploads_in(s3_server, store.bucket)) == 4
    assert store.sweep_uploads("shop", datetime.now(timezone.utc) + timedelta(seconds=2)) == 2
    assert sorted(uploads_in(s3_server, store.bucket)) == ["elsewhere/d", "prod/shop2/c"]
    assert store.sweep_uploads("", datetime.now(timezone.utc) + timedelta(seconds=2)) == 1
    assert uploads_in(s3_server, store.bucket) == ["elsewhere/d"]


def test_a_removed_folder_takes_its_uploads_along(store: S3Store, s3_server: S3Server) -> None:
    s3_server.client().create_multipart_upload(Bucket=store.bucket, Key="prod/shop/id/dump/1.dat")
    store.put_bytes(b"x", "shop/id/dump/2.dat")
    time.sleep(1.1)  # times of S3 have no fractions
    store.delete_tree("shop/id")
    assert uploads_in(s3_server, store.bucket) == []
    assert list(keys(store, "")) == []


def test_a_reader_that_stops_early_has_not_fetched_everything(
    store: S3Store, s3_server: S3Server, proxy: Proxy
) -> None:
    store.put_bytes(DATA * 4, "shop/1.dat")
    reading = s3_server.store(store.bucket, prefix="prod", endpoint=proxy.endpoint)
    with reading.open("shop/1.dat") as stream:
        assert stream.read(10) == DATA[:10]
    assert 1 <= proxy.count("GET", "1.dat") <= 5 < len(DATA) * 4 / PART


class TestRefusals:
    """Everything that may be wrong with the access has a code of its own, and tells no secret."""

    @staticmethod
    def actions(store: S3Store) -> Iterator[Callable[[], Any]]:
        yield lambda: store.put_bytes(b"x", "shop/x")
        yield lambda: store.put_bytes(DATA, "shop/x")
        yield lambda: store.open("shop/x")
        yield lambda: store.exists("shop/x")
        yield lambda: store.own_checksum("shop/x")
        yield lambda: store.locked_until("shop/x")
        yield lambda: store.folders("shop")
        yield lambda: list(store.objects("shop"))
        yield lambda: store.delete("shop/x")
        yield lambda: store.delete_tree("shop")
        yield lambda: store.sweep_uploads("shop", NOW)

    @pytest.mark.parametrize(
        "variable, value",
        [("AWS_SECRET_ACCESS_KEY", "0" * 40), ("AWS_ACCESS_KEY_ID", "AKIA0000000000000000")],
        ids=["secret", "key"],
    )
    def test_wrong_credentials(
        self, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        monkeypatch.setenv(variable, value)
        store = s3_server.store(bucket)
        assert [code_of(action) for action in self.actions(store)] == ["STORE_CREDENTIALS"] * 11

    def test_no_credentials(self, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        store = s3_server.store(bucket)
        assert [code_of(action) for action in self.actions(store)] == ["STORE_CREDENTIALS"] * 11

    def test_named_variables_that_are_not_set(
        self, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TEST_READER_SECRET")
        with pytest.raises(ConfigError, match=r"CREDENTIALS_MISSING: .* TEST_READER_SECRET"):
            s3_server.store(bucket, **READER)

    def test_an_account_that_may_only_read(self, s3_server: S3Server, bucket: str) -> None:
        s3_server.store(bucket).put_bytes(b"x", "shop/x")
        store = s3_server.store(bucket, **READER)
        for write in (
            lambda: store.put_bytes(b"x", "shop/y"),
            lambda: store.put_bytes(DATA, "shop/y"),
            lambda: store.delete("shop/x"),
            lambda: store.delete_tree("shop"),
        ):
            assert code_of(write) == "STORE_ACCESS_DENIED"
        assert read(store, "shop/x") == b"x"
        assert list(keys(store, "")) == ["shop/x"]

    def test_a_bucket_that_is_not_there(self, s3_server: S3Server) -> None:
        store = s3_server.store("there-is-none")
        for action in (
            lambda: store.put_bytes(b"x", "shop/x"),
            lambda: store.put_bytes(DATA, "shop/x"),
            lambda: store.open("shop/x"),
            lambda: store.folders("shop"),
            lambda: list(store.objects("shop")),
            lambda: store.delete("shop/x"),
            lambda: store.sweep_uploads("shop", NOW),
        ):
            assert code_of(action) == "BUCKET_MISSING"
        assert not store.exists("shop/x")


class TestOptions:
    """Storage class, encryption by the server, and locks arrive, for one part and for several."""

    @pytest.mark.parametrize("size", [5, PART + 1], ids=["one part", "two parts"])
    def test_storage_class_and_encryption(self, moto_server: MotoServer, size: int) -> None:
        """moto: SeaweedFS has no storage classes, and no KMS."""
        key_id = moto_server.client("kms").create_key()["KeyMetadata"]["KeyId"]
        bucket = moto_server.bucket()
        store = moto_server.store(bucket, storage_class="GLACIER_IR", sse="aws:kms", sse_kms_key_id=key_id)
        store.put_bytes(DATA[:size], "shop/1.dat")
        head = moto_server.client().head_object(Bucket=bucket, Key="shop/1.dat")
        assert (head["StorageClass"], head["ServerSideEncryption"]) == ("GLACIER_IR", "aws:kms")
        assert head["SSEKMSKeyId"].endswith(key_id)
        assert [found.storage_class for found in store.objects("shop")] == ["GLACIER_IR"]
        assert read(store, "shop/1.dat") == DATA[:size]

    @pytest.mark.parametrize("size", [5, PART + 1], ids=["one part", "two parts"])
    def test_encryption_by_the_server(self, s3_server: S3Server, bucket: str, size: int) -> None:
        store = s3_server.store(bucket, sse="AES256")
        store.put_bytes(DATA[:size], "shop/1.dat")
        head = s3_server.client().head_object(Bucket=bucket, Key="shop/1.dat")
        assert head["ServerSideEncryption"] == "AES256"
        assert read(store, "shop/1.dat") == DATA[:size]

    @pytest.mark.parametrize("size", [5, PART + 1], ids=["one part", "two parts"])
    @pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
    def test_locks(self, s3_server: S3Server, mode: str, size: int) -> None:
        bucket = s3_server.bucket(lock=True)
        store = s3_server.store(bucket, object_lock_days=3, object_lock_mode=mode)
        store.put_bytes(DATA[:size], "shop/1.dat")
        head = s3_server.client().head_object(Bucket=bucket, Key="shop/1.dat")
        assert head["ObjectLockMode"] == mode
        until = store.locked_until("shop/1.dat")
        assert until == head["ObjectLockRetainUntilDate"]
        assert abs(until - datetime.now(timezone.utc) - timedelta(days=3)) < timedelta(minutes=5)
        store.put_bytes(DATA[:size], "shop/hold.json", locked=False)
        assert store.locked_until("shop/hold.json") is None
        version = s3_server.client().head_object(Bucket=bucket, Key="shop/hold.json")["VersionId"]
        s3_server.client().delete_object(Bucket=bucket, Key="shop/hold.json", VersionId=version)
        assert not store.exists("shop/hold.json")

    def test_a_lock_that_is_over_and_a_legal_hold(self, s3_server: S3Server) -> None:
        bucket = s3_server.bucket(lock=True)
        store, client = s3_server.store(bucket), s3_server.client()
        until = datetime.now(timezone.utc) + timedelta(seconds=2)
        client.put_object(
            Bucket=bucket, Key="over", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until
        )
        client.put_object(Bucket=bucket, Key="held", Body=b"x", ObjectLockLegalHoldStatus="ON")
        held = store.locked_until("held")
        assert held is not None and held.year == 9999
        time.sleep(max(0.0, (until - datetime.now(timezone.utc)).total_seconds()) + 1)
        assert store.locked_until("over") is None


def test_the_address_tells_no_secret(s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    store = open_configured(s3_server.config(bucket, "prod"), tmp_path)
    assert store.describe() == f"s3://{bucket}/prod"
    assert s3_server.store(bucket).describe() == f"s3://{bucket}"
