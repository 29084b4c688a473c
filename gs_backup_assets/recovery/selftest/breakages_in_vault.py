"""Ways in which keys, envelopes, off-site copies and the audit log can be broken, each with the codes that name it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.catalogue import manifest as manifests
from gs_backup_assets.catalogue.audit_check import check_audit
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import KEYS, NAME, SUMS, Envelope, Manifest, StoredFile
from gs_backup_assets.catalogue.verdict import CheckResult
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import RawEncryption
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.offsite_check import compare_copy
from gs_backup_assets.recovery.selftest.breakages_in_audit import AUDIT
from gs_backup_assets.recovery.stored.stored_bytes import fetch
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.local import LocalStore


@dataclass(frozen=True)
class VaultCopy:
    """A folder of its own with an encrypted store, its off-site copy and its audit log, made to be broken.

    The newer backup is looked at. Files may be hard links, so they are replaced, never written in place.
    """

    folder: Path
    settings: DatabaseSettings
    newer: Manifest
    older: Manifest

    @property
    def primary(self) -> LocalStore:
        return LocalStore(self.folder / "primary")

    @property
    def offsite(self) -> LocalStore:
        return LocalStore(self.folder / "offsite")

    def largest(self) -> StoredFile:
        return max(self.newer.files, key=lambda file: (file.size, file.path))

    def path(self, manifest: Manifest, name: str) -> Path:
        """A file of a backup in the primary store."""
        return self.primary.root / manifest.folder / name

    def offsite_path(self, name: str) -> Path:
        """A file of the newer backup's off-site copy."""
        return self.offsite.root / self.newer.folder / name

    def reseal(self, manifest: Manifest | None = None) -> None:
        """Write manifest and checksums anew for the envelopes as they are: no checksum finds what is wrong then."""
        files = []
        for file in (manifest or self.newer).files:
            data = self.path(self.newer, file.stored_path).read_bytes()
            envelope = Envelope(size=len(data), sha256=hashlib.sha256(data).hexdigest())
            files.append(file.model_copy(update={"envelope": envelope}))
        made = (manifest or self.newer).model_copy(update={"files": tuple(files)})
        encoded = manifests.encode(made)
        replace(self.path(self.newer, NAME), encoded)
        replace(self.path(self.newer, SUMS), manifests.sha256sums(made, encoded))


@dataclass(frozen=True)
class VaultBreakage:
    """One way to break something of the vault. It is caught when `look`, after `apply`, names one of `expected`."""

    name: str
    title: str
    expected: tuple[str, ...]
    apply: Callable[[VaultCopy], None]
    look: Callable[[VaultCopy], CheckResult]


def replace(path: Path, data: bytes) -> None:
    """Put other bytes in the place of a file."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    data = path.read_bytes()
    middle = len(data) // 2
    replace(path, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


def _fetched(copy: VaultCopy) -> CheckResult:
    """What a proof sees of the stored bytes: read, compared, decrypted."""
    entry = Catalogue(copy.primary, copy.settings.name).find(copy.newer.id)
    into = copy.folder / "fetched"
    into.mkdir(mode=0o700)
    with Progress().stage("fetch") as stage:
        return fetch(copy.primary, entry, stage, into, copy.settings)


def _compared(copy: VaultCopy) -> CheckResult:
    entry = Catalogue(copy.primary, copy.settings.name).find(copy.newer.id)
    with Progress().stage("compare") as stage:
        return compare_copy(copy.primary, copy.offsite, entry, stage, read_back=False)


def _audited(copy: VaultCopy) -> CheckResult:
    return check_audit(copy.primary, copy.settings.name)


def give_another_key(settings: DatabaseSettings) -> None:
    """Put another key where the self-test's key lies."""
    replace(key_file(settings), f"{new_raw_key()}\n".encode())
    key_file(settings).chmod(0o600)


def _another_key(copy: VaultCopy) -> None:
    give_another_key(copy.settings)


def _no_key(copy: VaultCopy) -> None:
    key_file(copy.settings).unlink()


def key_file(settings: DatabaseSettings) -> Path:
    """Where the self-test's key lies."""
    assert isinstance(settings.encryption, RawEncryption) and settings.encryption.key_file is not None
    return settings.folder / settings.encryption.key_file


def _envelope_flipped(copy: VaultCopy) -> None:
    flip(copy.path(copy.newer, copy.largest().stored_path))
    copy.reseal()


def _envelope_cut(copy: VaultCopy) -> None:
    path = copy.path(copy.newer, copy.largest().stored_path)
    replace(path, path.read_bytes()[:-100])
    copy.reseal()


def _envelope_of_another_backup(copy: VaultCopy) -> None:
    name = copy.largest().stored_path
    replace(copy.path(copy.newer, name), copy.path(copy.older, name).read_bytes())
    copy.reseal()


def _envelopes_exchanged(copy: VaultCopy) -> None:
    one, other = sorted(copy.newer.files, key=lambda file: file.size)[-2:]
    paths = [copy.path(copy.newer, file.stored_path) for file in (one, other)]
    first, second = (path.read_bytes() for path in paths)
    replace(paths[0], second)
    replace(paths[1], first)
    copy.reseal()


def _encryption_forgotten(copy: VaultCopy) -> None:
    copy.reseal(copy.newer.model_copy(update={"encryption": None}))


def _wrapped_key_removed(copy: VaultCopy) -> None:
    shutil.rmtree(copy.path(copy.newer, KEYS))


def _wrapped_key_flipped(copy: VaultCopy) -> None:
    (path,) = copy.path(copy.newer, KEYS).iterdir()
    flip(path)


def _wrapped_key_of_another_backup(copy: VaultCopy) -> None:
    (path,) = copy.path(copy.newer, KEYS).iterdir()
    replace(path, copy.path(copy.older, f"{KEYS}/{path.name}").read_bytes())


def _offsite_removed(copy: VaultCopy) -> None:
    copy.offsite_path(copy.largest().stored_path).unlink()


def _offsite_flipped(copy: VaultCopy) -> None:
    flip(copy.offsite_path(copy.largest().stored_path))


def _offsite_cut(copy: VaultCopy) -> None:
    path = copy.offsite_path(copy.largest().stored_path)
    replace(path, path.read_bytes()[:-1])


def _offsite_manifest_gone(copy: VaultCopy) -> None:
    copy.offsite_path(NAME).unlink()


def _offsite_manifest_of_another(copy: VaultCopy) -> None:
    replace(copy.offsite_path(NAME), copy.path(copy.older, NAME).read_bytes())


def _offsite_stranger(copy: VaultCopy) -> None:
    copy.offsite_path("dump/9999.dat.enc").write_bytes(b"stranger")


def _in_the_log(apply: Callable[[Path, str], None]) -> Callable[[VaultCopy], None]:
    return lambda copy: apply(copy.primary.root, copy.settings.name)


_PROOF = (
    VaultBreakage("key_wrong", "the key that is given is another one", ("KEY_WRONG",), _another_key, _fetched),
    VaultBreakage("key_missing", "the key is not where it should be", ("KEY_MISSING",), _no_key, _fetched),
    VaultBreakage(
        "envelope_flipped",
        "a bit of an envelope was flipped, digests made right",
        ("ENVELOPE_DAMAGED",),
        _envelope_flipped,
        _fetched,
    ),
    VaultBreakage(
        "envelope_cut",
        "the end of an envelope is missing, digests made right",
        ("ENVELOPE_DAMAGED",),
        _envelope_cut,
        _fetched,
    ),
    VaultBreakage(
        "envelope_of_another_backup",
        "an envelope is that of another backup, digests made right",
        ("ENVELOPE_MISPLACED",),
        _envelope_of_another_backup,
        _fetched,
    ),
    VaultBreakage(
        "envelopes_exchanged",
        "two envelopes were exchanged, digests made right",
        ("ENVELOPE_MISPLACED",),
        _envelopes_exchanged,
        _fetched,
    ),
    VaultBreakage(
        "encryption_forgotten",
        "the manifest says nothing of the encryption any more",
        ("FILE_DIFFERS",),
        _encryption_forgotten,
        _fetched,
    ),
    VaultBreakage(
        "wrapped_key_removed",
        "the backup's wrapped key is gone",
        ("DATA_KEY_MISSING",),
        _wrapped_key_removed,
        _fetched,
    ),
    VaultBreakage(
        "wrapped_key_flipped",
        "a bit of the wrapped key was flipped",
        ("ENVELOPE_DAMAGED",),
        _wrapped_key_flipped,
        _fetched,
    ),
    VaultBreakage(
        "wrapped_key_of_another_backup",
        "the wrapped key is that of another backup",
        ("ENVELOPE_MISPLACED",),
        _wrapped_key_of_another_backup,
        _fetched,
    ),
)
_COPY = (
    VaultBreakage("offsite_removed", "an off-site object is gone", ("OFFSITE_MISSING",), _offsite_removed, _compared),
    VaultBreakage(
        "offsite_flipped", "a bit of an off-site object was flipped", ("OFFSITE_DIFFERS",), _offsite_flipped, _compared
    ),
    VaultBreakage("offsite_cut", "an off-site object lost a byte", ("OFFSITE_DIFFERS",), _offsite_cut, _compared),
    VaultBreakage(
        "offsite_manifest_gone", "the copy has no manifest", ("OFFSITE_MISSING",), _offsite_manifest_gone, _compared
    ),
    VaultBreakage(
        "offsite_manifest_differs",
        "the copy has another backup's manifest",
        ("OFFSITE_MANIFEST_DIFFERS",),
        _offsite_manifest_of_another,
        _compared,
    ),
    VaultBreakage(
        "offsite_stranger", "an object was added off-site", ("FILE_UNEXPECTED",), _offsite_stranger, _compared
    ),
)
VAULT: tuple[VaultBreakage, ...] = (
    *_PROOF,
    *_COPY,
    *(VaultBreakage(b.name, b.title, (b.expected,), _in_the_log(b.apply), _audited) for b in AUDIT),
)
SOUND_LOOKS = (_fetched, _compared, _audited)
