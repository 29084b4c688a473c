"""The doctor's check of the encryption keys: those of new backups can be used, those of older ones are there."""

from __future__ import annotations

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import KeyConfig
from gs_backup_assets.errors import BackupError
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis, failed, not_verified, passed
from gs_backup_assets.vault.encryption import BackupCipher, Identity
from gs_backup_assets.vault.keys import load_key, place_of

_NAME = "encryption_key"
_PROBE = Identity("gs_backup_doctor", "19700101T000000Z")


def encryption_key(settings: DatabaseSettings) -> Diagnosis:
    """Whether new backups can be encrypted and read again, by wrapping a data key and unwrapping it."""
    encryption = settings.encryption
    if encryption is None:
        return passed(
            _NAME,
            "Note: no encryption is set: who reads a store reads the database.",
            hint="`gs-backup keys new` makes a key; docs/encryption.md shows where it goes, and who must keep it.",
        )
    try:
        master = load_key(encryption, settings.folder)
        cipher = BackupCipher.new(_PROBE)
        wrapped = cipher.wrapped_by(master)
    except BackupError as error:
        return failed(_NAME, f"{error.code}: {error.message} No backup can be taken.", hint=error.hint)
    try:
        again = BackupCipher.unwrapped(wrapped, master, _PROBE)
    except BackupError as error:
        words = "A data key can be wrapped but not unwrapped: backups can be taken here, and not proved or restored."
        return not_verified(_NAME, words, [f"{error.code}: {error.message}"], error.hint)
    if again.data_key_id != cipher.data_key_id:
        return failed(
            _NAME, f"The key {master.id} gives back another data key than it was given.", hint="Do not use it."
        )
    lacking = [told for config in encryption.previous if (told := _lacking(config, settings)) is not None]
    words = f"A data key was wrapped by the key {master.id}, and unwrapped."
    if lacking:
        words += " Keys of older backups are missing: those backups can be neither proved nor restored from here."
        return not_verified(_NAME, words, lacking, "Put the keys in place, or remove them from encryption.previous.")
    return passed(_NAME, words)


def _lacking(config: KeyConfig, settings: DatabaseSettings) -> str | None:
    """Why a key of older backups cannot be used; None when it is there."""
    try:
        load_key(config, settings.folder)
    except BackupError as error:
        return f"{place_of(config)}: {error.code}: {error.message}"
    return None
