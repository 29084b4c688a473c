"""Records of named restore points: where each lies in the log, and what the database held at that very position.

<database>/wal/<system identifier>/points/<name>.json
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, field_validator

from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.sealed import seal, unseal
from gs_backup_assets.catalogue.wal_archive import archive_folder, archived_clusters
from gs_backup_assets.errors import BackupError, ConfigError, StoreError
from gs_backup_assets.postgres.fingerprint import Fingerprint
from gs_backup_assets.postgres.schema import SchemaObject
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.vault.store import Store, keys

POINTS = "points"
# PostgreSQL takes any name of at most 63 bytes; these are also names of files and objects everywhere.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class RestorePointRecord(BaseModel):
    """A restore point. `lsn` is the end of its record, before which everything is that belongs to it.

    `at` is the server's clock, aware. `source_database` is the name that the database has on its server.
    `fingerprint` and `schema_objects` are of exactly what was committed before `lsn`; without a fingerprint
    `reason` says why there is none. On a busy server the log may have the name several times: `lsn` counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    database: str
    source_database: str
    system_identifier: str
    timeline: int
    lsn: str
    at: AwareDatetime
    server: str
    programs: str | None = None
    fingerprint: Fingerprint | None = None
    schema_objects: tuple[SchemaObject, ...] = ()
    reason: str | None = None

    @field_validator("lsn")
    @classmethod
    def _position(cls, value: str) -> str:
        return str(Lsn.parse(value))


def require_name(name: str) -> None:
    """ConfigError (`POINT_NAME_INVALID`) for what is no name, or would be taken for another target of a recovery."""
    try:
        fits = _NAME.fullmatch(name) is not None and RecoveryTarget.parse(name).kind == "name"
    except BackupError:  # a time without its zone
        fits = False
    if not fits:
        raise ConfigError(
            "POINT_NAME_INVALID",
            f"{name!r} is no name for a restore point.",
            "Use up to 63 letters, digits, dots, hyphens and underscores, and nothing that reads as a time.",
        )


def point_key(database: str, system_identifier: str, name: str) -> str:
    """Where a record lies."""
    return f"{archive_folder(database, system_identifier)}/{POINTS}/{name}.json"


def put_point(store: Store, record: RestorePointRecord) -> None:
    """Store a record; ConfigError (`POINT_EXISTS`) when there is one of this name, and what the store raises."""
    key = point_key(record.database, record.system_identifier, record.name)
    try:
        store.put_bytes(seal("restore_point", record.model_dump(mode="json")), key)
    except StoreError as error:
        if error.code != "OBJECT_EXISTS":
            raise
        raise point_exists(record.name) from None


def read_point(store: Store, database: str, system_identifier: str, name: str) -> RestorePointRecord | None:
    """The record of a name; None when there is none. StoreError (`POINT_DAMAGED`)."""
    key = point_key(database, system_identifier, name)
    if not store.exists(key):
        return None
    with store.open(key) as stream:
        data = stream.read()
    try:
        return RestorePointRecord.model_validate(unseal("restore_point", data))
    except ValueError:  # pydantic's ValidationError is one
        raise StoreError(
            "POINT_DAMAGED",
            f"{key} is not the record of a restore point.",
            "Read the record from the other store, or recover to a time: the log itself still has the point.",
        ) from None


def find_point(store: Store, database: str, name: str) -> RestorePointRecord | None:
    """The newest record of a name, of whatever cluster; None when there is none. StoreError (`POINT_DAMAGED`)."""
    clusters = archived_clusters(store, database)
    found = [record for cluster in clusters if (record := read_point(store, database, cluster, name)) is not None]
    return max(found, key=lambda record: record.at, default=None)


def recorded_target(store: Store, database: str, target: RecoveryTarget) -> RecoveryTarget:
    """The position of a restore point that is on record, in place of its name; any other target as it is.

    On a busy server the log has the name several times, and only one of them is what was fingerprinted.
    """
    record = find_point(store, database, target.name) if target.name is not None else None
    if record is None:
        return target
    return RecoveryTarget(lsn=Lsn.parse(record.lsn), timeline=target.timeline, inclusive=False)


def point_names(store: Store, database: str, system_identifier: str) -> list[str]:
    """Names of the restore points of a cluster, sorted."""
    folder = f"{archive_folder(database, system_identifier)}/{POINTS}"
    return [key.rpartition("/")[2].removesuffix(".json") for key in keys(store, folder) if key.endswith(".json")]


def point_exists(name: str) -> ConfigError:
    """The error of a name that is taken."""
    return ConfigError(
        "POINT_EXISTS",
        f"There is a restore point {name} already.",
        "Choose another name: a recovery to a name has to find one point.",
    )
