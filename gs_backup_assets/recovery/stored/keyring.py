"""The keys of backups: a new data key for a new one, the right master key for an old one, and wrapping it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from gs_backup_assets.catalogue.manifest import KEYS, BackupManifest, EncryptionRecord
from gs_backup_assets.config_stores import Encryption, KeyConfig, KmsKeyConfig, RawEncryption
from gs_backup_assets.errors import BackupError, ConfigError, NotVerifiable, StoreError
from gs_backup_assets.vault.encryption import ALGORITHM, FRAME_BYTES, SUFFIX, BackupCipher, Identity, kms_key_of
from gs_backup_assets.vault.keys import MasterKey, load_key
from gs_backup_assets.vault.store import Store, keys

KEY_VARIABLE = "GS_BACKUP_KEY"
# What is wrong with a backup's own bytes, and neither with a key nor with the store.
OF_THE_BACKUP = frozenset({"DATA_KEY_MISSING", "ENVELOPE_DAMAGED", "ENVELOPE_MISPLACED", "OBJECT_MISSING"})


def encryption_from_environment() -> Encryption:
    """What holds without a configuration: the key in GS_BACKUP_KEY. A key of KMS is named by the backup itself."""
    return RawEncryption(kind="raw-aes-256", key_env=KEY_VARIABLE)


def key_for_new_backups(encryption: Encryption, database: str, folder: Path) -> MasterKey:
    """The current master key, tried out: that it cannot be used is better told before a dump than after it.

    Errors as for `load_key`.
    """
    master = load_key(encryption, folder)
    BackupCipher.new(Identity(database, "trial")).wrapped_by(master)
    return master


def begin_encryption(store: Store, master: MasterKey, draft: BackupManifest) -> tuple[BackupCipher, EncryptionRecord]:
    """Put a new data key, wrapped, into a new backup's folder; returns its cipher, and what the manifest says of it."""
    cipher = new_data_key(store, draft.folder, Identity(draft.database, draft.id), master)
    record = EncryptionRecord(
        algorithm=ALGORITHM, frame_bytes=FRAME_BYTES, key_id=master.id, data_key_id=cipher.data_key_id
    )
    return cipher, record


def new_data_key(store: Store, folder: str, identity: Identity, master: MasterKey) -> BackupCipher:
    """Put a new data key, wrapped, into a folder that has none; StoreError (`OBJECT_EXISTS`) when another was first."""
    cipher = BackupCipher.new(identity)
    # As safe as the files: without this one object all of them are lost. What is deleted in a bucket with object lock
    # is hidden and not gone, so that a rewrap can take it out of use nevertheless.
    store.put_bytes(cipher.wrapped_by(master), f"{folder}/{wrapping_by(master)}")
    return cipher


def wrapping_by(master: MasterKey) -> str:
    """`keys/<16 hex digits>.enc`: the path, in a backup's folder, of its data key wrapped by a master key."""
    return f"{KEYS}/{master.name}{SUFFIX}"


def find_cipher(
    store: Store, manifest: BackupManifest, encryption: Encryption | None, folder: Path
) -> BackupCipher | None:
    """The cipher of a backup, unwrapped with whichever given key fits; None for one that is not encrypted.

    A key is given by the configuration, or it is one of KMS that the backup itself names. Raises NotVerifiable:
    `KEY_WRONG` (those given are others), `KEY_MISSING` and `KEY_INVALID`, `KEY_EXPOSED` (one is not where the
    configuration says, or it cannot be used there); StoreError: `DATA_KEY_MISSING`, `ENVELOPE_DAMAGED`,
    `ENVELOPE_MISPLACED` (the wrapped key is not there, or not what was written), `KEY_REFUSED`, `KEY_UNAVAILABLE`
    (KMS).
    """
    if manifest.encryption is None:
        return None
    identity, data_key = Identity(manifest.database, manifest.id), manifest.encryption.data_key_id
    return open_cipher(store, manifest.folder, identity, encryption, folder, data_key=data_key)


def open_cipher(
    store: Store,
    place: str,
    identity: Identity,
    encryption: Encryption | None,
    folder: Path,
    *,
    data_key: str | None = None,
) -> BackupCipher:
    """The cipher of what lies in the folder `place` of a store; `data_key` is the id that its key must have.

    `folder` is the configuration's. Errors as for `find_cipher`.
    """
    there = wrappings_of(store, place)
    if not there:
        raise StoreError(
            "DATA_KEY_MISSING",
            f"{place}/{KEYS} is empty: the key of the files there is gone.",
            "Use another copy of it: `--from primary` or `--from offsite`.",
        )
    given: list[str] = []
    problems: list[BackupError] = []
    configured = configured_keys(encryption)
    named = kms_named_by(store, (f"{place}/{name}" for name in there), configured)
    for config in chain(configured, named):
        try:
            master = load_key(config, folder)
            if wrapping_by(master) in there:
                return _open_data_key(store, place, identity, master, data_key)
            given.append(master.id)
        except (ConfigError, StoreError) as error:  # another key may open it all the same
            problems.append(error)
    raise _no_key(identity.backup_id, there, given, problems)


def wrappings_of(store: Store, folder: str) -> tuple[str, ...]:
    """The paths of a backup's wrapped data keys, in its folder."""
    return tuple(key.removeprefix(f"{folder}/") for key in keys(store, f"{folder}/{KEYS}"))


def open_data_key(store: Store, manifest: BackupManifest, master: MasterKey) -> BackupCipher:
    """The cipher of a backup whose data key lies wrapped by this master key; errors as for `find_cipher`."""
    wanted = manifest.encryption
    assert wanted is not None
    identity = Identity(manifest.database, manifest.id)
    return _open_data_key(store, manifest.folder, identity, master, wanted.data_key_id)


def _open_data_key(
    store: Store, place: str, identity: Identity, master: MasterKey, data_key: str | None
) -> BackupCipher:
    wrapped = _read(store, f"{place}/{wrapping_by(master)}")
    cipher = BackupCipher.unwrapped(wrapped, master, identity)
    if data_key is not None and cipher.data_key_id != data_key:
        raise StoreError(
            "ENVELOPE_DAMAGED",
            f"{wrapping_by(master)} holds another key than the manifest of {identity.backup_id} names.",
            "Somebody exchanged it. Use another copy of this backup, or another backup.",
        )
    return cipher


def rewrap(store: Store, manifest: BackupManifest, encryption: Encryption, folder: Path) -> bool:
    """Wrap a backup's data key with the current key and remove the wrappings by all others; returns whether it had to.

    The files, the manifest and every proof stay what they are. Errors as for `find_cipher` and `load_key`.
    """
    if manifest.encryption is None:
        return False
    identity, data_key = Identity(manifest.database, manifest.id), manifest.encryption.data_key_id
    return rewrap_place(store, manifest.folder, identity, encryption, folder, data_key=data_key)


def rewrap_place(
    store: Store, place: str, identity: Identity, encryption: Encryption, folder: Path, *, data_key: str | None = None
) -> bool:
    """The same for the data key of the folder `place`, of a backup or of a timeline's log; errors as for `open_cipher`.

    Whatever breaks off in between, at least one wrapping is there.
    """
    master = load_key(encryption, folder)
    wanted = wrapping_by(master)
    there = wrappings_of(store, place)
    if there == (wanted,):
        return False
    if wanted not in there:
        cipher = open_cipher(store, place, identity, encryption, folder, data_key=data_key)
        store.put_bytes(cipher.wrapped_by(master), f"{place}/{wanted}")
    cipher = _open_data_key(store, place, identity, master, data_key)  # read back, before any other one goes
    for name in there:
        if name != wanted:
            store.delete(f"{place}/{name}")
    # Somebody else may have done the same for another key: whoever removes last must leave one.
    if not store.exists(f"{place}/{wanted}"):
        store.put_bytes(cipher.wrapped_by(master), f"{place}/{wanted}")
    return True


def configured_keys(encryption: Encryption | None) -> tuple[KeyConfig, ...]:
    """The keys that the configuration names, the current one first."""
    return (encryption, *encryption.previous) if encryption is not None else ()


def kms_named_by(store: Store, wrappings: Iterable[str], configured: Sequence[KeyConfig]) -> Iterator[KmsKeyConfig]:
    """Other keys of KMS by which wrapped data keys say they were wrapped; asked for as a configured one is, if any."""
    kms = [config for config in configured if isinstance(config, KmsKeyConfig)]
    like = kms[0] if kms else None
    for key in wrappings:
        arn = kms_key_of(_read(store, key))
        if arn is not None and arn not in [config.key_id for config in kms]:
            yield KmsKeyConfig(
                kind="aws-kms",
                key_id=arn,
                endpoint=like.endpoint if like else None,
                profile=like.profile if like else None,
            )


def _no_key(what: str, there: Sequence[str], given: Sequence[str], problems: Sequence[BackupError]) -> BackupError:
    decisive = next((problem for problem in problems if isinstance(problem, StoreError)), None)
    if decisive is not None:  # of a wrapping that is there, or what KMS said
        return decisive
    names = ", ".join(name.removeprefix(f"{KEYS}/").removesuffix(SUFFIX) for name in there)
    wanted = f"{what} is encrypted for the key {names}"
    others = f" Given are {', '.join(given)}." if given else ""
    if problems:  # the one that cannot be had may be the one that fits
        return NotVerifiable(problems[0].code, f"{wanted}. {problems[0].message}{others}", problems[0].hint)
    hint = f"Name that key under encryption in backup.yaml, or under its previous; without a file, in {KEY_VARIABLE}."
    if given:
        return NotVerifiable("KEY_WRONG", f"{wanted}.{others}", hint)
    return NotVerifiable("KEY_MISSING", f"{wanted}, and no key is given.", hint)


def _read(store: Store, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()
