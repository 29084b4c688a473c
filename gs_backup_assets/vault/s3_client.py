"""Makes the boto3 client for a bucket from its configuration; the only place that reads its credentials."""

from __future__ import annotations

import os
from typing import Any

from gs_backup_assets.config_sections import S3StoreConfig
from gs_backup_assets.errors import ConfigError

# Throttling and 5xx answers are repeated by botocore, with pauses that grow ("Retries", boto3 documentation).
ATTEMPTS = 6


def credentials(config: S3StoreConfig) -> tuple[str | None, str | None]:
    """The two keys that the configuration names by variables; none without, then boto3 looks for itself."""
    if config.access_key_env is None or config.secret_key_env is None:
        return None, None
    names = (config.access_key_env, config.secret_key_env)
    for name in names:
        if not os.environ.get(name):
            raise ConfigError("CREDENTIALS_MISSING", f"The environment variable {name} is not set.", f"Set {name}.")
    return os.environ[names[0]], os.environ[names[1]]


def region_of(config: S3StoreConfig) -> str | None:
    """The configured region; servers other than Amazon's have none, but the signature needs one."""
    return config.region or ("us-east-1" if config.endpoint is not None else None)


def make_client(config: S3StoreConfig) -> Any:
    """A boto3 client. ConfigError: `CREDENTIALS_MISSING`, `PROFILE_UNKNOWN`, `STORE_ADDRESS_INVALID`."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    settings = Config(
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        connect_timeout=10,
        read_timeout=60,
        tcp_keepalive=True,
    )
    access_key, secret_key = credentials(config)
    try:
        session = boto3.session.Session(profile_name=config.profile)
        return session.client(
            "s3",
            region_name=region_of(config),
            endpoint_url=config.endpoint,
            config=settings,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
        )
    except ProfileNotFound:
        raise ConfigError(
            "PROFILE_UNKNOWN", f"There is no AWS profile {config.profile!r}.", "Correct stores.*.profile."
        ) from None
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(
            "STORE_ADDRESS_INVALID",
            f"No client for s3://{config.bucket} can be made: {error}.",
            "Correct region and endpoint in backup.yaml.",
        ) from None
