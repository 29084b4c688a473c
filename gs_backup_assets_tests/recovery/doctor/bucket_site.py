"""What tests of the doctor's look at a bucket share: settings for it, and what was found by name and by status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.recovery.doctor.bucket import CHECKS, bucket_config, examine_bucket, open_bucket
from gs_backup_assets.recovery.doctor.bucket_setup import RulePlan, apply_rules, plan_rules
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis
from gs_backup_assets.vault.bucket import Bucket
from gs_backup_assets.vault.opening import ClientFactory
from gs_backup_assets.vault.s3_client import make_client
from gs_backup_assets_tests.faults import Answer, Proxy
from gs_backup_assets_tests.s3_server import Server

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
    """What the doctor says of the off-site bucket, by check."""
    diagnoses = examine_bucket(settings, "offsite")
    assert [diagnosis.name for diagnosis in diagnoses] == [f"offsite_{check}" for check in CHECKS]
    return {diagnosis.name.removeprefix("offsite_"): diagnosis for diagnosis in diagnoses}


def of_status(found: dict[str, Diagnosis], status: Status) -> set[str]:
    """The checks that came to this."""
    return {name for name, diagnosis in found.items() if diagnosis.status is status}


def notes(found: dict[str, Diagnosis]) -> set[str]:
    """The checks that recommend something."""
    return {name for name, diagnosis in found.items() if diagnosis.is_note}


def no_strangers(proxy: Proxy) -> None:
    """Only a stranger's listing asks for no key at all; objects are private in moto as well."""
    proxy.on("GET", r"max-keys=0", DENIED, times=None)


def put_rules(server: Server, bucket: str, *rules: dict[str, Any]) -> None:
    """Lifecycle rules, in place of those that were there."""
    server.client().put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)})


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
    """What the doctor says when it tries the server: that nothing is replaced, and that checksums are looked at."""
    found = {diagnosis.name: diagnosis for diagnosis in examine_bucket(settings, "offsite", client=client)}
    return found["offsite_write_once"], found["offsite_checksums"]


def answering(operation: str, change: Callable[[dict[str, Any]], object], *forgotten: str) -> ClientFactory:
    """Clients of a server that gives another answer to one operation."""

    def factory(config: S3StoreConfig) -> Any:
        client = without(*forgotten)(config)
        client.meta.events.register(f"after-call.s3.{operation}", lambda parsed, **_: change(parsed))
        return client

    return factory


def planned(settings: DatabaseSettings, client: ClientFactory = make_client) -> tuple[Bucket, RulePlan]:
    """The bucket, and what would be changed in its rules."""
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
    """The lifecycle rules that a bucket has."""
    found: list[dict[str, Any]] = server.client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    return found
