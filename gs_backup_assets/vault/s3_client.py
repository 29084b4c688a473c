"""Makes the boto3 client for a bucket from its configuration; the only place that reads its credentials."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.errors import ConfigError

# A client takes a tenth of a second of the processor to make: hundreds of databases share one. It is made anew after
# some minutes, so that credentials in files that have changed are read.
_SHARED_SECONDS = 300.0
# As many connections as threads that may use one client at a time, those of several databases together.
_CONNECTIONS = 64
_MAKING = threading.Lock()
Keys = tuple[str | None, str | None]

# Throttling and 5xx answers are repeated by botocore, with pauses that grow ("Retries", boto3 documentation).
ATTEMPTS = 6


def credentials(config: S3StoreConfig) -> Keys:
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
    """A boto3 client of one's own. ConfigError: `CREDENTIALS_MISSING`, `PROFILE_UNKNOWN`, `STORE_ADDRESS_INVALID`."""
    return _made(config, lambda: _client(config.profile, region_of(config), config.endpoint, credentials(config)))


def shared_client(config: S3StoreConfig) -> Any:
    """The client of all who have the same place and the same credentials: threads may use one. Errors as above."""
    surroundings = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    while_same = (surroundings, int(time.monotonic() // _SHARED_SECONDS))
    with _MAKING:  # of many threads that ask at once, one makes it
        return _made(
            config,
            lambda: _shared(config.profile, region_of(config), config.endpoint, credentials(config), while_same),
        )


def _made(config: S3StoreConfig, make: Callable[[], Any]) -> Any:
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    try:
        return make()
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


@lru_cache(maxsize=8)
def _shared(profile: str | None, region: str | None, endpoint: str | None, keys: Keys, _while_same: object) -> Any:
    return _client(profile, region, endpoint, keys)


def _client(profile: str | None, region: str | None, endpoint: str | None, keys: Keys) -> Any:
    import boto3
    from botocore.config import Config

    settings = Config(
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        connect_timeout=10,
        read_timeout=60,
        tcp_keepalive=True,
        max_pool_connections=_CONNECTIONS,
    )
    return boto3.session.Session(profile_name=profile).client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        config=settings,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
    )
