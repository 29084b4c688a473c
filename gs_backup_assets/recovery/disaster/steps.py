"""What each step of a disaster recovery does; which ones there are, and in which order, depends on the way back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.objectives import CRITICAL_CLASS, class_of
from gs_backup_assets.catalogue.verdict import CheckResult, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError, ProofFailed, SourceError
from gs_backup_assets.postgres.connection import Target, connect, target_from_environment, target_from_url
from gs_backup_assets.postgres.pg_ctl import is_running, start_server
from gs_backup_assets.postgres.recovery_server import control_data
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.standby_files import quoted
from gs_backup_assets.postgres.toolchain import Toolchain, choose_own_major, reachable
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.application.health import wait_until_healthy
from gs_backup_assets.recovery.application.hooks import run_hook
from gs_backup_assets.recovery.disaster.checks import check_databases, databases_of
from gs_backup_assets.recovery.disaster.choice import disaster_section, plan_base
from gs_backup_assets.recovery.disaster.state import Candidate, DisasterState
from gs_backup_assets.recovery.dumps.restore import restore_backup
from gs_backup_assets.recovery.point_in_time.private_server import private_server
from gs_backup_assets.recovery.point_in_time.recover import recover_into
from gs_backup_assets.recovery.point_in_time.recover_folder import MARK
from gs_backup_assets.system.account import current_account, server_account
from gs_backup_assets.vault.opening import Vault

RECOVER, RESTORE, CHECK, START, HEALTH = "recover", "restore", "check", "start", "health"
_HOOK = "hook "
Facts = dict[str, str | int | float]


@dataclass(frozen=True)
class Outcome:
    """What a step came to."""

    facts: Facts = field(default_factory=dict)
    checks: tuple[CheckResult, ...] = ()


@dataclass(frozen=True)
class Work:
    """What the steps need. `tell` is for people; `clock` gives the aware time now."""

    settings: DatabaseSettings
    vault: Vault
    progress: Progress
    tell: Callable[[str], None]
    clock: Callable[[], datetime]

    @property
    def into(self) -> Path:
        """The folder of the recovered cluster."""
        return target_folder(self.settings)


def target_folder(settings: DatabaseSettings) -> Path:
    """`disaster_recovery.into`, absolute."""
    return (settings.folder / disaster_section(settings).into.expanduser()).absolute()


def step_names(settings: DatabaseSettings, candidate: Candidate) -> tuple[str, ...]:
    """The steps of a way back, in their order."""
    section = disaster_section(settings)
    first = (RECOVER, CHECK, START) if candidate.method == "base" else (RESTORE, CHECK)
    hooks = tuple(f"{_HOOK}{hook.name}" for hook in section.hooks)
    return (*first, *hooks, *((HEALTH,) if section.health is not None else ()))


def require_place(name: str, work: Work) -> None:
    """Before a step is begun: nothing is where its result will be. What is there later is ours.

    Raises ConfigError: `INTO_NOT_EMPTY`, `DATABASE_EXISTS`.
    """
    if name == RECOVER and not is_empty_or_unfinished(work.into):
        raise ConfigError(
            "INTO_NOT_EMPTY", f"{work.into} is not empty.", "Choose another folder in disaster_recovery.into."
        )
    if name == RESTORE:
        target = dump_target(work.settings)
        try:
            with connect(target):
                pass
        except SourceError:
            return  # what is wrong with the server, if anything, is told by the restore
        raise ConfigError(
            "DATABASE_EXISTS",
            f"{target.redacted()} exists already: nothing is ever replaced.",
            "Name another database, or drop or rename this one.",
        )


def is_empty_or_unfinished(into: Path) -> bool:
    """Whether a recovery may be made in a folder."""
    return not into.is_dir() or not any(into.iterdir()) or (into / MARK).exists()


def do_step(name: str, work: Work, state: DisasterState, *, again: bool) -> Outcome:
    """Do one step, or do it `again`. Everything it raises leaves the recovery resumable at this step."""
    facts = state.facts()
    if name == RECOVER:
        return _recover(work, state.chosen, again=again)
    if name == RESTORE:
        return _restore(work, state.chosen, again=again)
    if name == CHECK:
        return _check(work, state.chosen, facts)
    if name == START:
        return _start(work, facts)
    section = disaster_section(work.settings)
    if name == HEALTH:
        assert section.health is not None
        healthy = wait_until_healthy(section.health, work.tell)
        return Outcome({"health_asked": healthy.asked})
    hook = next(hook for hook in section.hooks if f"{_HOOK}{hook.name}" == name)
    run_hook(hook, facts | {"database": work.settings.name, "method": state.chosen.method}, work.settings.folder)
    return Outcome()


def _recover(work: Work, chosen: Candidate, *, again: bool) -> Outcome:
    """To the last recoverable commit, from the chosen store and nothing else."""
    if again and not is_empty_or_unfinished(work.into):
        return _recovered_before(work, chosen)
    plan = plan_base(work.settings, work.vault, chosen.store, work.clock())
    for warning in plan.warnings:
        work.tell(warning)
    done = recover_into(plan, work.settings, work.vault, work.into, work.progress)
    for words in done.notes:
        work.tell(words)
    facts: Facts = {
        "data_directory": str(done.data),
        "release": str(done.toolchain.release),
        "lsn": str(done.achieved.lsn),
        "timeline": done.achieved.timeline,
        "backup": plan.chain[-1].id,
        "store": chosen.store,
    }
    times = [at for at in (done.achieved.at, chosen.reaches_to) if at is not None]
    if times:
        facts["recovered_to"] = max(times).isoformat()
    return Outcome(facts)


def _recovered_before(work: Work, chosen: Candidate) -> Outcome:
    """The folder is whole: the process ended between the work and its record."""
    data = work.into / "data"
    major = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    account = server_account()
    toolchain = reachable(choose_own_major(Release.parse(f"{major}.0")), account)
    control = control_data(toolchain, data, account)
    work.tell(f"{work.into} is whole: it was recovered before")
    facts: Facts = {
        "data_directory": str(data),
        "release": str(toolchain.release),
        "lsn": control["Latest checkpoint's REDO location"],
        "timeline": int(control["Latest checkpoint's TimeLineID"]),
        "backup": chosen.backup,
        "store": chosen.store,
    }
    if chosen.reaches_to is not None:
        facts["recovered_to"] = chosen.reaches_to.isoformat()
    return Outcome(facts)


def _restore(work: Work, chosen: Candidate, *, again: bool) -> Outcome:
    """The newest proven dump, critical tables first where a class names them."""
    target = dump_target(work.settings)
    store = work.vault.store(chosen.store)
    entry = Catalogue(store, work.settings.name).find(chosen.backup)
    manifest = entry.require_manifest()
    classes = work.settings.class_tables()
    critical = any(class_of(table.name, classes) == CRITICAL_CLASS for table in manifest.fingerprint.tables)
    facts: Facts = {
        "host": target.host,
        "port": int(target.parameters.get("port", "5432")),
        "dbname": target.database,
        "backup": entry.id,
        "store": chosen.store,
        "recovered_to": manifest.snapshot_at.isoformat(),
    }
    try:
        done = restore_backup(work.settings, store, entry, target, work.progress, critical_first=critical)
    except ConfigError as error:
        # It has its name only when it was compared: the restore that broke off was through.
        if error.code != "DATABASE_EXISTS" or not again:
            raise
        work.tell(f"the database {target.database} is there already: it was restored before")
        return Outcome(facts)
    if done.verdict is Verdict.FAILED:
        words = "; ".join(check.summary for check in done.checks if check.status.value == "failed")
        raise ProofFailed(
            "RESTORED_NOT_EQUAL",
            f"The dump {entry.id} did not come back equal: {words}.",
            f"It was kept as the database {done.database}.",
        )
    facts["usable_seconds"] = round(done.full_seconds, 3)
    if done.core_seconds is not None:
        facts["critical_usable_seconds"] = round(done.core_seconds, 3)
        work.tell(f"critical tables were usable after {done.core_seconds:.1f} s of this step")
    return Outcome(facts, done.checks)


def dump_target(settings: DatabaseSettings) -> Target:
    """Where a dump is restored to."""
    variable = disaster_section(settings).server_url_env
    assert variable is not None
    return target_from_environment(variable)


def _check(work: Work, chosen: Candidate, facts: Mapping[str, str | int | float]) -> Outcome:
    rules, folder = work.settings.rules, work.settings.folder
    if chosen.method == "dump":
        target = dump_target(work.settings)
        return Outcome(checks=check_databases(target, (target.database,), rules, folder, work.progress))
    data, toolchain = Path(str(facts["data_directory"])), _toolchain(facts)
    with private_server(toolchain, data, server_account()) as server:
        names = databases_of(server, _wanted(work.settings))
        checks = check_databases(server, names, rules, folder, work.progress)
    return Outcome({"dbname": names[0]} if names else {}, checks)


def _wanted(settings: DatabaseSettings) -> str | None:
    """The database's name in the address that was lost, where that is still known; nobody is asked."""
    try:
        return target_from_url(os.environ[settings.url_env]).database
    except (KeyError, ConfigError):
        return None


def _toolchain(facts: Mapping[str, str | int | float]) -> Toolchain:
    return reachable(choose_own_major(Release.parse(str(facts["release"]))), server_account())


def _start(work: Work, facts: Mapping[str, str | int | float]) -> Outcome:
    """On its own settings, but for where it listens, and for what made it a copy."""
    section, data, account = disaster_section(work.settings), Path(str(facts["data_directory"])), server_account()
    toolchain, log = _toolchain(facts), work.into / "server.log"
    settings = {
        "listen_addresses": section.listen_addresses,
        "port": str(section.port),
        "restore_command": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
    }
    if not is_running(toolchain, data, account):
        auto = data / "postgresql.auto.conf"
        lines = "".join(f"{name} = {quoted(value)}\n" for name, value in settings.items())
        with open(auto, "a", encoding="utf-8") as stream:
            stream.write(f"# Added by gs-backup disaster-recover:\n{lines}")
        log.touch(mode=0o600)
        if account != current_account():
            os.chown(auto, account.uid, account.gid)
            os.chown(log, account.uid, account.gid)
        start_server(toolchain, data, log, account)
    host = section.listen_addresses.split(",")[0].strip()
    return Outcome({"host": "localhost" if host in ("", "*", "0.0.0.0", "::") else host, "port": section.port})  # noqa: S104
