"""Which ways back there are after a complete loss, the one that loses least first; only the stores are read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.drills import read_drills
from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_recovery import DisasterRecovery
from gs_backup_assets.errors import BackupError, ConfigError, ProofFailed, SourceError
from gs_backup_assets.postgres.connection import connect, target_from_environment
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.recovery.disaster.state import Candidate
from gs_backup_assets.recovery.point_in_time.recover_plan import RecoveryPlan, plan_recovery
from gs_backup_assets.vault.opening import Vault, Which
from gs_backup_assets.words import counted

LATEST = RecoveryTarget()
_DRILLS = 5


@dataclass(frozen=True)
class Choice:
    """The ways back, best first, and why others cannot be gone."""

    candidates: tuple[Candidate, ...]
    unusable: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    candidate: Candidate
    cluster: str | None
    lsn: Lsn | None


def disaster_section(settings: DatabaseSettings) -> DisasterRecovery:
    """The section; ConfigError (`NO_DISASTER_RECOVERY`) without one."""
    if settings.disaster_recovery is None:
        raise ConfigError(
            "NO_DISASTER_RECOVERY",
            "backup.yaml has no disaster_recovery.",
            "docs/disaster-recovery.md shows how to add it; `gs-backup recover` and `restore` need none.",
        )
    return settings.disaster_recovery


def require_source_gone(settings: DatabaseSettings) -> str:
    """Ask whether the database is really lost; says what is known. ProofFailed (`SOURCE_ALIVE`) when it answers."""
    try:
        target = target_from_environment(settings.url_env)
    except ConfigError:
        return f"{settings.url_env} is not set: nobody asked whether the database is really gone"
    try:
        with connect(target):
            words = "it answers"
    except SourceError as error:
        # A server that refuses us is there; one that says that there is no such database has lost it.
        if "FATAL" not in error.message or "does not exist" in error.message:
            return f"the source is gone: {error.message}"
        words = f"its server answers, and refuses us ({error.message})"
    raise ProofFailed(
        "SOURCE_ALIVE",
        f"{target.redacted()} is not lost: {words}.",
        "Two databases would go on side by side. If that is meant, or the address leads elsewhere now: --force.",
    )


def choose(settings: DatabaseSettings, vault: Vault, now: datetime, *, which: Which | None = None) -> Choice:
    """Every way back, from every store that can be read (or only from `which`).

    Physical recovery comes before dumps, but for a dump that was taken behind the end of the archived log; of the same
    kind the one that reaches further, then the primary store. Raises ProofFailed (`NOTHING_TO_RECOVER`).
    """
    section = disaster_section(settings)
    found: list[_Found] = []
    unusable: list[str] = []
    for name in vault.named() if which is None else (which,):
        try:
            found.append(_base(settings, vault, name, now))
        except BackupError as error:
            unusable.append(f"{name}: {error.code}: {error.message}")
        if section.server_url_env is not None:
            try:
                found.append(_dump(settings, vault, name))
            except BackupError as error:
                unusable.append(f"{name}: {error.code}: {error.message}")
    if not found:
        raise ProofFailed(
            "NOTHING_TO_RECOVER",
            f"No store has anything that {settings.name} can be recovered from: {' '.join(unusable)}",
            "Correct what the stores say. Dumps are only used when disaster_recovery.server_url_env names a server.",
        )
    ordered = sorted(found, key=lambda one: (_rank(one, found), -_reach(one), one.candidate.store != "primary"))
    return Choice(tuple(one.candidate for one in ordered), tuple(unusable))


def plan_base(settings: DatabaseSettings, vault: Vault, which: Which, now: datetime) -> RecoveryPlan:
    """The plan to recover to the last recoverable commit from one store."""
    return plan_recovery(settings, vault, LATEST, which=which, now=now)


def _rank(one: _Found, every: list[_Found]) -> int:
    """0: a dump that holds more than the log; 1: base backup and log; 2: other dumps."""
    if one.candidate.method == "base":
        return 1
    logs = [b for b in every if b.candidate.method == "base" and b.cluster == one.cluster and b.lsn is not None]
    newer = one.lsn is not None and bool(logs) and all(b.lsn is not None and one.lsn > b.lsn for b in logs)
    return 0 if newer else 2


def _reach(one: _Found) -> float:
    """Whole seconds: a plan counts back from the moment at which it was made."""
    return round(one.candidate.reaches_to.timestamp()) if one.candidate.reaches_to else 0.0


def _base(settings: DatabaseSettings, vault: Vault, which: Which, now: datetime) -> _Found:
    plan = plan_base(settings, vault, which, now)
    loss = plan.expected_loss_seconds
    seconds, how = _drilled(settings, vault, which)
    candidate = Candidate(
        method="base",
        store=which,
        backup=plan.chain[-1].id,
        reaches_to=None if loss is None else now - timedelta(seconds=loss),
        expected_seconds=seconds,
        how_long=how,
        detail=f"{counted(len(plan.chain), 'backup')}, {counted(len(plan.segments), 'segment')} of log,"
        f" up to {plan.end},"
        f" {plan.fetch_bytes / 1e6:.1f} MB to fetch",
    )
    return _Found(candidate, plan.system_identifier, plan.end)


def _dump(settings: DatabaseSettings, vault: Vault, which: Which) -> _Found:
    entry = Catalogue(vault.store(which), settings.name).last_proven()
    if entry is None or entry.manifest is None:
        raise ProofFailed("NO_PROVEN_DUMP", "There is no dump that is PROVEN.", "Run `gs-backup verify latest`.")
    manifest, proof = entry.manifest, entry.proof
    seconds = proof.rto_seconds if proof else None
    candidate = Candidate(
        method="dump",
        store=which,
        backup=entry.id,
        reaches_to=manifest.snapshot_at,
        expected_seconds=seconds,
        how_long=f"its proof of {proof.finished_at:%Y-%m-%d}" if proof and seconds is not None else "no proof says",
        detail=f"PROVEN, {manifest.stored_bytes / 1e6:.1f} MB to fetch",
    )
    server = manifest.server
    return _Found(candidate, server.system_identifier, Lsn.parse(server.lsn) if server.lsn else None)


def _drilled(settings: DatabaseSettings, vault: Vault, which: Which) -> tuple[float | None, str]:
    """How long the newest drill took that brought a server up, and which one it was."""
    drills = read_drills(vault.store(which), settings.name, newest=_DRILLS)
    timed = [drill for drill in drills if drill.rto_seconds is not None]
    if not timed:
        return None, "no drill says; `gs-backup drill` makes one"
    return timed[-1].rto_seconds, f"the drill of {timed[-1].finished_at:%Y-%m-%d}"
