"""The doctor's checks of what base backups need: programs, REPLICATION, the server's settings, and room."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_backups import Physical
from gs_backup_assets.errors import BackupError
from gs_backup_assets.postgres.basebackup import compressions
from gs_backup_assets.postgres.connection import Connection, Target, connect, query, target_from_environment
from gs_backup_assets.postgres.dump import Compression
from gs_backup_assets.postgres.replication import Identity, identify
from gs_backup_assets.postgres.toolchain import choose_own_major
from gs_backup_assets.postgres.whole_cluster import ClusterFacts, read_cluster
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis, failed, not_verified, passed

CHECKS = ("physical_programs", "replication", "wal_senders", "incremental", "base_backup_spool")
# pg_basebackup opens one connection for the files and one for the WAL.
_SENDERS_NEEDED = 2
_GIGA = 1_000_000_000
Guard = Callable[[str, Callable[[], Diagnosis]], Diagnosis]


def examine_physical(settings: DatabaseSettings, physical: Physical, guarded: Guard) -> list[Diagnosis]:
    """Check what base backups need; always the same checks in the same order. Nothing is changed.

    `guarded` makes a diagnosis of a check that breaks. Raises ConfigError (`URL_MISSING`, `URL_INVALID`).
    """
    target = target_from_environment(settings.physical_url_env)
    try:
        with connect(target, application="gs_backup doctor") as connection:
            facts = read_cluster(connection)
            return [
                guarded(CHECKS[0], lambda: programs(facts, physical)),
                guarded(CHECKS[1], lambda: replication(target, connection)),
                guarded(CHECKS[2], lambda: wal_senders(connection)),
                guarded(CHECKS[3], lambda: incremental(facts, physical)),
                guarded(CHECKS[4], lambda: spool(facts)),
            ]
    except BackupError as error:
        return [not_verified(name, f"{error.code}: {error.message}", hint=error.hint) for name in CHECKS]


def programs(facts: ClusterFacts, physical: Physical) -> Diagnosis:
    """Whether programs of the server's own major are here, and how they would compress."""
    try:
        toolchain = choose_own_major(facts.release)
    except BackupError as error:
        return failed(CHECKS[0], f"{error.code}: {error.message}", hint=error.hint)
    chosen = compressions(Compression.parse(physical.compression), facts.release, toolchain.release)
    details = [f"compression, the first that the server and the program know: {'; '.join(chosen)}"]
    if facts.release.major < 15:
        details.append("servers before 15 do not compress: pg_basebackup does it, with gzip and one processor")
    return passed(CHECKS[0], f"{toolchain} is of the server's major.", details)


def replication(target: Target, connection: Connection) -> Diagnosis:
    """Whether the role gets a replication connection: one is really made."""
    try:
        found: Identity = identify(target)
    except BackupError as error:
        (role,) = query(connection, "SELECT quote_ident(current_user)")[0]
        right = error.code == "REPLICATION_RIGHT_MISSING"
        statements = [f"ALTER ROLE {role} REPLICATION;"] if right else []
        return failed(CHECKS[1], f"{error.code}: {error.message}", hint=error.hint, sql=statements)
    return passed(
        CHECKS[1],
        f"A replication connection was made: cluster {found.system_identifier}, timeline {found.timeline}.",
    )


def wal_senders(connection: Connection) -> Diagnosis:
    """Whether the server writes enough WAL, and has connections left for a backup."""
    level, most, used = query(
        connection,
        "SELECT current_setting('wal_level'), current_setting('max_wal_senders')::int,"
        " (SELECT count(*)::int FROM pg_stat_replication)",
    )[0]
    if level == "minimal":
        hint = "Set wal_level = replica and max_wal_senders = 10, and restart the server."
        return failed(CHECKS[2], "WAL_LEVEL_MINIMAL: wal_level is minimal.", hint=hint)
    free = most - used
    words = f"wal_level is {level}; {used} of {most} max_wal_senders are in use."
    if free < _SENDERS_NEEDED:
        hint = f"Raise max_wal_senders and restart the server: a base backup takes {_SENDERS_NEEDED}."
        return failed(CHECKS[2], f"WAL_SENDERS_FULL: {words}", hint=hint)
    return passed(CHECKS[2], words)


def incremental(facts: ClusterFacts, physical: Physical) -> Diagnosis:
    """Whether backups between the full ones can be incremental."""
    if physical.incremental == "never":
        return passed(CHECKS[3], "Incremental backups are switched off.")
    if facts.release.major < 17:
        return passed(CHECKS[3], "Servers before 17 take no incremental backups: every base backup is a full one.")
    if not facts.summarizes_wal:
        return passed(
            CHECKS[3],
            "summarize_wal is off: every base backup is a full one.",
            hint="Set summarize_wal = on and reload; the summaries take little room (wal_summary_keep_time).",
        )
    return passed(CHECKS[3], f"summarize_wal is on: chains have up to {physical.chain_length} backups.")


def spool(facts: ClusterFacts) -> Diagnosis:
    """Whether a compressed copy of the cluster has room in the temporary folder."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    words = f"{folder} has {free / _GIGA:.1f} GB free; the cluster has {facts.size / _GIGA:.1f} GB"
    if free < facts.size // 4:
        hint = "Free space, or set TMPDIR to a larger disk: the compressed backup is spooled there."
        return failed(CHECKS[4], f"NO_SPACE: {words}, and a quarter of it may be too little.", hint=hint)
    return passed(CHECKS[4], f"{words} before compression.")
