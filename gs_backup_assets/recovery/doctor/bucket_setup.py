"""Brings a bucket's lifecycle rules to what is recommended: plan, show elsewhere, put, read back and compare."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.errors import ProofFailed, StoreError
from gs_backup_assets.recovery.doctor import bucket_rules
from gs_backup_assets.vault.bucket import Lifecycle, Rule

if TYPE_CHECKING:
    from gs_backup_assets.vault.bucket import Bucket

# Amazon may answer with the old rules for a while after new ones were accepted.
READ_BACK_SECONDS = 30.0


@dataclass(frozen=True)
class RulePlan:
    """All lifecycle rules of a bucket as they are, and as they would be; those of others are the same in both."""

    present: Lifecycle
    new: tuple[Rule, ...]

    @property
    def changes(self) -> bool:
        return not bucket_rules.same(self.present.rules, self.new)

    def lines(self) -> tuple[str, ...]:
        """What would change, in words."""
        return bucket_rules.difference(self.present.rules, self.new)


def plan_rules(bucket: Bucket, config: S3StoreConfig) -> RulePlan:
    """What is to be changed; nothing is. Errors as for `Bucket`, and ConfigError (`TRANSITIONS_INVALID`)."""
    present = bucket.lifecycle()
    wanted = bucket_rules.recommended(config, versioned=bucket.versioning() != "Off")
    return RulePlan(present, bucket_rules.merged(present.rules, wanted, bucket_rules.below(config)))


def apply_rules(bucket: Bucket, plan: RulePlan, *, read_back_seconds: float = READ_BACK_SECONDS) -> None:
    """Put the rules of the plan and nothing else, then read them back.

    Raises StoreError (`RULES_CHANGED`) when others changed them since the plan was made; ProofFailed
    (`RULES_NOT_KEPT`) when the server accepted them and has others; and as `Bucket` does.
    """
    if bucket.lifecycle() != plan.present:
        raise StoreError(
            "RULES_CHANGED",
            f"Somebody changed the lifecycle rules of {bucket.store.bucket} meanwhile; nothing was written.",
            "Run it again, and look at the rules that it shows.",
        )
    bucket.put_lifecycle(Lifecycle(plan.new, plan.present.smallest))
    deadline = time.monotonic() + read_back_seconds
    while not bucket_rules.same(bucket.lifecycle().rules, plan.new):
        if time.monotonic() > deadline:
            raise ProofFailed(
                "RULES_NOT_KEPT",
                f"{bucket.store.bucket} accepted the lifecycle rules, but has others now.",
                "`gs-backup doctor` shows what it has. The server may not know every kind of rule.",
            )
        time.sleep(1)
