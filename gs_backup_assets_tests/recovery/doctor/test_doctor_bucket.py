"""The doctor's checks of buckets, on SeaweedFS and moto, and on servers that lack something (a proxy before them)."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.errors import NotVerifiable, ProofFailed, StoreError
from gs_backup_assets.recovery.doctor.bucket import CHECKS, bucket_config, examine_bucket, open_bucket
from gs_backup_assets.recovery.doctor.bucket_rules import ARCHIVED_ABOVE_BYTES
from gs_backup_assets.recovery.doctor.bucket_setup import RulePlan, apply_rules, plan_rules
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis
from gs_backup_assets.vault.bucket import Bucket
from gs_backup_assets.vault.opening import ClientFactory
from gs_backup_assets.vault.s3_client import make_client
from gs_backup_assets_tests.faults import Answer, Proxy, proxy_before
from gs_backup_assets_tests.s3_server import READER, MotoServer, S3Server, Server

NOT_IMPLEMENTED = Answer(501, "NotImplemented")
DENIED = Answer(403, "AccessDenied")
BLOCKED = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}


def settings_for(server: Server, bucket: str, prefix: str = "prod", **extra: Any) -> DatabaseSettings:
    """Settings whose off-site store is a bucket on a server; `encryption` is the settings' own."""
    encryption = extra.pop("encryption", None)
    return DatabaseSettings.model_validate(
        {
            "name": "shop",
            "url_env": "UNUSED",
            "timezone": "UTC",
            "folder": Path("/nonexistent"),
            "encryption": encryption,
            "stores": {"offsite": server.config(bucket, prefix, **extra).model_dump(exclude_unset=True)},
        }
    )


def examined(settings: DatabaseSettings) -> dict[str, Diagnosis]:
    diagnoses = examine_bucket(settings, "offsite")
    assert [diagnosis.name for diagnosis in diagnoses] == [f"offsite_{check}" for check in CHECKS]
    return {diagnosis.name.removeprefix("offsite_"): diagnosis for diagnosis in diagnoses}


def of_status(found: dict[str, Diagnosis], status: Status) -> set[str]:
    return {name for name, diagnosis in found.items() if diagnosis.status is status}


def notes(found: dict[str, Diagnosis]) -> set[str]:
    return {name for name, diagnosis in found.items() if diagnosis.is_note}


@pytest.fixture
def moto_proxy(moto_server: MotoServer) -> Iterator[Proxy]:
    """moto, which lets strangers in unless a fault of this proxy refuses them."""
    with proxy_before(moto_server.endpoint) as proxy:
        yield proxy


def no_strangers(proxy: Proxy) -> None:
    """Only a stranger's listing asks for no key at all; objects are private in moto as well."""
    proxy.on("GET", r"max-keys=0", DENIED, times=None)


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


def put_rules(server: Server, bucket: str, *rules: dict[str, Any]) -> None:
    server.client().put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)})


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


# Servers that lack something: the client leaves a header out, so that the server never hears of it ------------------


def without(*headers: str) -> ClientFactory:
    """Clients of which the server does not hear these headers of a put."""

    def forget(request: Any, **_: Any) -> None:
        for header in headers:
            del request.headers[header]

    def factory(config: S3StoreConfig) -> Any:
        client = make_client(config)
        client.meta.events.register("before-sign.s3.PutObject", forget)
        return client

    return factory


def probes(settings: DatabaseSettings, client: ClientFactory) -> tuple[Diagnosis, Diagnosis]:
    found = {diagnosis.name: diagnosis for diagnosis in examine_bucket(settings, "offsite", client=client)}
    return found["offsite_write_once"], found["offsite_checksums"]


def test_a_server_that_overwrites_in_spite_of_the_condition_fails(s3_server: S3Server, bucket: str) -> None:
    once, _ = probes(settings_for(s3_server, bucket), without("If-None-Match"))
    assert once.status is Status.FAILED and "silently replaces" in once.summary
    assert "Contents" not in s3_server.client().list_objects_v2(Bucket=bucket)


def test_a_server_that_looks_at_no_checksum_is_noted(s3_server: S3Server, bucket: str) -> None:
    _, checksums = probes(settings_for(s3_server, bucket), without("x-amz-checksum-sha256"))
    assert checksums.is_note and "does not look" in checksums.summary
    assert "reads every byte back" in checksums.details[0]


def answering(operation: str, change: Callable[[dict[str, Any]], object], *forgotten: str) -> ClientFactory:
    """Clients of a server that gives another answer to one operation."""

    def factory(config: S3StoreConfig) -> Any:
        client = without(*forgotten)(config)
        client.meta.events.register(f"after-call.s3.{operation}", lambda parsed, **_: change(parsed))
        return client

    return factory


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


# Rules, on servers ----------------------------------------------------------------------------------------------------


def planned(settings: DatabaseSettings, client: ClientFactory = make_client) -> tuple[Bucket, RulePlan]:
    bucket, config = open_bucket(settings, "offsite", client), bucket_config(settings, "offsite")
    assert config is not None
    return bucket, plan_rules(bucket, config)


def fix(settings: DatabaseSettings, client: ClientFactory = make_client, *, read_back_seconds: float = 30) -> bool:
    """Put the recommended rules; whether that changed any."""
    bucket, plan = planned(settings, client)
    if plan.changes:
        apply_rules(bucket, plan, read_back_seconds=read_back_seconds)
    return plan.changes


def rules_of(server: Server, bucket: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    return found


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
