"""The runbook of a disaster recovery, filled in with today's facts: what would be done, and each step by hand."""

from __future__ import annotations

import shlex
from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError
from gs_backup_assets.recovery.disaster.choice import choose, disaster_section, require_source_gone
from gs_backup_assets.recovery.disaster.state import Candidate, StateFile
from gs_backup_assets.recovery.disaster.steps import CHECK, HEALTH, RECOVER, RESTORE, START, step_names, target_folder
from gs_backup_assets.vault.opening import Vault, Which


class RunbookStep(BaseModel):
    """A step, and the commands that do it by hand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    what: str
    by_hand: tuple[str, ...]


class Runbook(BaseModel):
    """What a disaster recovery would do at the moment `at`. `expected_loss_minutes` is None where it is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: str
    at: AwareDatetime
    source: str
    into: str
    goes_on: str | None
    candidates: tuple[Candidate, ...]
    unusable: tuple[str, ...]
    expected_loss_minutes: float | None
    expected_seconds: float | None
    how_long: str
    steps: tuple[RunbookStep, ...]


def make_runbook(settings: DatabaseSettings, vault: Vault, now: datetime, *, which: Which | None = None) -> Runbook:
    """Read the stores, ask the source whether it is gone, and change nothing. Raises what `choose` does."""
    try:
        source = require_source_gone(settings)
    except BackupError as error:
        source = f"{error.message} A recovery refuses to begin without --force."
    state = StateFile(target_folder(settings)).read()
    choice = choose(settings, vault, now, which=which)
    best = choice.candidates[0]
    loss = None if best.reaches_to is None else max(0.0, (now - best.reaches_to).total_seconds() / 60)
    goes_on = None
    if state is not None and state.finished_at is None:
        goes_on = f"A recovery of {state.started_at:%Y-%m-%d %H:%M} UTC is not through: it would go on, or --restart."
    elif state is not None:
        goes_on = f"A recovery was through at {state.finished_at:%Y-%m-%d %H:%M} UTC; another one needs --restart."
    return Runbook(
        database=settings.name,
        at=now,
        source=source,
        into=str(target_folder(settings)) if best.method == "base" else f"the address in {_server(settings)}",
        goes_on=goes_on,
        candidates=choice.candidates,
        unusable=choice.unusable,
        expected_loss_minutes=None if loss is None else round(loss, 2),
        expected_seconds=best.expected_seconds,
        how_long=best.how_long,
        steps=tuple(_step(name, settings, best) for name in step_names(settings, best)),
    )


def _server(settings: DatabaseSettings) -> str:
    return disaster_section(settings).server_url_env or ""


def _step(name: str, settings: DatabaseSettings, best: Candidate) -> RunbookStep:
    section, into = disaster_section(settings), target_folder(settings)
    verb = f"--database {settings.name} --from {best.store}"
    data = shlex.quote(str(into / "data"))
    if name == RECOVER:
        what = f"Fetch base backup {best.backup} and the log from the {best.store} store; recover to the last commit."
        return _of(name, what, f"gs-backup recover --to latest --into {shlex.quote(str(into))} {verb}")
    if name == RESTORE:
        what = f"Restore the proven dump {best.backup} from the {best.store} store, critical tables first; compare it."
        return _of(name, what, f"gs-backup restore {best.backup} --into {_server(settings)} --critical-first {verb}")
    if name == CHECK:
        what = "ANALYZE; test every foreign key and every data rule. What is broken is reported, and stops nothing."
        return _of(name, what, "vacuumdb --all --analyze-only")
    if name == START:
        what = f"Start the server on {section.listen_addresses}, port {section.port}."
        options = f'-o "-p {section.port} -c listen_addresses={shlex.quote(section.listen_addresses)}"'
        return _of(name, what, f"pg_ctl -D {data} -l {shlex.quote(str(into / 'server.log'))} -w {options} start")
    if name == HEALTH:
        assert section.health is not None
        expect = f" and {section.health.expect!r} in its answer" if section.health.expect else ""
        seconds = section.health.deadline.total_seconds()
        what = f"Ask until status {section.health.status}{expect}, at most {seconds:.0f} s."
        return _of(name, what, f"curl -sS -i {shlex.quote(section.health.url)}")
    hook = next(hook for hook in section.hooks if name == f"hook {hook.name}")
    return _of(name, "Run your command.", shlex.join(hook.command))


def _of(name: str, what: str, *by_hand: str) -> RunbookStep:
    return RunbookStep(name=name, what=what, by_hand=by_hand)
