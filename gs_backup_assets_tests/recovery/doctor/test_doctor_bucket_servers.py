"""The doctor's probes of a bucket and the rules that it sets, on servers that lack something, refuse, or forget."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.errors import NotVerifiable, StoreError
from gs_backup_assets.recovery.doctor.bucket import open_bucket
from gs_backup_assets.recovery.doctor.bucket_setup import apply_rules
from gs_backup_assets_tests.faults import Answer, Proxy
from gs_backup_assets_tests.recovery.doctor.bucket_site import (
    DENIED,
    NOT_IMPLEMENTED,
    answering,
    examined,
    fix,
    no_strangers,
    of_status,
    planned,
    probes,
    put_rules,
    rules_of,
    settings_for,
    without,
)
from gs_backup_assets_tests.s3_server import READER, MotoServer, S3Server, Server


def test_a_server_that_overwrites_in_spite_of_the_condition_fails(s3_server: S3Server, bucket: str) -> None:
    once, _ = probes(settings_for(s3_server, bucket), without("If-None-Match"))
    assert once.status is Status.FAILED and "silently replaces" in once.summary
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=bucket)


def test_a_server_that_looks_at_no_checksum_is_noted(s3_server: S3Server, bucket: str) -> None:
    _, checksums = probes(settings_for(s3_server, bucket), without("x-amz-checksum-sha256"))
    assert checksums.is_note and "does not look" in checksums.summary
    assert "reads every byte back" in checksums.details[0]


def test_a_server_that_tells_no_checksum_is_noted(s3_server: S3Server, bucket: str) -> None:
    client = answering("HeadObject", lambda parsed: parsed.pop("ChecksumSHA256"))
    _, checksums = probes(settings_for(s3_server, bucket), client)
    assert checksums.is_note and "does not tell" in checksums.summary


def test_a_server_that_only_repeats_checksums_fails(s3_server: S3Server, bucket: str) -> None:
    """The comparison of copies would believe it."""
    claimed = {"ChecksumSHA256": "what was claimed"}
    client = answering("HeadObject", lambda parsed: parsed.update(claimed), "x-amz-checksum-sha256")
    _, checksums = probes(settings_for(s3_server, bucket), client)
    assert checksums.status is Status.FAILED and "repeats" in checksums.summary


@pytest.mark.parametrize("fault", [NOT_IMPLEMENTED, DENIED], ids=lambda fault: fault.code)
@pytest.mark.parametrize(
    ("query", "check", "permission"),
    [
        (r"\?versioning", "versioning", "s3:GetBucketVersioning"),
        (r"\?encryption", "default_encryption", "s3:GetEncryptionConfiguration"),
        (r"\?publicAccessBlock", "public_access", "s3:GetBucketPublicAccessBlock"),
        (r"\?policyStatus", "public_access", "s3:GetBucketPolicyStatus"),
        (r"\?acl", "public_access", "s3:GetBucketAcl"),
        (r"\?object-lock", "object_lock", "s3:GetBucketObjectLockConfiguration"),
        (r"\?lifecycle", "lifecycle", "s3:GetLifecycleConfiguration"),
    ],
)
def test_what_stays_open_is_not_verified(
    moto_server: MotoServer, moto_proxy: Proxy, query: str, check: str, permission: str, fault: Answer
) -> None:
    """A server that does not know the question, and a role that may not ask it; the other checks go on."""
    no_strangers(moto_proxy)
    moto_proxy.on("GET", query, fault, times=None)
    found = examined(settings_for(moto_server, moto_server.bucket(), endpoint=moto_proxy.endpoint))
    open_checks = of_status(found, Status.NOT_VERIFIED)
    assert open_checks == ({"versioning", "lifecycle"} if check == "versioning" else {check})
    told = " ".join((found[check].summary, *found[check].details, found[check].hint))
    assert ("NOT_IMPLEMENTED" if fault is NOT_IMPLEMENTED else "PERMISSION_MISSING") in told
    assert (permission in told) == (fault is DENIED)
    assert of_status(found, Status.FAILED) == set()


def test_a_role_that_may_not_write_leaves_the_probes_open(s3_server: S3Server, bucket: str) -> None:
    found = examined(settings_for(s3_server, bucket, **READER))
    for check in ("write_once", "checksums"):
        assert found[check].status is Status.NOT_VERIFIED
        assert "s3:PutObject" in found[check].hint
    assert of_status(found, Status.FAILED) == set()


def test_a_probe_that_cannot_be_removed_is_told(moto_server: MotoServer, moto_proxy: Proxy) -> None:
    no_strangers(moto_proxy)
    moto_proxy.on("DELETE", r"/\.doctor-", DENIED, times=None)
    found = examined(settings_for(moto_server, moto_server.bucket(), endpoint=moto_proxy.endpoint))
    assert found["write_once"].status is Status.PASSED
    assert all("s3:DeleteObject" in detail for detail in found["write_once"].details)
    assert len(found["write_once"].details) == 2, "moto took the damaged one as well"


@pytest.mark.parametrize("which", ["s3_server", "moto_server"])
def test_rules_are_put_once_and_those_of_others_stay(which: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(which)
    bucket = server.bucket(versioning=True)
    theirs = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}}
    put_rules(server, bucket, theirs)
    assert fix(settings_for(server, bucket, "prod"))
    assert not fix(settings_for(server, bucket, "prod"))
    assert fix(settings_for(server, bucket, "staging")), "another store in the same bucket has rules of its own"
    assert not fix(settings_for(server, bucket, "prod"))
    there = rules_of(server, bucket)
    assert theirs in there and len(there) == 5
    lifecycle = examined(settings_for(server, bucket, "staging"))["lifecycle"]
    assert lifecycle.status is Status.PASSED and not lifecycle.is_note


def test_which_sizes_change_their_class_is_left_as_it_was(moto_server: MotoServer) -> None:
    """Amazon puts its default back when a request does not name the setting; moto has only the default."""
    setting = {"TransitionDefaultMinimumObjectSize": "varies_by_storage_class"}
    sent: list[str] = []

    def factory(config: S3StoreConfig) -> Any:
        client = answering("GetBucketLifecycleConfiguration", lambda parsed: parsed.update(setting))(config)
        client.meta.events.register(
            "before-call.s3.PutBucketLifecycleConfiguration",
            lambda params, **_: sent.append(params["headers"]["x-amz-transition-default-minimum-object-size"]),
        )
        return client

    bucket = moto_server.bucket()
    put_rules(moto_server, bucket, {"ID": "logs", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 9}})
    assert fix(settings_for(moto_server, bucket), factory)
    assert sent == ["varies_by_storage_class"]


def test_rules_that_others_changed_meanwhile_are_not_overwritten(s3_server: S3Server, bucket: str) -> None:
    opened, plan = planned(settings_for(s3_server, bucket))
    theirs = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}}
    put_rules(s3_server, bucket, theirs)
    with pytest.raises(StoreError, match="RULES_CHANGED"):
        apply_rules(opened, plan)
    assert rules_of(s3_server, bucket) == [theirs]


def test_a_server_that_does_not_know_a_rule_refuses_all(s3_server: S3Server, bucket: str) -> None:
    """SeaweedFS has no transitions."""
    with pytest.raises(NotVerifiable, match="NOT_IMPLEMENTED"):
        fix(settings_for(s3_server, bucket, transitions={"GLACIER": timedelta(days=90)}))
    assert open_bucket(settings_for(s3_server, bucket), "offsite").lifecycle().rules == ()
