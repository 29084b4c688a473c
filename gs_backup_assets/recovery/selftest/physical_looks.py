"""How the self-test looks at base backups and archived log: with what takes them back, reads them or proves them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, Verdict
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.offsite.offsite_check import compare_copy
from gs_backup_assets.recovery.physical.unpacking import unpack_chain, verify_unpacked
from gs_backup_assets.recovery.point_in_time.pitr_drill import run_drill
from gs_backup_assets.recovery.point_in_time.prove_base import prove_base
from gs_backup_assets.recovery.point_in_time.recover import recovered
from gs_backup_assets.recovery.point_in_time.recover_plan import plan_recovery
from gs_backup_assets.recovery.selftest.physical_copy import PhysicalCopy
from gs_backup_assets.recovery.selftest.vault_bench import Examination
from gs_backup_assets.recovery.stored.stored_bytes import check_stored_bytes
from gs_backup_assets.recovery.wal.checks import survey_and_judge
from gs_backup_assets.recovery.wal.fetching import read_file
from gs_backup_assets.recovery.wal.offsite import compare_wal
from gs_backup_assets.recovery.wal.pushing import push_wal
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.workspace import workspace

Look = Callable[[PhysicalCopy], Examination]
PUSHED = "pg_wal"  # the folder of a copy with the files of another server
_SOUND: Examination = (Verdict.PROVEN.value, ())


def checked(copy: PhysicalCopy) -> Examination:
    """The stored bytes of the chain's last backup are compared with its manifest."""
    with Progress().stage("check") as stage:
        return _of((check_stored_bytes(copy.primary, copy.entry(copy.chain[-1]), stage),))


def unpacked(copy: PhysicalCopy) -> Examination:
    """The chain is fetched, unpacked and combined, and compared with PostgreSQL's backup_manifest."""
    return _unpacked(copy, copy.chain[-1])


def newest_unpacked(copy: PhysicalCopy) -> Examination:
    """The same for the newest backup, a full one."""
    return _unpacked(copy, copy.newest)


def proved(copy: PhysicalCopy) -> Examination:
    """The newest backup is recovered on a throwaway server, as `gs-backup verify` does."""
    record = prove_base(copy.settings, copy.vault, copy.entry(copy.newest), Progress(), by=_by()).record
    return _of(record.checks, record.verdict)


def drilled(copy: PhysicalCopy) -> Examination:
    """A drill recovers to the restore point, compares with its fingerprint, and looks for commits on both sides."""
    target = RecoveryTarget(name=copy.log.point)
    now = copy.log.looked_at
    record = run_drill(
        copy.settings, copy.vault, Progress(), by=_by(), now=now, rng=random.Random(0), target=target
    ).record
    return _of(record.checks, record.verdict)


def surveyed(copy: PhysicalCopy) -> Examination:
    """What the archive comes to at the moment at which the stream saw that all was in it."""
    return _of(survey_and_judge(copy.settings, copy.primary, now=copy.log.looked_at).checks)


def planned(target: Callable[[PhysicalCopy], RecoveryTarget]) -> Look:
    """A recovery to a target is planned."""

    def look(copy: PhysicalCopy) -> Examination:
        plan_recovery(copy.settings, copy.vault, target(copy), now=copy.log.looked_at)
        return _SOUND

    return look


def replayed(copy: PhysicalCopy) -> Examination:
    """The cluster is recovered to the end of its log."""
    plan = plan_recovery(copy.settings, copy.vault, RecoveryTarget(), now=copy.log.looked_at)
    with (
        workspace("recovered", owner=server_account()) as folder,
        recovered(plan, copy.settings, copy.vault, folder / "into", Progress(), durable=False),
    ):
        return _SOUND


def fetched(name: Callable[[PhysicalCopy], str]) -> Look:
    """A file of the log is read as `gs-backup wal fetch` does for a server that recovers."""

    def look(copy: PhysicalCopy) -> Examination:
        data = read_file(copy.settings, copy.primary, copy.log.system_identifier, name(copy))
        return _SOUND if data is not None else (Verdict.FAILED.value, ("OBJECT_MISSING",))

    return look


def pushed(copy: PhysicalCopy) -> Examination:
    """What another server has in its pg_wal is archived as its archive_command does, `gs-backup wal push`."""
    for path in sorted((copy.folder / PUSHED).glob("*")):
        push_wal(copy.settings, copy.primary, path, system_identifier=copy.log.system_identifier)
    return _SOUND


def compared(copy: PhysicalCopy) -> Examination:
    """The off-site copies of log and newest base backup are compared with the primary ones."""
    with Progress().stage("compare") as stage:
        entry = copy.entry(copy.newest)
        backup = compare_copy(copy.primary, copy.offsite, entry, stage, read_back=False)
        log = compare_wal(copy.primary, copy.offsite, copy.settings.name, stage)
    return _failed([*backup.findings, *log])


def _by() -> Author:
    return Author.here("selftest")


def _unpacked(copy: PhysicalCopy, backup_id: str) -> Examination:
    account = server_account()
    with workspace("unpacked", owner=account) as into:
        chain = copy.whole_chain(backup_id)
        files = unpack_chain(copy.settings, copy.primary, chain, into, Progress(), account=account)
        return _of((verify_unpacked(files),))


def _of(checks: Iterable[CheckResult], verdict: Verdict | None = None) -> Examination:
    """The verdict, that of the checks where there is no other, with the codes of what failed or was left open."""
    for status in (Status.FAILED, Status.NOT_VERIFIED):
        findings = [finding for check in checks if check.status is status for finding in check.findings]
        if findings and verdict is not Verdict.PROVEN:
            return (verdict or Verdict(status.value.upper())).value, _codes(findings)
    return _SOUND


def _failed(findings: Sequence[Finding]) -> Examination:
    return (Verdict.FAILED.value, _codes(findings)) if findings else _SOUND


def _codes(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(finding.code for finding in findings))
