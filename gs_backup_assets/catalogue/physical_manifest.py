"""The manifest of a base backup: a whole cluster's files, where its WAL begins and ends, and what it is based on."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.catalogue.manifest import BackupManifest
from gs_backup_assets.postgres.release import Release


class Tablespace(BaseModel):
    """A tablespace outside the data directory: its OID, where it was, and its tar file in the backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    oid: int
    location: str
    file: str


class Collation(BaseModel):
    """A database's collation as the operating system had it: on a machine with another version text indexes lie."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: str
    provider: str
    locale: str
    version: str | None


class PhysicalManifest(BackupManifest):
    """A base backup, full or incremental.

    Recovery from it begins at `start_lsn` and is consistent from `stop_lsn` on, which lies on `timeline` and was
    reached at `consistent_at` by the server's clock. `base` is the id of the backup that an incremental one adds to.
    The files are pg_basebackup's own: `base/base.tar.zst`, a tar for each tablespace, the WAL between start and stop,
    and PostgreSQL's `backup_manifest` with a SHA-256 of each file of the cluster. Sizes in bytes: `cluster_bytes` is
    that of the cluster, `unpacked_bytes` that of the files in this backup, which of an incremental one are smaller.
    """

    kind: Literal["physical"] = "physical"
    system_identifier: str
    timeline: int
    start_lsn: str
    stop_lsn: str
    started_at: datetime
    consistent_at: datetime
    base: str | None = None
    programs: str
    compression: str
    cluster_bytes: int
    unpacked_bytes: int
    wal_segment_bytes: int
    data_checksums: bool
    tablespaces: tuple[Tablespace, ...] = ()
    collations: tuple[Collation, ...] = ()

    @property
    def source_bytes(self) -> int:
        return self.cluster_bytes

    @property
    def needs(self) -> str | None:
        return self.base

    @property
    def release(self) -> Release:
        """The server's release: only programs of the same major can use the backup."""
        return Release.parse(self.server.release)
