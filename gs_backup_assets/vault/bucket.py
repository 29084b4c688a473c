"""What a bucket says about itself: versions, encryption, lock, strangers, lifecycle rules; and writing those rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from gs_backup_assets.errors import NotVerifiable
from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets.vault.s3_errors import code_of, status_of, translated

# A lifecycle rule in S3's own notation: rules of others are carried as they are, whatever is in them.
Rule = Mapping[str, Any]

REFUSED = frozenset({"AccessDenied", "403", "AllAccessDisabled", "UnauthorizedAccess"})
_UNKNOWN_TO_IT = frozenset({"NotImplemented", "XNotImplemented", "MethodNotAllowed", "UnsupportedOperation"})
_STRANGERS = (
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
)


@dataclass(frozen=True)
class BlockedAccess:
    """S3's Block Public Access of one bucket: whether what would make it public is without effect."""

    ignores_acls: bool
    restricts_policies: bool
    refuses_new: bool

    @property
    def complete(self) -> bool:
        return self.ignores_acls and self.restricts_policies and self.refuses_new


@dataclass(frozen=True)
class LockSettings:
    """Object lock of a bucket. With `default_days` it locks every object by itself, whatever the writer asked for."""

    default_mode: str | None = None
    default_days: int | None = None


@dataclass(frozen=True)
class Lifecycle:
    """A bucket's lifecycle rules. `smallest` is its setting for which sizes change their class, if it tells one."""

    rules: tuple[Rule, ...] = ()
    smallest: str | None = None


class Bucket:
    """The bucket of a store.

    Every question raises NotVerifiable when it stays open: `PERMISSION_MISSING` (names the permission) or
    `NOT_IMPLEMENTED` (the server does not know it); and StoreError as any use of the store does.
    """

    def __init__(self, store: S3Store) -> None:
        self.store = store
        self.client = store.client

    def reach(self) -> None:
        """List one object of ours: that needs the right bucket, name, region and credentials. StoreError."""
        with translated(self.store.describe(), ""):
            self.client.list_objects_v2(Bucket=self.store.bucket, Prefix=self.store.prefix, MaxKeys=1)

    def versioning(self) -> str:
        """`Enabled`, `Suspended` or `Off`."""
        answer = self._ask(self.client.get_bucket_versioning, "versioning", "s3:GetBucketVersioning")
        return str((answer or {}).get("Status", "Off"))

    def default_encryption(self) -> str | None:
        """How the server encrypts objects by itself: `AES256`, `aws:kms`, ...; None when it does not."""
        answer = self._ask(
            self.client.get_bucket_encryption,
            "default encryption",
            "s3:GetEncryptionConfiguration",
            absent=("ServerSideEncryptionConfigurationNotFoundError",),
        )
        rules = (answer or {}).get("ServerSideEncryptionConfiguration", {}).get("Rules", ())
        chosen = (rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in rules)
        return next((str(algorithm) for algorithm in chosen if algorithm), None)

    def blocked_access(self) -> BlockedAccess | None:
        """What is blocked of public access; None when nothing was ever set."""
        answer = self._ask(
            self.client.get_public_access_block,
            "public access block",
            "s3:GetBucketPublicAccessBlock",
            absent=("NoSuchPublicAccessBlockConfiguration",),
        )
        if answer is None:
            return None
        block = answer["PublicAccessBlockConfiguration"]
        return BlockedAccess(
            ignores_acls=bool(block.get("IgnorePublicAcls")),
            restricts_policies=bool(block.get("RestrictPublicBuckets")),
            refuses_new=bool(block.get("BlockPublicAcls") and block.get("BlockPublicPolicy")),
        )

    def has_public_policy(self) -> bool:
        """Whether the bucket's policy lets anybody in."""
        answer = self._ask(
            self.client.get_bucket_policy_status,
            "policy status",
            "s3:GetBucketPolicyStatus",
            absent=("NoSuchBucketPolicy",),
        )
        return bool((answer or {}).get("PolicyStatus", {}).get("IsPublic"))

    def has_public_acl(self) -> bool:
        """Whether the bucket's access control list names everybody."""
        answer = self._ask(self.client.get_bucket_acl, "access control list", "s3:GetBucketAcl")
        return any(grant.get("Grantee", {}).get("URI") in _STRANGERS for grant in (answer or {}).get("Grants", ()))

    def strangers_list(self) -> bool:
        """Whether a request without credentials gets the names of our objects."""
        return self._let_in("list_objects_v2", Prefix=self.store.prefix, MaxKeys=0)

    def strangers_read(self, key: str) -> bool:
        """Whether a request without credentials gets an object; `key` is the bucket's, with our prefix."""
        return self._let_in("head_object", Key=key)

    def _let_in(self, operation: str, **parameters: Any) -> bool:
        """Whether a stranger gets an answer. A refusal is one, too; that there is none is a StoreError."""
        from botocore.exceptions import ClientError

        with translated(self.store.describe(), ""):
            try:
                getattr(self._stranger, operation)(Bucket=self.store.bucket, **parameters)
            except ClientError as error:
                if 400 <= status_of(error) < 500:
                    return False
                raise
        return True

    @cached_property
    def _stranger(self) -> Any:
        """A client for the same server that has no credentials at all."""
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        meta = self.client.meta
        config = meta.config.merge(Config(signature_version=UNSIGNED))
        return boto3.session.Session().client(
            "s3", region_name=meta.region_name, endpoint_url=meta.endpoint_url, config=config
        )

    def lock(self) -> LockSettings | None:
        """The bucket's object lock; None when it has none."""
        answer = self._ask(
            self.client.get_object_lock_configuration,
            "object lock",
            "s3:GetBucketObjectLockConfiguration",
            absent=("ObjectLockConfigurationNotFoundError",),
        )
        settings = (answer or {}).get("ObjectLockConfiguration", {})
        if settings.get("ObjectLockEnabled") != "Enabled":
            return None
        default = settings.get("Rule", {}).get("DefaultRetention", {})
        days = default.get("Days") or 365 * default.get("Years", 0)
        return LockSettings(default.get("Mode"), days or None)

    def lifecycle(self) -> Lifecycle:
        """All lifecycle rules of the bucket, those of others too."""
        answer = self._ask(
            self.client.get_bucket_lifecycle_configuration,
            "lifecycle rules",
            "s3:GetLifecycleConfiguration",
            absent=("NoSuchLifecycleConfiguration",),
        )
        if answer is None:
            return Lifecycle()
        return Lifecycle(tuple(answer.get("Rules", ())), answer.get("TransitionDefaultMinimumObjectSize"))

    def put_lifecycle(self, lifecycle: Lifecycle) -> None:
        """Replace all lifecycle rules of the bucket."""
        smallest = {"TransitionDefaultMinimumObjectSize": lifecycle.smallest} if lifecycle.smallest else {}
        put = partial(
            self.client.put_bucket_lifecycle_configuration,
            LifecycleConfiguration={"Rules": list(lifecycle.rules)},
            **smallest,
        )
        self._ask(put, "change lifecycle rules", "s3:PutLifecycleConfiguration")

    def _ask(
        self,
        question: Callable[..., dict[str, Any]],
        what: str,
        permission: str,
        *,
        absent: tuple[str, ...] = (),
    ) -> dict[str, Any] | None:
        """Ask; None when the answer is that there is no such setting."""
        from botocore.exceptions import ClientError

        with translated(self.store.describe(), ""):
            try:
                return question(Bucket=self.store.bucket)
            except ClientError as error:
                code = code_of(error)
                if code in absent:
                    return None
                if code in REFUSED:
                    raise permission_missing(what, permission, code) from error
                if code in _UNKNOWN_TO_IT or status_of(error) in (405, 501):
                    raise NotVerifiable(
                        "NOT_IMPLEMENTED",
                        f"The server does not implement this question or setting: {what} ({code}).",
                        "Look into the server's own settings and manual instead.",
                    ) from error
                raise


def permission_missing(what: str, permission: str, code: str) -> NotVerifiable:
    """The role may not do something that a check needs."""
    return NotVerifiable(
        "PERMISSION_MISSING",
        f"The credentials may not do this: {what} ({code}).",
        f"Allow {permission} to this role, or ask with one that may; deploy/iam/ has the policies.",
    )
