"""The keys of backups: a new data key for a new one, the right master key for an old one, and wrapping it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gs_backup_assets.catalogue.manifest import KEYS, EncryptionRecord, Manifest
from gs_backup_assets.config_sections import Encryption, KeyConfig, KmsEncryption, KmsKeyConfig, RawEncryption
from gs_backup_assets.errors import BackupError, ConfigError, NotVerifiable, StoreError
from gs_backup_assets.vault.encryption import ALGORITHM, FRAME_BYTES, SUFFIX, BackupCipher, Identity
from gs_backup_assets.vault.keys import MasterKey, RawKey, fingerprint, load_key
from gs_backup_assets.vault.store import Store, keys

DEFAULT_KEY_VARIABLE = "GS_BACKUP_KEY"


def wrapped_key_name(master: MasterKey) -> str:
    """`keys/<16 hex digits>.enc`: the path, in a backup's folder, of its data key wrapped by a master key."""
    return f"{KEYS}/{master.id if isinstance(master, RawKey) else fingerprint(master.id.encode())}{SUFFIX}"


def current_key(encryption: Encryption, folder: Path) -> MasterKey:
    """The master key for new backups; errors as for `load_key`."""
    return load_key(encryption, folder)


def new_cipher(master: MasterKey, database: str, backup_id: str) -> tuple[BackupCipher, EncryptionRecord]:
    """A cipher with a data key of its own for a new backup, and what the manifest says about it."""
    cipher = BackupCipher.new(Identity(database, backup_id))
    record = EncryptionRecord(
        algorithm=ALGORITHM, frame_bytes=FRAME_BYTES, key_id=master.id, data_key_id=cipher.data_key_id
    )
    return cipher, record


def store_wrapped(store: Store, folder: str, cipher: BackupCipher, master: MasterKey) -> str:
    """Put the data key, wrapped by a master key, beside the backup; returns its path in the backup's folder."""
    name = wrapped_key_name(master)
    # Not locked: when a key is to be taken out of use, what it wrapped must go.
    store.put_bytes(cipher.wrapped_by(master), f"{folder}/{name}", locked=False)
    return name


def wrapped_names(store: Store, folder: str) -> tuple[str, ...]:
    """The paths of a backup's wrapped data keys, in its folder."""
    return tuple(key.removeprefix(f"{folder}/") for key in keys(store, f"{folder}/{KEYS}"))


def find_cipher(store: Store, manifest: Manifest, encryption: Encryption | None, folder: Path) -> BackupCipher | None:
    """The cipher of a backup, unwrapped with whichever configured key fits; None for one that is not encrypted.

    Raises NotVerifiable: `KEY_MISSING` (no key is given), `KEY_WRONG` (those given are others); StoreError:
    `ENVELOPE_DAMAGED`, `ENVELOPE_MISPLACED` (the wrapped key is not what was written), `KEY_REFUSED`,
    `KEY_UNAVAILABLE` (KMS), `OBJECT_MISSING` (no wrapped key is there).
    """
    if manifest.encryption is None:
        return None
    there = wrapped_names(store, manifest.folder)
    if not there:
        raise StoreError(
            "DATA_KEY_MISSING",
            f"{manifest.folder}/{KEYS} is empty: the key of this backup's files is gone.",
            "Use another copy of this backup: `gs-backup verify --from primary` or `--from offsite`.",
        )
    given: list[str] = []
    refused: BackupError | None = None
    for config in _candidates(manifest, encryption):
        try:
            master = load_key(config, folder)
        except (ConfigError, StoreError) as error:
            refused = refused or error
            continue
        name = wrapped_key_name(master)
        if name in there:
            with store.open(f"{manifest.folder}/{name}") as stream:
                wrapped = stream.read()
            cipher = BackupCipher.unwrapped(wrapped, master, Identity(manifest.database, manifest.id))
            if cipher.data_key_id != manifest.encryption.data_key_id:
                raise StoreError(
                    "ENVELOPE_DAMAGED", f"{name} holds another key than the manifest names.", "Use another copy."
                )
            return cipher
        given.append(master.id)
    raise _no_key(manifest, there, given, refused)


def _candidates(manifest: Manifest, encryption: Encryption | None) -> Sequence[KeyConfig]:
    """Keys to try, in order: those configured, and a KMS key that the manifest itself names."""
    configured: list[KeyConfig] = [encryption, *encryption.previous] if encryption is not None else []
    named = manifest.encryption.key_id if manifest.encryption else ""
    if named.startswith("arn:") and not any(isinstance(c, KmsKeyConfig) and c.key_id == named for c in configured):
        configured.append(KmsKeyConfig(kind="aws-kms", key_id=named))
    return configured


def _no_key(manifest: Manifest, there: Sequence[str], given: Sequence[str], refused: BackupError | None) -> BackupError:
    wanted = ", ".join(name.removeprefix(f"{KEYS}/").removesuffix(SUFFIX) for name in there)
    if given:
        return NotVerifiable(
            "KEY_WRONG",
            f"{manifest.id} is encrypted for the key {wanted}; given are {', '.join(given)}.",
            "Give that key, too: name it under encryption.previous in backup.yaml.",
        )
    if isinstance(refused, StoreError):  # KMS said why
        return refused
    words = f" {refused.message}" if refused is not None else ""
    hint = (
        f"Name its key under encryption in backup.yaml; without a configuration it is read from {DEFAULT_KEY_VARIABLE}."
    )
    return NotVerifiable("KEY_MISSING", f"{manifest.id} is encrypted for the key {wanted}.{words}", hint)


def encryption_from_environment() -> Encryption:
    """What holds without a configuration: the key in GS_BACKUP_KEY."""
    return RawEncryption(kind="raw-aes-256", key_env=DEFAULT_KEY_VARIABLE)


def rewrap(store: Store, manifest: Manifest, encryption: Encryption, folder: Path) -> str | None:
    """Wrap a backup's data key with the current master key and remove the wrappings of all others.

    Returns the path of the new wrapping; None when nothing was to be done. The files, the manifest and every proof
    stay what they are. Errors as for `find_cipher`.
    """
    cipher = find_cipher(store, manifest, encryption, folder)
    if cipher is None:
        return None
    master = current_key(encryption, folder)
    wanted = wrapped_key_name(master)
    there = wrapped_names(store, manifest.folder)
    if wanted not in there:
        store_wrapped(store, manifest.folder, cipher, master)
    BackupCipher.unwrapped(
        _read(store, f"{manifest.folder}/{wanted}"), master, Identity(manifest.database, manifest.id)
    )
    old = [name for name in there if name != wanted]
    for name in old:
        store.delete(f"{manifest.folder}/{name}")
    return wanted if old or wanted not in there else None


def _read(store: Store, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()


__all__ = ["Encryption", "KmsEncryption", "RawEncryption", "find_cipher", "new_cipher", "rewrap", "store_wrapped"]
