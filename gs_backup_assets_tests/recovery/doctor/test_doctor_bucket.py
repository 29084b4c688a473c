"""The doctor's checks of buckets, on SeaweedFS and moto, and on servers that lack something (a proxy before them)."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ProofFailed
from gs_backup_assets.recovery.doctor.bucket import CHECKS, examine_bucket
from gs_backup_assets.recovery.doctor.bucket_rules import ARCHIVED_ABOVE_BYTES
from gs_backup_assets_tests.faults import Proxy
from gs_backup_assets_tests.recovery.doctor.bucket_site import (
    BLOCKED,
    answering,
    examined,
    fix,
    no_strangers,
    notes,
    of_status,
    put_rules,
    settings_for,
)
from gs_backup_assets_tests.s3_server import MotoServer, S3Server

# A bucket as it should be ---------------------------------------------------------------------------------------------


def test_a_bucket_as_recommended_passes_and_nothing_is_left_in_it(moto_server: MotoServer) -> None:
    bucket, client = moto_server.bucket(lock=True), moto_server.client()
    client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=BLOCKED)
    client.put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
        },
    )
    settings = settings_for(moto_server, bucket, object_lock_days=30, transitions={"STANDARD_IA": timedelta(days=30)})
    fix(settings)
    found = examined(settings)
    assert of_status(found, Status.PASSED) == set(CHECKS)
    assert notes(found) == {"checksums"}, "moto looks at no checksum"
    assert "aws:kms" in found["default_encryption"].summary
    assert "30 days (GOVERNANCE)" in found["object_lock"].summary
    assert "blocked" in found["public_access"].summary
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_seaweedfs_as_recommended(s3_server: S3Server) -> None:
    """All but Block Public Access, which it does not know: what it cannot tell is no pass."""
    bucket = s3_server.bucket(lock=True)
    s3_server.client().put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    settings = settings_for(s3_server, bucket, object_lock_days=1)
    fix(settings)
    found = examined(settings)
    assert of_status(found, Status.NOT_VERIFIED) == {"public_access"}
    assert "NOT_IMPLEMENTED" in found["public_access"].details[0]
    assert of_status(found, Status.FAILED) == set() and notes(found) == set()
    assert "tells it of every object" in found["checksums"].summary
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=bucket)


def test_a_plain_bucket_is_good_enough_with_recommendations(bucket: str, s3_server: S3Server) -> None:
    found = examined(settings_for(s3_server, bucket))
    assert of_status(found, Status.FAILED) == set()
    assert notes(found) == {"versioning", "default_encryption", "object_lock", "lifecycle"}
    assert all(found[name].hint for name in notes(found))


# Each check, otherwise ------------------------------------------------------------------------------------------------


def test_a_bucket_that_is_not_there(s3_server: S3Server) -> None:
    found = examined(settings_for(s3_server, "no-such-bucket"))
    assert of_status(found, Status.FAILED) == {"bucket"} and "BUCKET_MISSING" in found["bucket"].summary
    assert of_status(found, Status.NOT_VERIFIED) == set(CHECKS) - {"bucket"}


def test_a_server_that_is_not_there(s3_server: S3Server, bucket: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # not listening
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        found = examined(settings_for(s3_server, bucket, endpoint=endpoint))
    assert of_status(found, Status.FAILED) == {"bucket"} and "STORE_UNAVAILABLE" in found["bucket"].summary


def test_credentials_that_are_not_set(s3_server: S3Server, bucket: str) -> None:
    settings = settings_for(s3_server, bucket, access_key_env="NOT_SET", secret_key_env="NOT_SET")
    found = examined(settings)
    assert "CREDENTIALS_MISSING" in found["bucket"].summary and "NOT_SET" in found["bucket"].hint


def test_a_folder_has_no_bucket(tmp_path: Path) -> None:
    settings = DatabaseSettings(name="shop", url_env="UNUSED", timezone="UTC", folder=tmp_path)
    assert examine_bucket(settings, "primary") == examine_bucket(settings, "offsite") == ()


def test_suspended_versioning_is_no_versioning(s3_server: S3Server) -> None:
    bucket = s3_server.bucket(versioning=True)
    s3_server.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert "suspended" in examined(settings_for(s3_server, bucket))["versioning"].summary


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"sse": "AES256"}, "asks for AES256"),
        ({"encryption": {"kind": "raw-aes-256", "key_env": "KEY"}}, "before they leave this machine"),
    ],
)
def test_encryption_in_another_place_is_enough(
    s3_server: S3Server, bucket: str, extra: dict[str, Any], words: str
) -> None:
    found = examined(settings_for(s3_server, bucket, **extra))
    assert words in found["default_encryption"].summary and not found["default_encryption"].is_note


def test_a_public_policy_fails(s3_server: S3Server, bucket: str) -> None:
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3_server.client().put_bucket_policy(Bucket=bucket, Policy=policy)
    access = examined(settings_for(s3_server, bucket))["public_access"]
    assert access.status is Status.FAILED
    assert "the bucket's policy is public" in access.details
    assert "a request without credentials reads an object" in access.details


def test_a_public_access_control_list_fails(moto_proxy: Proxy, moto_server: MotoServer) -> None:
    no_strangers(moto_proxy)
    bucket = moto_server.bucket()
    moto_server.client().put_bucket_acl(Bucket=bucket, ACL="public-read")
    settings = settings_for(moto_server, bucket, endpoint=moto_proxy.endpoint)
    access = examined(settings)["public_access"]
    assert access.status is Status.FAILED
    assert "the bucket's access control list names everybody" in access.details
    moto_server.client().put_public_access_block(
        Bucket=bucket, PublicAccessBlockConfiguration={**BLOCKED, "BlockPublicAcls": False}
    )
    assert "the bucket's access control list names everybody" not in examined(settings)["public_access"].details


def test_strangers_who_are_let_in_make_it_public_whatever_the_bucket_says(moto_server: MotoServer) -> None:
    access = examined(settings_for(moto_server, moto_server.bucket()))["public_access"]
    assert access.status is Status.FAILED
    assert access.details == ("a request without credentials lists the objects",)


def test_a_bucket_that_is_not_public_and_could_become_it(moto_proxy: Proxy, moto_server: MotoServer) -> None:
    no_strangers(moto_proxy)
    found = examined(settings_for(moto_server, moto_server.bucket(), endpoint=moto_proxy.endpoint))
    assert found["public_access"].is_note and "Block Public Access" in found["public_access"].hint


def test_a_lock_that_is_wanted_and_not_there_fails(s3_server: S3Server, bucket: str) -> None:
    found = examined(settings_for(s3_server, bucket, object_lock_days=30))
    assert found["object_lock"].status is Status.FAILED
    assert "refuses every object" in found["object_lock"].summary


def test_a_lock_that_nobody_uses_and_one_of_the_buckets_own(s3_server: S3Server) -> None:
    bucket = s3_server.bucket(lock=True)
    found = examined(settings_for(s3_server, bucket))
    assert found["object_lock"].is_note and "object_lock_days" in found["object_lock"].hint
    s3_server.client().put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 2}},
        },
    )
    own = examined(settings_for(s3_server, bucket))["object_lock"]
    assert own.status is Status.PASSED and not own.is_note
    assert "2 days (GOVERNANCE)" in own.details[0]
    both = examined(settings_for(s3_server, bucket, object_lock_days=9, object_lock_mode="COMPLIANCE"))["object_lock"]
    assert "9 days (COMPLIANCE): nobody can" in both.summary and both.details == own.details


def test_a_rule_that_deletes_backups_by_age_fails(s3_server: S3Server, bucket: str) -> None:
    put_rules(
        s3_server,
        bucket,
        {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}},
        {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}},
    )
    lifecycle = examined(settings_for(s3_server, bucket))["lifecycle"]
    assert lifecycle.status is Status.FAILED
    assert lifecycle.details == ("tidy: in the whole bucket: DELETE objects after 30 days",)


def test_transitions_of_the_configuration_must_be_in_force(moto_server: MotoServer) -> None:
    bucket = moto_server.bucket()
    wanted = {"STANDARD_IA": timedelta(days=7), "GLACIER_IR": timedelta(days=90)}
    settings = settings_for(moto_server, bucket, transitions=wanted)
    before = examined(settings)["lifecycle"]
    assert before.status is Status.FAILED and "colder classes" in before.summary and "--fix-bucket" in before.hint
    fix(settings)
    after = examined(settings)["lifecycle"]
    assert after.status is Status.PASSED and not after.is_note
    assert after.details == ("STANDARD_IA: after 30 days instead of 7, S3's minimum",)
    not_wanted = examined(settings_for(moto_server, bucket))["lifecycle"]
    assert not_wanted.status is Status.FAILED, "the configuration does not want them any more"


def as_amazon(parsed: dict[str, Any]) -> None:
    """moto forgets which sizes a rule is for; Amazon does not."""
    for rule in parsed.get("Rules", ()):
        if "Transitions" in rule:
            rule["Filter"] = {"And": {"Prefix": "prod/", "ObjectSizeGreaterThan": ARCHIVED_ABOVE_BYTES}}


def test_backups_that_are_archived_are_warned_of(moto_server: MotoServer) -> None:
    bucket = moto_server.bucket()
    settings = settings_for(moto_server, bucket, transitions={"GLACIER": timedelta(days=90)})
    client = answering("GetBucketLifecycleConfiguration", as_amazon)
    assert fix(settings, client)
    (lifecycle,) = [d for d in examine_bucket(settings, "offsite", client=client) if d.name == "offsite_lifecycle"]
    assert lifecycle.is_note and "cannot be restored at once" in lifecycle.summary
    assert "48" in lifecycle.hint and "GLACIER after 90 days" in lifecycle.details[0]


def test_a_server_that_keeps_half_of_a_rule_is_found_by_reading_back(moto_server: MotoServer) -> None:
    """moto forgets which sizes a rule is for: manifests would be archived as well."""
    settings = settings_for(moto_server, moto_server.bucket(), transitions={"GLACIER": timedelta(days=90)})
    with pytest.raises(ProofFailed, match="RULES_NOT_KEPT"):
        fix(settings, read_back_seconds=0)


def test_archiving_by_a_rule_of_others_is_told(moto_server: MotoServer) -> None:
    bucket = moto_server.bucket()
    moving = {"Transitions": [{"Days": 30, "StorageClass": "DEEP_ARCHIVE"}]}
    put_rules(moto_server, bucket, {"ID": "cold", "Status": "Enabled", "Filter": {"Prefix": ""}, **moving})
    lifecycle = examined(settings_for(moto_server, bucket))["lifecycle"]
    assert any(detail.startswith("what this archives cannot be restored at once: cold") for detail in lifecycle.details)


def test_transitions_in_an_order_that_s3_does_not_know(moto_server: MotoServer) -> None:
    wanted = {"GLACIER": timedelta(days=30), "STANDARD_IA": timedelta(days=60)}
    found = examined(settings_for(moto_server, moto_server.bucket(), transitions=wanted))
    assert found["lifecycle"].status is Status.NOT_VERIFIED and "TRANSITIONS_INVALID" in found["lifecycle"].summary
