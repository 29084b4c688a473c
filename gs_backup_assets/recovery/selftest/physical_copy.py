"""A copy of base backups and archived log that is made to be broken: its files can be forged with their digests."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.catalogue import PhysicalCatalogue, PhysicalEntry
from gs_backup_assets.catalogue.chains import chain_of
from gs_backup_assets.catalogue.manifest import Envelope, StoredFile
from gs_backup_assets.catalogue.physical_manifest import PhysicalManifest
from gs_backup_assets.catalogue.wal_archive import Archived, WalArchive, timeline_identity
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.wal import Lsn, Segment, history_name
from gs_backup_assets.recovery.physical.unpacking import FOLDER, SERVER_MANIFEST
from gs_backup_assets.recovery.selftest.breakages_in_vault import replace
from gs_backup_assets.recovery.stored.checked_reading import CheckedReading
from gs_backup_assets.recovery.stored.keyring import find_cipher, open_cipher
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.vault.compression import compress, decompress
from gs_backup_assets.vault.encryption import BackupCipher
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.opening import Vault
from gs_backup_assets.vault.store import Source

CLUSTER_TAR = f"{FOLDER}/base.tar.zst"
WAL_TAR = f"{FOLDER}/pg_wal.tar.zst"
_TAR_BLOCK = 512


@dataclass(frozen=True)
class Landmarks:
    """What is known of the bench's log. Files are paths of relations, transactions numbers.

    The log of timeline 1 goes on behind the newest base backup in `first`, whole segments with one commit each, whose
    ends are in `committed`. Timeline 2 left it there; its log is in `second`, the last one an unfinished segment, up to
    `end`. `looked_at` is when the stream saw that all of it was archived. `committed_early` were committed before the
    newest base backup, `committed_late` began before the restore point `point` and was committed behind it.
    """

    system_identifier: str
    segment_bytes: int
    first: tuple[Segment, ...]
    committed: tuple[Lsn, ...]
    second: tuple[Segment, ...]
    end: Lsn
    looked_at: datetime
    point: str
    committed_early: tuple[int, ...]
    committed_late: int
    quiet_file: str
    zeroed_file: str
    index_file: str


@dataclass(frozen=True)
class PhysicalCopy:
    """A folder with a key, an encrypted store and its off-site copy.

    `chain` are the ids of a full backup and those that add to it, `newest` that of a full one behind them. Files may be
    hard links, so they are replaced, never written in place.
    """

    folder: Path
    settings: DatabaseSettings
    chain: tuple[str, ...]
    newest: str
    log: Landmarks

    @property
    def primary(self) -> LocalStore:
        return LocalStore(self.folder / "primary")

    @property
    def offsite(self) -> LocalStore:
        return LocalStore(self.folder / "offsite")

    @property
    def vault(self) -> Vault:
        """What is looked at. The off-site store is only compared with: what is broken here is not mended from there."""
        return Vault(self.primary, None)

    def entries(self) -> list[PhysicalEntry]:
        return PhysicalCatalogue(self.primary, self.settings.name).entries()

    def entry(self, backup_id: str) -> PhysicalEntry:
        return next(entry for entry in self.entries() if entry.id == backup_id)

    def whole_chain(self, backup_id: str) -> tuple[PhysicalEntry, ...]:
        entries = self.entries()
        return chain_of(entries, next(entry for entry in entries if entry.id == backup_id))

    # Base backups.

    def manifest(self, backup_id: str) -> PhysicalManifest:
        return self.entry(backup_id).require_manifest()

    def path(self, backup_id: str, name: str) -> Path:
        """A file of a backup, as it rests, or its manifest."""
        manifest = self.manifest(backup_id)
        stored = next((file.stored_path for file in manifest.files if file.path == name), name)
        return self.primary.root / manifest.folder / stored

    def put_manifest(self, manifest: PhysicalManifest) -> None:
        """Write a manifest anew, with a digest of itself that is right."""
        replace(self.primary.root / manifest.folder / manifests.NAME, manifests.encode(manifest))

    def envelope_as_it_is(self, backup_id: str, name: str) -> None:
        """Make the manifest say of a file what rests there."""
        data = self.path(backup_id, name).read_bytes()
        envelope = Envelope(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        self._change_file(backup_id, name, lambda file: file.model_copy(update={"envelope": envelope}))

    def contents(self, backup_id: str, name: str) -> bytes:
        """A file of a backup, decrypted."""
        manifest = self.manifest(backup_id)
        sink = BytesIO()
        file = next(file for file in manifest.files if file.path == name)
        CheckedReading.of(self.settings, self.primary, manifest).read(file, lambda source: sink.write(_all(source)))
        return sink.getvalue()

    def put_contents(self, backup_id: str, name: str, data: bytes) -> None:
        """Other contents for a file of a backup, encrypted with its key; the manifest says the same."""
        manifest = self.manifest(backup_id)
        cipher = find_cipher(self.primary, manifest, self.settings.encryption, self.settings.folder)
        sealed = _sealed(cipher, data, name)
        made = StoredFile(
            path=name,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            envelope=Envelope(size=len(sealed), sha256=hashlib.sha256(sealed).hexdigest()),
        )
        replace(self.path(backup_id, name), sealed)
        self._change_file(backup_id, name, lambda _file: made)

    def forget(self, backup_id: str, name: str) -> None:
        """Remove a file of a backup, and what its manifest says of it."""
        self.path(backup_id, name).unlink()
        manifest = self.manifest(backup_id)
        files = tuple(file for file in manifest.files if file.path != name)
        self.put_manifest(manifest.model_copy(update={"files": files}))

    def change_cluster(self, backup_id: str, name: str, change: Callable[[bytes], bytes], *, seal: bool = True) -> None:
        """Change one of the cluster's files, keeping its size; with `seal` backup_manifest says the same."""
        tar = decompress(self.contents(backup_id, CLUSTER_TAR), CLUSTER_TAR)
        member = member_of(tar, name)
        before = tar[member.offset_data : member.offset_data + member.size]
        after = change(before)
        assert len(after) == len(before) and after != before
        tar = tar[: member.offset_data] + after + tar[member.offset_data + member.size :]
        self.put_contents(backup_id, CLUSTER_TAR, compress(tar))
        if seal:
            entry = rb'("Path": "%s",[^\n]*"Checksum": ")[0-9a-f]+"' % re.escape(name.encode())
            digest = hashlib.sha256(after).hexdigest().encode()
            self.change_server_manifest(backup_id, lambda text: re.sub(entry, rb'\g<1>%s"' % digest, text))

    def change_server_manifest(self, backup_id: str, change: Callable[[bytes], bytes]) -> None:
        """Change PostgreSQL's backup_manifest, whose last line is a digest of the others."""
        text = self.contents(backup_id, SERVER_MANIFEST)
        lines = change(text[: text.rindex(b'"Manifest-Checksum"')])
        digest = hashlib.sha256(lines).hexdigest()
        self.put_contents(backup_id, SERVER_MANIFEST, lines + f'"Manifest-Checksum": "{digest}"}}\n'.encode())

    def _change_file(self, backup_id: str, name: str, change: Callable[[StoredFile], StoredFile]) -> None:
        manifest = self.manifest(backup_id)
        files = tuple(change(file) if file.path == name else file for file in manifest.files)
        self.put_manifest(manifest.model_copy(update={"files": files}))

    # The log.

    def archive(self) -> WalArchive:
        return open_archive(
            self.settings, self.primary, self.log.system_identifier, segment_bytes=self.log.segment_bytes
        )

    def archived(self, segment: Segment) -> Archived:
        """What is archived of a segment."""
        found = self.archive().find(segment)
        assert found is not None
        return found

    def wal_path(self, segment: Segment) -> Path:
        """Where a segment, or the part of it that there is, rests."""
        return self.primary.root / self.archived(segment).key

    def history_path(self) -> Path:
        """Where the history of timeline 2 rests."""
        (path,) = (self.primary.root / self.archive().timeline_folder(2)).glob(f"{history_name(2)}*")
        return path

    def wal(self, segment: Segment) -> bytes:
        return self.archive().read(self.archived(segment))

    def put_wal(self, segment: Segment, data: bytes) -> None:
        """Other bytes for a segment, compressed and encrypted as if they were its own."""
        self._put_log(self.wal_path(segment), segment.timeline, compress(data))

    def put_history(self, data: bytes) -> None:
        """Other bytes for the history of timeline 2, encrypted as if they were its own."""
        self._put_log(self.history_path(), 2, data)

    def _put_log(self, path: Path, timeline: int, data: bytes) -> None:
        name, system = self.settings.name, self.log.system_identifier
        identity = timeline_identity(name, system, timeline)
        place = self.archive().timeline_folder(timeline)
        cipher = open_cipher(self.primary, place, identity, self.settings.encryption, self.settings.folder)
        replace(path, _sealed(cipher, data, path.name.removesuffix(".enc")))


def member_of(tar: bytes, name: str) -> tarfile.TarInfo:
    """Where a file lies in an archive."""
    with tarfile.open(fileobj=BytesIO(tar)) as opened:
        return opened.getmember(name)


def without(tar: bytes, name: str) -> bytes:
    """An archive without one of its files."""
    member = member_of(tar, name)
    behind = member.offset_data + (member.size + _TAR_BLOCK - 1) // _TAR_BLOCK * _TAR_BLOCK
    return tar[: member.offset] + tar[behind:]


def _sealed(cipher: BackupCipher | None, data: bytes, name: str) -> bytes:
    assert cipher is not None
    return _all(cipher.encrypting(BytesIO(data), name))


def _all(source: Source) -> bytes:
    pieces = []
    while piece := source.read(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)
