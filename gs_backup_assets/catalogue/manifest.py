"""The manifest: what a backup is, written once as its last object, and unreadable if a single byte of it changes."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timezone
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from gs_backup_assets.catalogue.sealed import seal, unseal
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.database import DatabaseFacts
from gs_backup_assets.postgres.fingerprint import Fingerprint
from gs_backup_assets.postgres.inventory import Omission
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.roles import Role
from gs_backup_assets.postgres.schema import SchemaObject
from gs_backup_assets.postgres.settings import Setting
from gs_backup_assets.vault.digests import Digests, Parts
from gs_backup_assets.vault.encryption import SUFFIX
from gs_backup_assets.vault.store import MANIFEST

SCHEMA_VERSION = 2
NAME = MANIFEST
_READABLE_VERSIONS = (1, 2)  # 1 knew neither encryption nor parts
SUMS = "SHA256SUMS"
# What lies beside the files of a backup, and comes and goes after the manifest was written.
_ID = re.compile(r"\d{8}T\d{6}Z")
PROOFS, KEYS, HOLD = "proofs", "keys", "hold.json"
UNKNOWN_VERSION = "MANIFEST_UNKNOWN_VERSION"
STAGES = ("dump", "fingerprint", "base backup", "store")
Kind = Literal["logical", "physical"]
KINDS: tuple[Kind, ...] = ("logical", "physical")
# Folders of a backup with the files themselves, which say nothing about it.
BULK = ("dump", "base")
M = TypeVar("M", bound="BackupManifest")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Envelope(_Record):
    """The encrypted form of a file, as it rests: size in bytes, SHA-256, and parts where a store keeps it in parts."""

    size: int
    sha256: str
    parts: Parts | None = None


class StoredFile(_Record):
    """A file of the backup: path relative to the backup's folder, size in bytes, SHA-256.

    With an `envelope` that is what rests in the store, under the path with `.enc` behind it, and `size` and `sha256`
    are those of the file that comes out of it.
    """

    path: str
    size: int
    sha256: str
    parts: Parts | None = None
    envelope: Envelope | None = None

    @property
    def stored_path(self) -> str:
        """The path of what rests in the store."""
        return f"{self.path}{SUFFIX}" if self.envelope else self.path

    @property
    def stored(self) -> Digests:
        """Size and digests of what rests in the store."""
        form = self.envelope or self
        return Digests(form.size, form.sha256, form.parts)

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        # What is fetched is written under this path: a manifest that somebody made up must not choose the place.
        plain = value and "\0" not in value and "\n" not in value and not value.startswith("/")
        if not plain or not all(part not in ("", ".", "..") for part in value.split("/")):
            raise ValueError("a path below the backup's folder")
        return value


class ServerRecord(_Record):
    """The server that the backup was taken from."""

    release: str
    system_identifier: str | None
    in_recovery: bool
    lsn: str | None


class DumpRecord(_Record):
    """How the dump was made. `programs` is the release of pg_dump."""

    programs: str
    compression: str
    jobs: int
    role_passwords: bool

    @property
    def release(self) -> Release:
        return Release.parse(self.programs)


class EncryptionRecord(_Record):
    """How files are encrypted. Ids name keys: `key_id` the master key of the day, `data_key_id` the backup's own."""

    scheme: Literal["aws-encryption-sdk"] = "aws-encryption-sdk"
    algorithm: str
    frame_bytes: int
    key_id: str
    data_key_id: str


class BackupManifest(_Record):
    """What every kind of backup says of itself. Times are aware, in UTC; `partition` is a day, or a week's Sunday."""

    schema_version: Literal[1, 2] = 2
    id: str
    database: str
    kind: Kind
    partition: str
    timezone: str
    software: str
    finished_at: datetime
    server: ServerRecord
    files: tuple[StoredFile, ...]
    encryption: EncryptionRecord | None = None
    warnings: tuple[str, ...]
    stage_seconds: dict[str, float]

    @property
    def stages(self) -> tuple[tuple[str, float], ...]:
        """Seconds of each stage of the backup, in the order of the work."""
        return tuple((name, self.stage_seconds[name]) for name in STAGES if name in self.stage_seconds)

    @property
    def stored_bytes(self) -> int:
        return sum(file.stored.size for file in self.files)

    @property
    def source_bytes(self) -> int:
        """Size of what was backed up, in bytes, as it was in the source."""
        raise NotImplementedError

    @property
    def needs(self) -> str | None:
        """The id of the backup without which this one cannot be restored."""
        return None

    @property
    def folder(self) -> str:
        """The backup's folder in the store."""
        return backup_folder(self.database, self.partition, self.id, self.kind)


class Manifest(BackupManifest):
    """A logical backup: everything that a prover needs to know, so that it never has to ask the source."""

    kind: Literal["logical"] = "logical"
    snapshot_at: datetime
    source: DatabaseFacts
    dump: DumpRecord
    fingerprint: Fingerprint
    schema_objects: tuple[SchemaObject, ...]
    roles: tuple[Role, ...] = ()
    omissions: tuple[Omission, ...]

    @property
    def source_bytes(self) -> int:
        return self.source.total_bytes

    @property
    def shown(self) -> Manifest:
        """The same without the values of settings, which manifests from before `settings.sql` have."""
        prints = tuple(s.print if isinstance(s, Setting) else s for s in self.source.settings)
        return self.model_copy(update={"source": self.source.model_copy(update={"settings": prints})})


def backup_folder(database: str, partition: str, backup_id: str, kind: Kind = "logical") -> str:
    """`<database>/<kind>/<partition>/<backup id>`."""
    return f"{database}/{kind}/{partition}/{backup_id}"


def backup_id(moment: datetime) -> str:
    """`20261122T080003Z`: the moment in UTC, to the second; sorts by time."""
    return moment.strftime("%Y%m%dT%H%M%SZ")


def parse_id(backup_id: str) -> datetime:
    """The moment that a backup id names; ValueError for what is none."""
    if not _ID.fullmatch(backup_id):
        raise ValueError(f"{backup_id!r} is no backup id")
    # Not strptime, which takes half of the time of a listing of thousands.
    year, month, day = int(backup_id[:4]), int(backup_id[4:6]), int(backup_id[6:8])
    hour, minute, second = int(backup_id[9:11]), int(backup_id[11:13]), int(backup_id[13:15])
    return datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)


def encode(manifest: BackupManifest) -> bytes:
    """Canonical JSON with a digest of its own contents in it."""
    return seal("manifest", manifest.model_dump(mode="json"))


def decode(data: bytes, *, folder: str) -> Manifest:
    """Read the manifest of a logical backup that lies in `folder`; errors as for `decode_as`."""
    return decode_as(Manifest, data, folder=folder)


def decode_as(model: type[M], data: bytes, *, folder: str) -> M:
    """Read a manifest of one kind that lies in `folder`.

    Raises StoreError: `MANIFEST_DAMAGED` when any byte differs from what was written, `MANIFEST_UNKNOWN_VERSION`
    when a newer release of this software wrote it, `MANIFEST_MISPLACED` when it belongs to another folder.
    """
    damaged = StoreError(
        "MANIFEST_DAMAGED",
        f"The manifest in {folder} is not what was written.",
        "Use another backup, or another copy of this one; `gs-backup list` shows them.",
    )
    try:
        contents = unseal("manifest", data)
        version = contents["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise damaged from None
    if version not in _READABLE_VERSIONS:
        raise StoreError(
            UNKNOWN_VERSION,
            f"The manifest in {folder} has version {version}.",
            "Use the release of this software that wrote it.",
        )
    try:
        manifest = model.model_validate(contents)
    except ValidationError:
        raise damaged from None
    if manifest.folder != folder:
        raise StoreError(
            "MANIFEST_MISPLACED",
            f"The manifest in {folder} belongs to {manifest.folder}.",
            "Somebody moved or copied it; put it back, or use another backup.",
        )
    return manifest


def sha256sums(manifest: BackupManifest, manifest_bytes: bytes) -> bytes:
    """The lines of `SHA256SUMS` for `sha256sum -c`, the manifest included: what rests in the store, envelopes too."""
    lines = {file.stored_path: file.stored.sha256 for file in manifest.files}
    lines[NAME] = hashlib.sha256(manifest_bytes).hexdigest()
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(lines.items())).encode()
