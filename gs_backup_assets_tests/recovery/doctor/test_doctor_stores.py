"""The doctor's checks of the stores and the key as one would run it: a primary bucket, an off-site one, keys."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.recovery.doctor.bucket import CHECKS
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis
from gs_backup_assets.recovery.doctor.doctor import examine
from gs_backup_assets.recovery.doctor.key import encryption_key
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets_tests.iam import policy
from gs_backup_assets_tests.s3_server import READER, REGION, MotoServer, S3Server, running


def settings_of(folder: Path, **changes: Any) -> DatabaseSettings:
    values = {"name": "shop", "url_env": "TEST_NOWHERE_URL", "timezone": "UTC", "folder": folder, **changes}
    return DatabaseSettings.model_validate(values)


def test_both_stores_are_looked_at_and_the_rest_goes_on(
    s3_server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_NOWHERE_URL", "postgresql://nobody@127.0.0.1:1/shop")
    primary = s3_server.config(bucket, "first").model_dump(exclude_unset=True)
    offsite = s3_server.config("no-such-bucket").model_dump(exclude_unset=True)
    found = examine(settings_of(tmp_path, stores={"primary": primary, "offsite": offsite}))
    names = [diagnosis.name for diagnosis in found]
    mine = [f"primary_{check}" for check in CHECKS]
    theirs = [f"offsite_{check}" for check in CHECKS]
    assert names[names.index("store") :] == ["store", *mine, "offsite_store", *theirs, "encryption_key"]
    by_name = {diagnosis.name: diagnosis for diagnosis in found}
    assert by_name["store"].status is Status.PASSED
    assert by_name["offsite_store"].status is Status.FAILED and "BUCKET_MISSING" in by_name["offsite_store"].summary
    assert by_name["primary_write_once"].status is Status.PASSED
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=bucket), "nothing is left behind"


def test_a_store_that_may_only_be_read_cannot_take_backups(
    s3_server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_NOWHERE_URL", "postgresql://nobody@127.0.0.1:1/shop")
    offsite = s3_server.config(bucket, **READER).model_dump(exclude_unset=True)
    found = {d.name: d for d in examine(settings_of(tmp_path, stores={"offsite": offsite}))}
    assert found["offsite_store"].status is Status.FAILED
    assert "STORE_ACCESS_DENIED" in found["offsite_store"].summary
    assert found["offsite_write_once"].status is Status.NOT_VERIFIED


# The key --------------------------------------------------------------------------------------------------------------


def key_of(folder: Path, **encryption: Any) -> Diagnosis:
    return encryption_key(settings_of(folder, encryption=encryption))


def test_no_encryption_is_noted(tmp_path: Path) -> None:
    diagnosis = encryption_key(settings_of(tmp_path))
    assert diagnosis.is_note and "no encryption" in diagnosis.summary


def test_a_raw_key_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_raw_key()
    monkeypatch.setenv("TEST_KEY", key)
    diagnosis = key_of(tmp_path, kind="raw-aes-256", key_env="TEST_KEY")
    assert diagnosis.status is Status.PASSED and not diagnosis.is_note
    assert key not in str(diagnosis) and base64.b64decode(key).hex() not in str(diagnosis)


@pytest.mark.parametrize(("value", "code"), [("", "KEY_MISSING"), ("c2hvcnQ=", "KEY_INVALID")])
def test_a_raw_key_that_cannot_be_used_fails(
    value: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", value)
    diagnosis = key_of(tmp_path, kind="raw-aes-256", key_env="TEST_KEY")
    assert diagnosis.status is Status.FAILED and code in diagnosis.summary
    assert "No backup can be taken" in diagnosis.summary and diagnosis.hint


def test_keys_of_older_backups_that_are_missing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", new_raw_key())
    there = tmp_path / "old.key"
    there.write_text(new_raw_key())
    there.chmod(0o600)
    previous = [{"kind": "raw-aes-256", "key_file": "old.key"}, {"kind": "raw-aes-256", "key_env": "TEST_OLDER_KEY"}]
    diagnosis = key_of(tmp_path, kind="raw-aes-256", key_env="TEST_KEY", previous=previous)
    assert diagnosis.status is Status.NOT_VERIFIED
    (missing,) = diagnosis.details
    assert "TEST_OLDER_KEY" in missing and "KEY_MISSING" in missing
    monkeypatch.setenv("TEST_OLDER_KEY", new_raw_key())
    diagnosis = key_of(tmp_path, kind="raw-aes-256", key_env="TEST_KEY", previous=previous)
    assert diagnosis.status is Status.PASSED


def test_a_key_of_kms_is_tried_out(moto_server: MotoServer, tmp_path: Path) -> None:
    kms = moto_server.client("kms")
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    where = {"kind": "aws-kms", "region": REGION, "endpoint": moto_server.endpoint}
    assert key_of(tmp_path, key_id=arn, **where).status is Status.PASSED
    for other in (f"{arn[:-4]}0000", f"alias/{secrets.token_hex(4)}"):
        refused = key_of(tmp_path, key_id=other, **where)
        assert refused.status is Status.FAILED and "KEY_REFUSED" in refused.summary


def test_a_role_that_only_takes_backups_cannot_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the writer's policy gives of KMS, enforced by moto: no backup is unwrapped by whoever takes it."""
    with running(MotoServer) as server:
        arn = server.client("kms").create_key()["KeyMetadata"]["Arn"]
        statements = policy("writer", "backups", "*")["Statement"]  # moto knows no keys as resources
        of_keys = [statement for statement in statements if statement["Resource"] == "*"]
        iam = server.client("iam")
        iam.create_user(UserName="writer")
        document = json.dumps({"Version": "2012-10-17", "Statement": of_keys})
        iam.put_user_policy(UserName="writer", PolicyName="keys", PolicyDocument=document)
        login = iam.create_access_key(UserName="writer")["AccessKey"]
        plain = {"Content-Type": "text/plain"}
        urlopen(Request(f"{server.endpoint}/moto-api/reset-auth", b"0", plain)).close()  # rights count from now on
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", login["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", login["SecretAccessKey"])
        found = key_of(tmp_path, kind="aws-kms", key_id=arn, region=REGION, endpoint=server.endpoint)
    assert found.status is Status.NOT_VERIFIED
    assert "not unwrapped" in found.summary and "KEY_REFUSED" in found.details[0]
