"""The self-test: breaks copies of a sound backup, one way each, and counts which of the breakages a proof catches."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.catalogue.catalogue import Catalogue, Entry
from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.periods import DAY
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_backups import Logical, Verification
from gs_backup_assets.errors import BackupError, ConfigError
from gs_backup_assets.postgres.cluster import Cluster, create_database, drop_database, running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.inventory import quote
from gs_backup_assets.postgres.toolchain import choose, embedded_server
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.dumps.prove import prove
from gs_backup_assets.recovery.dumps.servers import RestoreServer, throwaway_server
from gs_backup_assets.recovery.dumps.take import take_backup
from gs_backup_assets.recovery.selftest.breakages import REDIGESTED, STORED, Breakage, Copy
from gs_backup_assets.recovery.selftest.breakages_in_base_backups import BASE_BACKUPS
from gs_backup_assets.recovery.selftest.breakages_in_contents import FURNISHINGS, LATER, ROWS, SCHEMA
from gs_backup_assets.recovery.selftest.breakages_in_vault import SOUND_LOOKS, VAULT, VaultBreakage
from gs_backup_assets.recovery.selftest.breakages_in_wal import WAL
from gs_backup_assets.recovery.selftest.physical_bench import PhysicalBench, PhysicalBreakage
from gs_backup_assets.recovery.selftest.physical_history import make_history
from gs_backup_assets.recovery.selftest.vault_bench import REFUSED, Examination, VaultBench, make_vault_bench
from gs_backup_assets.recovery.stored.stored_bytes import write_sums
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.local import LocalStore

AnyBreakage = Breakage | VaultBreakage | PhysicalBreakage
PHYSICAL: tuple[PhysicalBreakage, ...] = (*BASE_BACKUPS, *WAL)
BREAKAGES: tuple[AnyBreakage, ...] = (*STORED, *REDIGESTED, *ROWS, *SCHEMA, *VAULT, *PHYSICAL)
_PHYSICAL_LOOKS = tuple(dict.fromkeys(breakage.look for breakage in PHYSICAL))
_DATABASE = "studio"
_SUPERUSER = "postgres"
_SCALE = 0.05
# Changes must reach the dump alone: triggers and foreign keys of the source would prevent or add some.
_SESSION = {"search_path": "public", "session_replication_role": "replica"}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BreakageOutcome(_Record):
    """What became of one breakage.

    `verdict` is the proof's, or REFUSED where the backup was not even taken for one. `codes` are those of the failed
    checks, in order (of the unverified ones when none failed). `seconds` covers breaking and proving.
    """

    name: str
    title: str
    expected: tuple[str, ...]
    caught: bool
    verdict: str
    codes: tuple[str, ...]
    seconds: float

    @property
    def caught_by(self) -> str | None:
        """The code that named the breakage."""
        return next((code for code in self.expected if code in self.codes), None) if self.caught else None


class SelftestReport(_Record):
    """All outcomes; `by_code` counts the caught breakages by the code that named them.

    The sound copy is one that nothing was done to: what a proof finds in it is in `sound_copy_codes`.
    """

    outcomes: tuple[BreakageOutcome, ...]
    sound_copy_passed: bool
    sound_copy_codes: tuple[str, ...] = ()
    caught: int
    total: int
    by_code: dict[str, int]

    @property
    def good(self) -> bool:
        """Whether every breakage was caught and the sound copy was not taken for a broken one."""
        return self.sound_copy_passed and self.caught == self.total


def choose_breakages(names: Sequence[str]) -> tuple[AnyBreakage, ...]:
    """The named breakages, or all without names. ConfigError (`BREAKAGE_UNKNOWN`)."""
    known = {breakage.name: breakage for breakage in BREAKAGES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            "BREAKAGE_UNKNOWN", f"There is no breakage {', '.join(unknown)}.", f"Known are {', '.join(known)}."
        )
    return tuple(known[name] for name in names) or BREAKAGES


def run_selftest(
    breakages: Sequence[AnyBreakage] = BREAKAGES,
    *,
    progress: Progress | None = None,
    told: Callable[[BreakageOutcome], None] = lambda _outcome: None,
) -> SelftestReport:
    """Back the sample database up on a server of its own, break copies of the backup and prove each.

    `told` hears of every outcome at once. Nothing is left behind. Raises ProgramError when PostgreSQL's programs are
    missing or a server does not come up.
    """
    progress = progress or Progress()
    with ExitStack() as stack:
        with progress.stage("prepare"):
            physical = any(isinstance(breakage, PhysicalBreakage) for breakage in breakages)
            bench = stack.enter_context(_bench(physical=physical))
        with progress.stage("sound copy"):
            sound, sound_codes = bench.examine(bench.copy())
            if sound == Verdict.PROVEN.value:
                sound, sound_codes = bench.vault.examine(bench.vault.copy(), SOUND_LOOKS)
            if sound == Verdict.PROVEN.value and bench.physical is not None:
                sound, sound_codes = bench.physical.examine(bench.physical.copy(), _PHYSICAL_LOOKS)
        outcomes = []
        # The next copy is broken while the one before is proved: breaking and proving use different servers.
        pool = stack.enter_context(_breaking_ahead())
        waiting = [pool.submit(bench.broken, breakage) for breakage in breakages]
        for breakage, future in zip(breakages, waiting, strict=True):
            examine, spent = future.result()
            started = time.monotonic()
            verdict, codes = examine()
            outcome = _outcome(breakage, verdict, codes, spent + time.monotonic() - started)
            outcomes.append(outcome)
            told(outcome)
    caught = [outcome.caught_by for outcome in outcomes]
    by_code = Counter(code for code in caught if code is not None)
    return SelftestReport(
        outcomes=tuple(outcomes),
        sound_copy_passed=sound == Verdict.PROVEN.value,
        sound_copy_codes=sound_codes,
        caught=sum(by_code.values()),
        total=len(outcomes),
        by_code=dict(by_code.most_common()),
    )


@contextmanager
def _breaking_ahead() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="break")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(breakage: AnyBreakage, verdict: str, codes: tuple[str, ...], seconds: float) -> BreakageOutcome:
    return BreakageOutcome(
        name=breakage.name,
        title=breakage.title,
        expected=breakage.expected,
        caught=verdict != Verdict.PROVEN.value and not set(codes).isdisjoint(breakage.expected),
        verdict=verdict,
        codes=codes,
        seconds=round(seconds, 3),
    )


@dataclass(frozen=True)
class _Bench:
    """The source's server, two sound backups of it, and the server that all proofs restore to.

    `physical` has base backups and log of another cluster; None where nothing of them is to be broken.
    """

    folder: Path
    settings: DatabaseSettings
    source: Cluster
    store: LocalStore
    older: Manifest
    newer: Manifest
    server: RestoreServer
    vault: VaultBench
    physical: PhysicalBench | None

    def copy(self) -> Copy:
        """Copies of both backups in a store of their own; hard links, since what is broken is replaced."""
        place = self.folder / f"copy-{secrets.token_hex(4)}"
        shutil.copytree(self.store.root, place / "store", copy_function=os.link)
        return Copy(
            root=place / "store",
            newer=self.newer,
            older=self.older,
            outside=place / "outside",
            dump_changed=self.dump_changed,
        )

    def broken(self, breakage: AnyBreakage) -> tuple[Callable[[], Examination], float]:
        """Breaks a copy; returns what examines it, and the seconds that it took."""
        if isinstance(breakage, VaultBreakage):
            return self.vault.broken(breakage)
        if isinstance(breakage, PhysicalBreakage):
            assert self.physical is not None
            return self.physical.broken(breakage)
        started = time.monotonic()
        copy = self.copy()
        breakage.apply(copy)
        return partial(self.examine, copy), time.monotonic() - started

    def examine(self, copy: Copy) -> Examination:
        """Prove the copy's newer backup as `gs-backup verify` does, and remove the copy; returns verdict and codes."""
        store = LocalStore(copy.root)
        try:
            entry = Catalogue(store, _DATABASE).find(self.newer.id)
            return self._prove(store, entry)
        except BackupError as error:
            return REFUSED, (error.code,)
        finally:
            self._forget_roles()
            shutil.rmtree(copy.root.parent)

    def _prove(self, store: LocalStore, entry: Entry) -> Examination:
        record = prove(self.settings, store, entry, Progress(), server=self.server)
        for status in (Status.FAILED, Status.NOT_VERIFIED):
            codes = [f.code for check in record.checks if check.status is status for f in check.findings]
            if codes:
                return record.verdict.value, tuple(dict.fromkeys(codes))
        return record.verdict.value, ()

    def _forget_roles(self) -> None:
        """Roles outlive the database that was restored, and would hide that the next backup lacks them."""
        with connect(self.server.admin) as connection, connection.cursor() as cursor:
            roles = query(connection, r"SELECT rolname FROM pg_roles WHERE oid <> 10 AND rolname NOT LIKE 'pg\_%'")
            for (role,) in roles:
                cursor.execute(f"DROP ROLE {quote(role)}")

    def dump_changed(self, statements: tuple[str, ...]) -> Path:
        """Back up a copy of the source database in which the statements were run; returns the backup's folder."""
        name = f"changed_{secrets.token_hex(4)}"
        with connect(self.source.target()) as connection:
            query(connection, f"CREATE DATABASE {name} TEMPLATE {_DATABASE}")
            try:
                with connect(self.source.target(name), settings=_SESSION) as changed, changed.cursor() as cursor:
                    for statement in statements:
                        cursor.execute(statement)
                store = LocalStore(self.folder / name)
                return store.root / _take(self.settings, store, source=self.source, database=name).folder
            finally:
                drop_database(connection, name)


@contextmanager
def _bench(*, physical: bool) -> Iterator[_Bench]:
    with ExitStack() as stack:
        folder = stack.enter_context(workspace("selftest"))
        settings = DatabaseSettings(
            name=_DATABASE,
            url_env="GS_BACKUP_SELFTEST_URL",
            timezone="UTC",
            folder=folder,
            rules="none",
            logical=Logical(jobs=1),  # many small dumps: more jobs cost more than they save
            verification=Verification(jobs=1),
        )
        source = stack.enter_context(running_cluster(embedded_server(), purpose="source", superuser=_SUPERUSER))
        store = LocalStore(folder / "sound")
        with connect(source.target()) as connection:
            create_database(connection, _DATABASE)
        _change_source(source, FURNISHINGS, sample=True)
        older = _take(settings, store, source=source, database=_DATABASE)
        _change_source(source, LATER)
        time.sleep(1.0)  # ids name seconds
        newer = _take(settings, store, source=source, database=_DATABASE)
        for entry in Catalogue(store, _DATABASE).entries():
            write_sums(store, entry)
        vault = make_vault_bench(folder / "vault", settings, partial(_take, source=source, database=_DATABASE))
        programs = choose(newer.dump.release, needs_server=True)
        server = stack.enter_context(throwaway_server(programs, newer.source.bootstrap_role))
        base = PhysicalBench(make_history(folder / "physical", settings)) if physical else None
        yield _Bench(folder, settings, source, store, older, newer, server, vault, base)


def _change_source(source: Cluster, statements: Sequence[str], *, sample: bool = False) -> None:
    with connect(source.target(_DATABASE), settings={"search_path": "public"}) as connection:
        if sample:
            load_sample(connection, scale=_SCALE)
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def _take(settings: DatabaseSettings, store: LocalStore, *, source: Cluster, database: str) -> Manifest:
    partition = DAY.of(datetime.now(timezone.utc), settings.zone)
    return take_backup(settings, source.target(database), store, partition, Progress())
