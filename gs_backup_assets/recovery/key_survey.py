"""Which keys are given, and which backups each of them opens: every wrapped data key is unwrapped to find out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import KEYS, PROOFS, backup_folder
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_sections import KeyConfig
from gs_backup_assets.errors import BackupError, StoreError
from gs_backup_assets.recovery.keyring import OF_THE_BACKUP, configured_keys, kms_named_by, wrapping_by
from gs_backup_assets.system.crew import GoOn, side_by_side
from gs_backup_assets.vault.encryption import BackupCipher, Identity
from gs_backup_assets.vault.keys import MasterKey, load_key, place_of
from gs_backup_assets.vault.store import Store

_AT_A_TIME = 8


@dataclass(frozen=True)
class KeyState:
    """A key: what it is for, where it is, its id, the ids of the backups that it opens, and why it cannot be used."""

    role: str
    place: str
    id: str | None
    opens: frozenset[str]
    problem: BackupError | None


@dataclass(frozen=True)
class KeySurvey:
    """The backups of a store by the keys that open them. `locked` are ids of those that none does, newest first."""

    keys: tuple[KeyState, ...]
    encrypted: int
    plain: int
    locked: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether every backup can be opened, and new ones can be encrypted."""
        return not self.locked and not any(key.problem for key in self.keys if key.role == "new backups")


def survey_keys(store: Store, settings: DatabaseSettings) -> KeySurvey:
    """Try every key on every backup of a store that is wrapped by it. StoreError when the store cannot be read."""
    wrappings = wrappings_in(store, settings.name)
    backups = Catalogue(store, settings.name).summaries()
    encrypted = [backup for backup in backups if backup.key_id is not None or backup.folder in wrappings]
    configured = configured_keys(settings.encryption)
    roles = ["new backups", *["older backups"] * len(configured)]
    states = [
        _state(store, role, config, settings, encrypted=encrypted, wrappings=wrappings)
        for role, config in zip(roles, configured, strict=False)
    ]
    known = {state.id for state in states}
    examples = {name: f"{backup.folder}/{name}" for backup in encrypted for name in wrappings.get(backup.folder, ())}
    for config in kms_named_by(store, examples.values(), configured):
        if config.key_id not in known:
            states.append(_state(store, "named by backups", config, settings, encrypted=encrypted, wrappings=wrappings))
    opened = frozenset[str]().union(*(state.opens for state in states))
    return KeySurvey(
        keys=tuple(states),
        encrypted=len(encrypted),
        plain=len(backups) - len(encrypted),
        locked=tuple(backup.id for backup in encrypted if backup.id not in opened),
    )


def wrappings_in(store: Store, database: str) -> dict[str, tuple[str, ...]]:
    """The paths of the wrapped data keys in each backup's folder that has some, from one listing."""
    found: dict[str, tuple[str, ...]] = {}
    for listed in store.objects(f"{database}/logical", skip=("dump", PROOFS)):
        parts = listed.key.split("/")
        if len(parts) == 6 and parts[4] == KEYS:
            folder = backup_folder(database, parts[2], parts[3])
            found[folder] = (*found.get(folder, ()), f"{KEYS}/{parts[5]}")
    return found


def _state(
    store: Store,
    role: str,
    config: KeyConfig,
    settings: DatabaseSettings,
    *,
    encrypted: Sequence[Summary],
    wrappings: Mapping[str, tuple[str, ...]],
) -> KeyState:
    try:
        master = load_key(config, settings.folder)
    except BackupError as error:
        return KeyState(role, place_of(config), None, frozenset(), error)
    wrapped = [backup for backup in encrypted if wrapping_by(master) in wrappings.get(backup.folder, ())]
    opens: set[str] = set()
    try:
        for some in (wrapped[:1], wrapped[1:]):  # a key that cannot be used is found out with one
            jobs = [partial(_opens, store, backup, master) for backup in some]
            told = side_by_side(jobs, at_a_time=_AT_A_TIME, name="keys")
            opens |= {backup.id for backup, opened in zip(some, told, strict=True) if opened}
    except StoreError as error:
        if not error.code.startswith("KEY_"):
            raise
        return KeyState(role, place_of(config), master.id, frozenset(), error)
    return KeyState(role, place_of(config), master.id, frozenset(opens), None)


def _opens(store: Store, backup: Summary, master: MasterKey, go_on: GoOn) -> bool:
    go_on()
    try:
        with store.open(f"{backup.folder}/{wrapping_by(master)}") as stream:
            BackupCipher.unwrapped(stream.read(), master, Identity(backup.database, backup.id))
    except StoreError as error:
        if error.code not in OF_THE_BACKUP:
            raise
        return False
    return True
