"""A bucket as the primary store: the whole chain without a shared disk, and a role that may not write."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.prove import prove
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes, write_sums
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.chain import codes, execute, settings_in
from gs_backup_assets_tests.s3_server import READER, S3Server


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_the_chain_on_a_bucket(
    tmp_path: Path, empty_database: Target, s3_server: S3Server, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    primary = s3_server.config(s3_server.bucket(), prefix="prod").model_dump(exclude_unset=True)
    encryption = {"encryption": {"kind": "raw-aes-256", "key_env": "TEST_KEY"}} if encrypted else {}
    settings = settings_in(tmp_path, stores={"primary": primary}, **encryption)
    execute(empty_database, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 10000)")
    store = open_store(settings)
    today = DAY.of(datetime.now(timezone.utc), settings.zone)
    manifest = take_backup(settings, empty_database, store, today, Progress())
    entry = Catalogue(store, "shop").find(manifest.id)
    with Progress().stage("checksum") as stage:
        assert check_stored_bytes(store, entry, stage).status is Status.PASSED
    assert write_sums(store, entry)
    assert prove(settings, store, entry, Progress()).verdict is Verdict.PROVEN
    victim = f"{manifest.folder}/{manifest.files[0].stored_path}"
    with store.open(victim) as stream:
        data = stream.read()
    store.delete(victim)
    store.put_bytes(data[:-1], victim)
    with Progress().stage("checksum") as stage:
        assert codes(check_stored_bytes(store, entry, stage)) == {"FILE_TRUNCATED"}
    assert not (tmp_path / "backups").exists(), "nothing rests on this machine"


def test_who_may_not_write_stores_nothing(tmp_path: Path, empty_database: Target, s3_server: S3Server) -> None:
    bucket = s3_server.bucket()
    primary = s3_server.config(bucket, prefix="prod", **READER).model_dump(exclude_unset=True)
    settings = settings_in(tmp_path, stores={"primary": primary})
    today = DAY.of(datetime.now(timezone.utc), settings.zone)
    with pytest.raises(StoreError, match="STORE_ACCESS_DENIED"):
        take_backup(settings, empty_database, open_store(settings), today, Progress())
    assert list(keys(s3_server.store(bucket), "")) == []
