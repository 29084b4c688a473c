"""Dagster resources: the stores of a database, reached with sessions of dagster-aws."""

from typing import Any

import dagster as dg

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import S3StoreConfig
from gs_backup_assets.vault.opening import Vault, open_vault


class VaultResource(dg.ConfigurableResource[Any]):
    """Opens the stores that backup.yaml names. Only a step that uses S3 imports boto3 and dagster-aws."""

    def open(self, settings: DatabaseSettings) -> Vault:
        """The stores of a database; opens no connection."""
        return open_vault(settings, client=_client)


def _client(config: S3StoreConfig) -> Any:
    from dagster_aws.s3 import S3Resource

    from gs_backup_assets.vault.s3_client import ATTEMPTS, credentials, region_of

    access_key, secret_key = credentials(config)
    session = S3Resource(
        region_name=region_of(config),
        endpoint_url=config.endpoint,
        profile_name=config.profile,
        max_attempts=ATTEMPTS - 1,  # botocore counts the repetitions
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )
    return session.get_client()
