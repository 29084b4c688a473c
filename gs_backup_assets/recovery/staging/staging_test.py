"""The staging test: the newest proven backup becomes the staging database, and the application has to work with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import gs_backup_assets
from gs_backup_assets.catalogue.audit import Author, failure_noted, note
from gs_backup_assets.catalogue.catalogue import Catalogue, Entry
from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.periods import MONTH
from gs_backup_assets.catalogue.staging_tests import StagingTestRecord, put_staging_test
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, not_verified, verdict_of
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_recovery import Hook, Staging
from gs_backup_assets.errors import BackupError, NotVerifiable, ProofFailed, SourceError, StoreError
from gs_backup_assets.postgres.cluster import drop_database
from gs_backup_assets.postgres.connection import Target, target_from_environment
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.application.health import wait_until_healthy
from gs_backup_assets.recovery.application.hooks import run_hook
from gs_backup_assets.recovery.dumps.judgement import rto_met
from gs_backup_assets.recovery.dumps.prove import compare_restored
from gs_backup_assets.recovery.dumps.restore import admin_of, fetch_sound, server_of
from gs_backup_assets.recovery.dumps.restoring import restore_fetched
from gs_backup_assets.recovery.dumps.servers import RestoreServer
from gs_backup_assets.recovery.dumps.take import jobs_of
from gs_backup_assets.recovery.staging.masking import drop_proof, mask_database, masking_secret
from gs_backup_assets.recovery.staging.masking_proof import prove_masked
from gs_backup_assets.recovery.staging.server import (
    Turn,
    drop_or_reason,
    give_up_safety,
    only_test,
    repair,
    require_not_production,
    require_ours,
    safeties,
    staging_section,
    swap_in,
    trial_name,
)
from gs_backup_assets.system.threads import clean_up
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.opening import Vault, Which
from gs_backup_assets.vault.store import Store
from gs_backup_assets.words import counted

STEPS = ("staging_stopped", "staging_restored", "staging_anonymised", "staging_started", "staging_healthy")
PUT_BACK = "staging_put_back"
FACTS = "GS_BACKUP_STAGING_"
_MASKING_STAGES = frozenset({"mask", "rewrite", "prove masked"})
_BY_HAND = "Put right what it says, then `gs-backup staging-test --put-back`."
_HOOK_HINT = "Correct the command; the staging database is what it was before."
_HEALTH_HINT = "Look at the application's log of that time; the staging database is what it was before."


@dataclass(frozen=True)
class StagingTest:
    """A test that is on record, and what stores and the audit log refused to keep."""

    record: StagingTestRecord
    not_kept: tuple[StoreError, ...]
    not_logged: StoreError | None


def run_staging_test(
    settings: DatabaseSettings,
    vault: Vault,
    progress: Progress,
    *,
    by: Author,
    now: datetime,
    which: Which | None = None,
) -> StagingTest:
    """Make the newest proven backup the staging database, start the application, and ask whether it works.

    The off-site copy is used where the backup has one, or the copy in `which`. What fails is a check in the record: the
    old database is then put back and the application started again. An earlier test that was killed is put right first.
    Raises, before anything is stopped, ConfigError (`NO_STAGING`, `STAGING_IS_PRODUCTION`, ...), ProofFailed
    (`NO_PROVEN_BACKUP`), SourceError (`STAGING_BUSY`, `STAGING_NOT_OWNED`, `SERVER_UNREACHABLE`), StoreError.
    """
    section = staging_section(settings)
    staging = target_from_environment(section.url_env)
    secret = masking_secret(settings.anonymise) if settings.anonymise else b""
    with failure_noted(vault.primary, settings.name, by, "staging_test", ids={}, otherwise=vault.offsite):
        copy, entry = newest_proven(settings, vault, which)
        manifest = entry.require_manifest()
        server, _ = server_of(staging, manifest)
        with only_test(server.admin, staging.database) as turn:
            require_not_production(settings, manifest, staging, turn.orders())
            require_ours(turn.orders(), staging.database)
            test = _Test(settings, section, staging, server, turn, progress, f"{now:%Y%m%dT%H%M%SZ}", entry.id)
            test.repaired = repair(turn.orders(), staging.database, test.stamp).words
            began = datetime.now(timezone.utc)
            test.run(vault.store(copy), entry, manifest, secret)
        record = _record(test, copy, entry, began=began, now=now)
        not_kept = _keep(vault, record)
    not_logged = note(
        vault.primary,
        settings.name,
        by,
        "staging_test",
        ids={"backup": entry.id, "partition": entry.partition, "staging": staging.database, "test": record.id},
        result=record.verdict.value,
        details={"store": copy, "anonymised": str(record.anonymised).lower()},
        otherwise=vault.offsite,
    )
    return StagingTest(record, tuple(not_kept), not_logged)


def put_staging_back(settings: DatabaseSettings, progress: Progress, *, now: datetime) -> str | None:
    """Put right what a test that was killed has left: stop the application, repair, start; says what was found.

    Raises what `repair` and the commands do.
    """
    section = staging_section(settings)
    staging = target_from_environment(section.url_env)
    facts: dict[str, str | int | float] = {"database": staging.database}
    with only_test(admin_of(staging), staging.database) as turn:
        with progress.stage("stop"):
            _run(section.stop, settings, facts)
        with progress.stage("put back"):
            repaired = repair(turn.orders(), staging.database, f"{now:%Y%m%dT%H%M%SZ}").words
    with progress.stage("start"):
        _run(section.start, settings, facts)
    return repaired


def newest_proven(settings: DatabaseSettings, vault: Vault, which: Which | None) -> tuple[Which, Entry]:
    """The newest backup that is PROVEN, and the copy to use: off-site where it is there.

    Raises ProofFailed (`NO_PROVEN_BACKUP`), StoreError.
    """
    found = []
    for name in (which,) if which else vault.named():
        entry = Catalogue(vault.store(name), settings.name).last_proven()
        if entry is not None:
            found.append((entry.id, name == "offsite", name, entry))
    if not found:
        raise ProofFailed(
            "NO_PROVEN_BACKUP", f"{settings.name} has no backup that is PROVEN.", "Run `gs-backup verify latest`."
        )
    _, _, chosen, entry = max(found, key=lambda one: one[:2])
    return chosen, entry


def _run(hooks: Sequence[Hook], settings: DatabaseSettings, facts: dict[str, str | int | float]) -> None:
    for hook in hooks:
        run_hook(hook, facts, settings.folder, prefix=FACTS, advice=_HOOK_HINT)


@dataclass
class _Test:
    """One test at work. `checks` has what was found, `safety` the old database's name once the copy has taken it."""

    settings: DatabaseSettings
    section: Staging
    staging: Target
    server: RestoreServer
    turn: Turn
    progress: Progress
    stamp: str
    backup_id: str
    checks: dict[str, CheckResult] = field(default_factory=dict)
    repaired: str | None = None
    swapped: bool = False
    healthy_after: float | None = None

    def run(self, store: Store, entry: Entry, manifest: Manifest, secret: bytes) -> None:
        """Every step; on whatever goes wrong, the way back."""
        trial = trial_name(self.staging.database, self.stamp)
        seconds = self.progress.seconds
        before = sum(seconds.values())
        try:
            with self._step("staging_stopped", counted(len(self.section.stop), "command")), self.progress.stage("stop"):
                self._commands(self.section.stop)
            with self._step("staging_restored", "the staging database is equal to the backup's source"):
                self._restore(store, entry, manifest, trial)
            if self.settings.anonymise is not None:
                with self._step("staging_anonymised", "masked"):
                    self._anonymise(trial, secret)
            with self._step("staging_started", counted(len(self.section.start), "command")):
                with self.progress.stage("swap"):
                    self._swap(trial)
                with self.progress.stage("start"):
                    self._commands(self.section.start)
            number = len(self.section.health)
            answers = f"{counted(number, 'address', 'addresses')} {'answers' if number == 1 else 'answer'} as expected"
            with self._step("staging_healthy", answers), self.progress.stage("health"):
                for health in self.section.health:
                    wait_until_healthy(health, advice=_HEALTH_HINT)
                masking = sum(seconds.get(name, 0.0) for name in _MASKING_STAGES)
                healthy_after = sum(seconds.values()) - before - masking
                # From here on the copy is the staging database, whatever happens.
                old = give_up_safety(self.turn.orders(), self.staging.database, self.stamp)
                self.healthy_after = healthy_after
        except _Stopped:
            self._put_back()
        except BaseException as error:
            clean_up(self._put_back, after=error)
            raise
        else:
            self._drop(old)

    def _drop(self, names: Sequence[str]) -> None:
        for name in names:
            with self.progress.stage("drop"):
                try:
                    reason = drop_or_reason(self.turn.orders(), name)
                except SourceError as error:
                    reason = error.message.rstrip(".")
            if reason is not None:
                found = Finding(code="OLD_DATABASE_KEPT", message=f"{name}: {reason}.", hint="Drop it.")
                check = self.checks["staging_healthy"]
                self.checks[check.name] = check.model_copy(update={"findings": (found,)})

    @contextmanager
    def _step(self, name: str, summary: str) -> Iterator[None]:
        """A check that passes when nothing is raised inside; what a step itself has found stays."""
        import psycopg2

        try:
            yield
        except BackupError as error:
            status = Status.NOT_VERIFIED if isinstance(error, NotVerifiable) else Status.FAILED
            self._ended(name, status, error.code, error.message, error.hint)
            raise _Stopped from error
        except psycopg2.Error as error:
            words = error.diag.message_primary or "the connection was lost"
            self._ended(name, Status.FAILED, "SERVER_FAILED", f"The staging server: {words}", "Look at its log.")
            raise _Stopped from error
        self.checks.setdefault(name, CheckResult(name=name, status=Status.PASSED, summary=summary))
        if self.checks[name].status is not Status.PASSED:
            raise _Stopped

    def _ended(self, name: str, status: Status, code: str, message: str, hint: str) -> None:
        finding = Finding(code=code, message=message, hint=hint)
        self.checks[name] = CheckResult(name=name, status=status, summary=message.rstrip("."), findings=(finding,))

    def _commands(self, hooks: Sequence[Hook]) -> None:
        facts: dict[str, str | int | float] = {"database": self.staging.database, "backup": self.backup_id}
        _run(hooks, self.settings, facts)

    def _restore(self, store: Store, entry: Entry, manifest: Manifest, trial: str) -> None:
        jobs = jobs_of(self.settings.verification.jobs)
        with workspace("spool") as spool:
            fetch_sound(self.settings, store, entry, spool, self.progress)
            restored = restore_fetched(self.server, manifest, spool, trial, jobs=jobs, progress=self.progress)
            checks = compare_restored(manifest, restored, self.server, spool, jobs=jobs, progress=self.progress).checks
        wrong = [check for check in checks if check.status is not Status.PASSED]
        if wrong:
            worst = next((check for check in wrong if check.status is Status.FAILED), wrong[0])
            self.checks["staging_restored"] = CheckResult(
                name="staging_restored",
                status=worst.status,
                summary=f"{worst.name}: {worst.summary}",
                findings=tuple(finding for check in wrong for finding in check.findings)[:50],
            )

    def _anonymise(self, trial: str, secret: bytes) -> None:
        assert self.settings.anonymise is not None
        copy = self.server.admin.with_database(trial)
        masked = mask_database(copy, self.settings.anonymise, secret, self.progress)
        check = prove_masked(copy, masked, self.progress)
        drop_proof(copy)
        self.checks["staging_anonymised"] = check.model_copy(update={"name": "staging_anonymised"})

    def _swap(self, trial: str) -> None:
        swap_in(self.turn.orders(), self.server, trial, self.staging.database, self.stamp)
        self.swapped = True

    def _put_back(self) -> None:
        """The old database, and the application with it. Whatever is not done is a check that says what to do."""
        import psycopg2

        done: list[str] = []
        try:
            with self.progress.stage("put back"):
                stopping = self._stop_again() if self.swapped else None
                orders = self.turn.orders()
                first = bool(self.swapped and not safeties(orders, self.staging.database))
                repaired = repair(orders, self.staging.database, self.stamp)
                done += repaired.done
                if first:
                    drop_database(orders, self.staging.database)
                    done.append(f"{self.staging.database}, which was not there before, is dropped")
                self._commands(self.section.start)
            if stopping is not None:
                raise stopping
        except (BackupError, psycopg2.Error) as error:
            code = error.code if isinstance(error, BackupError) else "SERVER_FAILED"
            self._ended(PUT_BACK, Status.FAILED, code, f"Staging is not what it was: {_words(error)}", _BY_HAND)
            return
        summary = "; ".join([*done, "the application was started again"])
        if repaired.kept:
            self._ended(PUT_BACK, Status.FAILED, "COPY_KEPT", f"{summary}, but {'; '.join(repaired.kept)}", "Drop it.")
            return
        self.checks[PUT_BACK] = CheckResult(name=PUT_BACK, status=Status.PASSED, summary=summary)

    def _stop_again(self) -> BackupError | None:
        """An application that was started on the copy would go on with what it has read there.

        A command that fails keeps the old database from nothing: its error is returned, to be told in the end.
        """
        try:
            self._commands(self.section.stop)
        except BackupError as error:
            return error
        return None


class _Stopped(Exception):
    """The test ends here; its checks say why."""


def _words(error: Any) -> str:
    return error.message if isinstance(error, BackupError) else (error.diag.message_primary or "the server went away")


def _record(test: _Test, copy: Which, entry: Entry, *, began: datetime, now: datetime) -> StagingTestRecord:
    settings = test.settings
    wanted = [name for name in STEPS if settings.anonymise is not None or name != "staging_anonymised"]
    steps = [
        test.checks.get(name) or not_verified(name, "the test ended before", code="NOT_REACHED") for name in wanted
    ]
    objective = None if settings.rto_target is None else settings.rto_target.total_seconds()
    if test.healthy_after is None:
        beside = [not_verified("rto_met", "the application did not become healthy", code="NOT_REACHED")]
    else:
        beside = [rto_met(test.healthy_after, objective)]
    if PUT_BACK in test.checks:
        beside.insert(0, test.checks[PUT_BACK])
    return StagingTestRecord(
        database=settings.name,
        partition=MONTH.of(now, settings.zone),
        started_at=began,
        finished_at=datetime.now(timezone.utc),
        software=gs_backup_assets.__version__,
        store=copy,
        backup_id=entry.id,
        backup_partition=entry.partition,
        staging=test.staging.database,
        server=test.server.label,
        repaired=test.repaired,
        anonymised=settings.anonymise is not None,
        verdict=verdict_of(steps),
        checks=(*steps, *beside),
        stage_seconds=dict(test.progress.seconds),
        rto_seconds=test.healthy_after,
        rto_target_seconds=objective,
    )


def _keep(vault: Vault, record: StagingTestRecord) -> list[StoreError]:
    """Store the record in every store; returns the refusals. When none has kept it, its StoreError is raised."""
    refusals = []
    for store in vault.named().values():
        try:
            put_staging_test(store, record)
        except StoreError as error:
            refusals.append(error)
    if len(refusals) == len(vault.named()):
        raise refusals[0]
    return refusals
