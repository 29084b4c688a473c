"""The audit log in a bucket."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.audit import AuditLog, mirror, note
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.audit_logs import (
    BY,
    append_in_processes,
    assert_all_there,
    checked,
    found,
    path_of,
    proofs,
    write_lines,
)
from gs_backup_assets_tests.s3_server import READER, S3Server


def test_four_processes_write_one_chain_on_s3(s3_server: S3Server, bucket: str) -> None:
    append_in_processes(f"s3://{bucket}/p?endpoint={s3_server.endpoint}&region=us-east-1", each=25)
    store = s3_server.store(bucket, prefix="p")
    assert_all_there(AuditLog(store, "shop").records())
    result = checked(store)
    assert (result.status, result.metrics["audit_records"]) == (Status.PASSED, 100)


def test_more_records_than_a_page_of_a_listing_on_s3(s3_server: S3Server, bucket: str) -> None:
    store = s3_server.store(bucket)
    with tempfile.TemporaryDirectory() as folder:
        local = LocalStore(Path(folder))
        lines = write_lines(local, proofs(1100))
    log = AuditLog(store, "shop")
    client = s3_server.client()
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda number: client.put_object(Bucket=bucket, Key=log.key(number), Body=lines[number - 1]),
                range(1, 1101),
            )
        )
    assert log.append(BY, "proof", {}, "PROVEN").sequence == 1101
    assert (checked(store).status, checked(store).metrics["audit_records"]) == (Status.PASSED, 1101)
    client.put_object(Bucket=bucket, Key=log.key(1050), Body=lines[1049].replace(b"PROVEN", b"FAILED"))
    client.delete_object(Bucket=bucket, Key=log.key(500))
    assert found(store) == {"AUDIT_EDITED", "AUDIT_GAP"}


def test_a_copy_on_s3(s3_server: S3Server, bucket: str, store: LocalStore) -> None:
    lines = write_lines(store, proofs(5))
    other = s3_server.store(bucket, prefix="p")
    assert (mirror(store, other, "shop"), mirror(store, other, "shop")) == (5, 0)
    assert (checked(store, other).status, checked(store, other).metrics["audit_records_copied"]) == (Status.PASSED, 5)
    key = f"p/{AuditLog(other, 'shop', copied=True).key(5)}"
    s3_server.client().put_object(Bucket=bucket, Key=key, Body=lines[4].replace(b"PROVEN", b"FAILED"))
    assert found(store, other) == {"AUDIT_DIFFERS"}


def test_a_reader_gets_its_answer_and_checks_all_the_same(s3_server: S3Server, bucket: str) -> None:
    write_lines(s3_server.store(bucket), proofs(2))
    reader = s3_server.store(bucket, **READER)
    refusal = note(reader, "shop", BY, "proof", ids={}, result="PROVEN")
    assert refusal is not None
    assert refusal.code == "STORE_ACCESS_DENIED"
    assert checked(reader).status is Status.PASSED


def test_a_store_that_does_not_answer_leaves_the_check_open(s3_server: S3Server, store: LocalStore) -> None:
    write_lines(store, proofs(2))
    gone = s3_server.store("no-such-bucket-at-all")
    assert (checked(store, gone).status, found(store, gone)) == (Status.NOT_VERIFIED, {"BUCKET_MISSING"})
    path_of(store, 1).unlink()
    assert found(store, gone) == {"AUDIT_GAP"}
    with pytest.raises(StoreError, match="BUCKET_MISSING"):
        checked(gone)
