"""Roles: the policies of deploy/iam on SeaweedFS, which enforces them, and a record of what a role asks for."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore
from botocore import UNSIGNED

from gs_backup_assets_tests.s3_server import CREDENTIALS, S3Server

FOLDER = Path(__file__).parents[1] / "deploy" / "iam"
ROLES = ("writer", "prover", "pruner", "rewrapper", "bucket-rules")
PREFIX = "prod"
# A policy names its bucket, and the server reads policies when it starts: so the names are known before.
PRIMARY, OFFSITE = "role-primary", "role-offsite"
CREDENTIALS_OF = {
    role: {
        f"TEST_{role.upper()}_ID": f"AKIA{secrets.token_hex(8)}",
        f"TEST_{role.upper()}_SECRET": secrets.token_hex(20),
    }
    for role in (name.replace("-", "_") for name in ROLES)
}


def policy(role: str, bucket: str, key: str = "arn:aws:kms:us-east-1:1:key/0") -> dict[str, Any]:
    """A policy of deploy/iam with its placeholders filled in, as docs/offsite.md tells to do it."""
    text = (FOLDER / f"{role}.json").read_text(encoding="utf-8")
    for placeholder, value in {"BUCKET": bucket, "PREFIX": PREFIX, "KMS_KEY_ARN": key}.items():
        text = re.sub(rf"\b{placeholder}\b", value, text)
    document: dict[str, Any] = json.loads(text)
    return document


def login(role: str) -> dict[str, str]:
    """What backup.yaml says about a role's credentials: `server.config(bucket, PREFIX, **login("writer"))`."""
    name = role.replace("-", "_").upper()
    return {"access_key_env": f"TEST_{name}_ID", "secret_key_env": f"TEST_{name}_SECRET"}


class RolesServer(S3Server):
    """SeaweedFS with an identity for each role, which has the role's policy for both buckets and nothing else."""

    def _identities(self) -> Path:
        admin = {"accessKey": CREDENTIALS["AWS_ACCESS_KEY_ID"], "secretKey": CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}
        identities: list[dict[str, Any]] = [{"name": "admin", "credentials": [admin], "actions": ["Admin"]}]
        policies = []
        for role in ROLES:
            access, secret = CREDENTIALS_OF[role.replace("-", "_")].values()
            names = [f"{role}-{bucket}" for bucket in (PRIMARY, OFFSITE)]
            identities.append(
                {
                    "name": role,
                    "credentials": [{"accessKey": access, "secretKey": secret}],
                    "actions": [],
                    "policyNames": names,
                }
            )
            policies += [
                {"name": f"{role}-{bucket}", "content": json.dumps(policy(role, bucket))}
                for bucket in (PRIMARY, OFFSITE)
            ]
        path = self.folder / "identities.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"identities": identities, "policies": policies}))
        return path


# What a role asks for -------------------------------------------------------------------------------------------------

# "Required permissions for Amazon S3 API operations"; for KMS an action is called as its operation.
_OF_BUCKETS = {
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "GetBucketVersioning": "s3:GetBucketVersioning",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "GetBucketPolicyStatus": "s3:GetBucketPolicyStatus",
    "GetBucketAcl": "s3:GetBucketAcl",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
}
_OF_OBJECTS = {
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListParts": "s3:ListMultipartUploadParts",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}
# A HEAD tells an object's lock only to those who have these; who needs to know is the one who deletes.
_LOCKS = ("s3:GetObjectRetention", "s3:GetObjectLegalHold")


@dataclass(frozen=True)
class Need:
    """One right that a request needs. `prefix` is that of a listing."""

    action: str
    resource: str
    prefix: str | None = None


@dataclass
class Record:
    """Everything that was asked for: rights that requests needed, and those that were refused."""

    asked: set[Need] = field(default_factory=set)
    refused: set[Need] = field(default_factory=set)

    def note(self, model: Any, http_response: Any, context: Mapping[str, Any], **_: Any) -> None:
        """A handler of botocore's event after-call."""
        if context["client_config"].signature_version is UNSIGNED:
            return  # the doctor's stranger has no role
        needs = set(_needs(model.service_model.service_name, model.name, context["gs_test_parameters"]))
        self.asked |= needs
        if http_response.status_code == 403:
            self.refused |= needs


def _needs(service: str, operation: str, parameters: Mapping[str, Any]) -> Iterator[Need]:
    if service == "kms":
        yield Need(f"kms:{operation}", str(parameters.get("KeyId")))
        return
    bucket = f"arn:aws:s3:::{parameters['Bucket']}"
    if operation in _OF_BUCKETS:
        prefix = parameters.get("Prefix", "") if operation == "ListObjectsV2" else None
        yield Need(_OF_BUCKETS[operation], bucket, prefix)
        return
    keys = [parameters["Key"]] if "Key" in parameters else [o["Key"] for o in parameters["Delete"]["Objects"]]
    for key in keys:
        yield Need(_OF_OBJECTS[operation], f"{bucket}/{key}")
        if "ObjectLockMode" in parameters:
            yield Need("s3:PutObjectRetention", f"{bucket}/{key}")
        if operation == "HeadObject" and "ChecksumMode" not in parameters:
            yield from (Need(action, f"{bucket}/{key}") for action in _LOCKS)


@contextmanager
def recording() -> Iterator[Record]:
    """Record the requests of every client that is made in this block, whoever makes it."""
    record = Record()

    def remember(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["gs_test_parameters"] = dict(params)

    def initialize(session: Any) -> None:
        session.register("before-parameter-build", remember)
        session.register("after-call", record.note)

    botocore.register_initializer(initialize)
    try:
        yield record
    finally:
        botocore.unregister_initializer(initialize)


# What a policy gives --------------------------------------------------------------------------------------------------


def grants(document: Mapping[str, Any]) -> list[tuple[str, str, str | None]]:
    """Every right of a policy: action, pattern of resources, pattern of a listing's prefix."""
    found = []
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow"
        wanted = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
        for action in _listed(statement["Action"]):
            found += [(action, resource, wanted) for resource in _listed(statement["Resource"])]
    return found


def fits(grant: tuple[str, str, str | None], need: Need) -> bool:
    """Whether a right is the one that is needed."""
    action, resource, prefix = grant
    return (
        action == need.action
        and _like(resource, need.resource)
        and (prefix is None or (need.prefix is not None and _like(prefix, need.prefix)))
    )


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def _like(pattern: str, value: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), value, re.DOTALL) is not None
