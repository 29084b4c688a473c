"""Which keys are given, and what each of them opens: every wrapped data key is unwrapped to find out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from gs_backup_assets.catalogue.catalogue import all_summaries
from gs_backup_assets.catalogue.manifest import BULK, KEYS, KINDS, PROOFS, backup_folder
from gs_backup_assets.catalogue.wal_archive import archive_folder, timeline_identity
from gs_backup_assets.catalogue.wal_inventory import WalKind, wal_folder, wal_objects
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_stores import KeyConfig
from gs_backup_assets.errors import BackupError, StoreError
from gs_backup_assets.recovery.stored.keyring import OF_THE_BACKUP, configured_keys, kms_named_by, wrapping_by
from gs_backup_assets.system.crew import GoOn, side_by_side
from gs_backup_assets.vault.encryption import SUFFIX, BackupCipher, Identity
from gs_backup_assets.vault.keys import MasterKey, load_key, place_of
from gs_backup_assets.vault.store import Store

_AT_A_TIME = 8


@dataclass(frozen=True)
class Locked:
    """What has a data key of its own: a backup, or the log of one timeline (`wal`). `wrappings` are paths in `folder`.

    A timeline is called `<system identifier>/<timeline>`.
    """

    name: str
    folder: str
    identity: Identity
    wrappings: tuple[str, ...]
    wal: bool = False


@dataclass(frozen=True)
class KeyState:
    """A key: what it is for, where it is, its id, the names of what it opens, and why it cannot be used."""

    role: str
    place: str
    id: str | None
    opens: frozenset[str]
    problem: BackupError | None


@dataclass(frozen=True)
class KeySurvey:
    """What is in a store by the keys that open it. `locked` are names of what none opens, backups first, newest first.

    `encrypted` and `plain` count backups, `timelines` those of the write-ahead log that are encrypted.
    """

    keys: tuple[KeyState, ...]
    encrypted: int
    plain: int
    locked: tuple[str, ...]
    timelines: int

    @property
    def good(self) -> bool:
        """Whether everything can be opened, and new backups can be encrypted."""
        return not self.locked and not any(key.problem for key in self.keys if key.role == "new backups")


def survey_keys(store: Store, settings: DatabaseSettings) -> KeySurvey:
    """Try every key on everything in a store that is wrapped by it. StoreError when the store cannot be read."""
    backups, plain = encrypted_backups(store, settings.name)
    timelines = encrypted_timelines(store, settings.name)
    things = [*backups, *timelines]
    configured = configured_keys(settings.encryption)
    roles = ["new backups", *["older backups"] * len(configured)]
    states = [_state(store, role, config, settings, things) for role, config in zip(roles, configured, strict=False)]
    known = {state.id for state in states}
    examples = {name: f"{thing.folder}/{name}" for thing in things for name in thing.wrappings}
    for config in kms_named_by(store, examples.values(), configured):
        if config.key_id not in known:
            states.append(_state(store, "named by backups", config, settings, things))
    opened = frozenset[str]().union(*(state.opens for state in states))
    return KeySurvey(
        keys=tuple(states),
        encrypted=len(backups),
        plain=plain,
        locked=tuple(thing.name for thing in things if thing.name not in opened),
        timelines=len(timelines),
    )


def encrypted_backups(store: Store, database: str) -> tuple[list[Locked], int]:
    """The encrypted backups of every kind, newest first, and how many are not encrypted."""
    wrappings = _wrappings_in(store, database)
    summaries = all_summaries(store, database)
    found = [
        Locked(one.id, one.folder, Identity(database, one.id), wrappings.get(one.folder, ()))
        for one in summaries
        if one.key_id is not None or one.folder in wrappings
    ]
    return found, len(summaries) - len(found)


def encrypted_timelines(store: Store, database: str) -> list[Locked]:
    """The timelines of the write-ahead log of which anything is encrypted."""
    wrappings: dict[tuple[str, int], tuple[str, ...]] = {}
    for found in wal_objects(store.objects(wal_folder(database)), database):
        if found.timeline is not None and found.key.endswith(SUFFIX):
            place = found.system_identifier, found.timeline
            wrapped = (f"{KEYS}/{found.key.rpartition('/')[2]}",) if found.kind is WalKind.KEY else ()
            wrappings[place] = (*wrappings.get(place, ()), *wrapped)
    return [
        Locked(
            name=f"{system}/{timeline:08X}",
            folder=f"{archive_folder(database, system)}/{timeline:08X}",
            identity=timeline_identity(database, system, timeline),
            wrappings=wrapped,
            wal=True,
        )
        for (system, timeline), wrapped in sorted(wrappings.items())
    ]


def _wrappings_in(store: Store, database: str) -> dict[str, tuple[str, ...]]:
    """The paths of the wrapped data keys in each backup's folder that has some, from one listing of each kind."""
    found: dict[str, tuple[str, ...]] = {}
    for kind in KINDS:
        for listed in store.objects(f"{database}/{kind}", skip=(*BULK, PROOFS)):
            parts = listed.key.split("/")
            if len(parts) == 6 and parts[4] == KEYS:
                folder = backup_folder(database, parts[2], parts[3], kind)
                found[folder] = (*found.get(folder, ()), f"{KEYS}/{parts[5]}")
    return found


def _state(
    store: Store, role: str, config: KeyConfig, settings: DatabaseSettings, things: Sequence[Locked]
) -> KeyState:
    try:
        master = load_key(config, settings.folder)
    except BackupError as error:
        return KeyState(role, place_of(config), None, frozenset(), error)
    wrapped = [thing for thing in things if wrapping_by(master) in thing.wrappings]
    opens: set[str] = set()
    try:
        for some in (wrapped[:1], wrapped[1:]):  # a key that cannot be used is found out with one
            jobs = [partial(_opens, store, thing, master) for thing in some]
            told = side_by_side(jobs, at_a_time=_AT_A_TIME, name="keys")
            opens |= {thing.name for thing, opened in zip(some, told, strict=True) if opened}
    except StoreError as error:
        if not error.code.startswith("KEY_"):
            raise
        return KeyState(role, place_of(config), master.id, frozenset(), error)
    return KeyState(role, place_of(config), master.id, frozenset(opens), None)


def _opens(store: Store, thing: Locked, master: MasterKey, go_on: GoOn) -> bool:
    go_on()
    try:
        with store.open(f"{thing.folder}/{wrapping_by(master)}") as stream:
            BackupCipher.unwrapped(stream.read(), master, thing.identity)
    except StoreError as error:
        if error.code not in OF_THE_BACKUP:
            raise
        return False
    return True
