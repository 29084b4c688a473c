"""The doctor's checks of the write-ahead log: the server's settings, the slot, archive_command, the spool."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_backups import Wal
from gs_backup_assets.postgres.connection import Connection, connect, query, target_from_environment
from gs_backup_assets.postgres.slots import read_slot, slot_limits
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis, failed, not_verified, passed
from gs_backup_assets.recovery.wal.receiver import receiver_for
from gs_backup_assets.recovery.wal.server import look_at

_COMFORTABLE_BYTES = 1 << 30
_OVERWRITING = ("aws s3 cp", "cp ", "scp ", "rsync ")
_PAGE = "docs/wal.md"
Guard = Callable[[str, Callable[[], Diagnosis]], Diagnosis]


def examine_wal(settings: DatabaseSettings, wal: Wal, guarded: Guard) -> tuple[Diagnosis, ...]:
    """Everything that `gs-backup wal stream` needs. A check that cannot run is not verified, as `guarded` sees to."""
    return (
        guarded("wal_stream", lambda: _stream(settings)),
        guarded("wal_settings", lambda: _with_server(settings, _settings)),
        guarded("wal_slot", lambda: _with_server(settings, lambda connection: _slot(connection, wal))),
        guarded("wal_archiver", lambda: _with_server(settings, _archiver)),
        guarded("wal_spool", lambda: _spool(settings.spool_path)),
    )


def _with_server(settings: DatabaseSettings, check: Callable[[Connection], Diagnosis]) -> Diagnosis:
    with connect(target_from_environment(settings.wal_url_env), application="gs_backup doctor") as connection:
        return check(connection)


def _stream(settings: DatabaseSettings) -> Diagnosis:
    server = look_at(target_from_environment(settings.wal_url_env))
    toolchain = receiver_for(server.release)
    return passed("wal_stream", f"The role may stream; pg_receivewal is that of {toolchain}.")


def _settings(connection: Connection) -> Diagnosis:
    names = ("wal_level", "max_wal_senders", "max_replication_slots")
    found = {name: str(query(connection, f"SELECT current_setting('{name}')")[0][0]) for name in names}
    sql: list[str] = []
    if found["wal_level"] == "minimal":
        sql.append("ALTER SYSTEM SET wal_level = replica;")
    sql += [f"ALTER SYSTEM SET {name} = 10;" for name in names[1:] if int(found[name]) == 0]
    details = [f"{name} = {value}" for name, value in found.items()]
    if sql:
        return failed("wal_settings", "The server cannot stream its log.", details, "Run it, and restart.", sql)
    return passed("wal_settings", "The server's settings let its log be streamed.", details)


def _slot(connection: Connection, wal: Wal) -> Diagnosis:
    slot, limits = read_slot(connection, wal.slot), slot_limits(connection)
    if slot is None:
        return passed(
            "wal_slot", f"There is no slot {wal.slot} yet.", hint="`gs-backup wal stream` makes it when it starts."
        )
    if slot.lost:
        return failed(
            "wal_slot",
            f"The slot {wal.slot} is lost: the server removed log that was not archived.",
            hint="The stream makes it anew, and tells whether there is a gap; take a base backup if there is.",
        )
    details = [f"{slot.wal_status}, from {slot.restart_lsn} on"]
    if limits.idle_seconds is not None:
        details.append(
            f"idle_replication_slot_timeout = {limits.idle_seconds} s: when the stream is down for longer, the server"
            " ends the slot, and what it removes then is a gap. While the stream runs the slot is not idle."
        )
    if limits.keep_bytes is None:
        return passed(
            "wal_slot",
            f"The slot {wal.slot} keeps what is not archived, without limit.",
            details,
            "While the stream is down the server keeps its log, until its disk is full and it stops. Set"
            " max_slot_wal_keep_size to what the disk can spare: then the slot is lost instead, which is a gap.",
        )
    (behind,) = query(
        connection,
        "SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
        " ELSE pg_current_wal_lsn() END, %s::pg_lsn)::bigint",
        (str(slot.restart_lsn),),
    )[0]
    details.append(f"max_slot_wal_keep_size is {limits.keep_bytes} bytes, {behind} bytes of it are used")
    if 2 * int(behind) > limits.keep_bytes:
        return failed(
            "wal_slot",
            f"More than half of what the slot {wal.slot} may keep is used.",
            details,
            "See that `gs-backup wal stream` runs and keeps up, or raise max_slot_wal_keep_size.",
        )
    return passed("wal_slot", f"The slot {wal.slot} keeps what is not archived.", details)


def _archiver(connection: Connection) -> Diagnosis:
    found = {
        name: str(query(connection, f"SELECT current_setting('{name}')")[0][0])
        for name in ("archive_mode", "archive_command", "archive_timeout")
    }
    timeout = f"archive_timeout = {found['archive_timeout']}: the stream does not need it, it archives begun segments."
    if found["archive_mode"] == "off":
        return passed("wal_archiver", "The server archives nothing by itself; the stream does it.", [timeout])
    command = found["archive_command"]
    # The command itself may hold a password: it is judged, and not shown.
    if "gs-backup wal push" in command:
        return passed("wal_archiver", "The server pushes its log as well; the same segments twice are no error.")
    if any(word in command for word in _OVERWRITING) and "test ! -f" not in command:
        return passed(
            "wal_archiver",
            "The server's archive_command looks as if it could replace what is archived, without a word.",
            [timeout],
            f"Stop it, or use `gs-backup wal push %p`, which refuses another segment under the same name: {_PAGE}.",
        )
    return passed("wal_archiver", "The server archives its log to another place as well.", [timeout])


def _spool(folder: Path) -> Diagnosis:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return failed("wal_spool", f"{folder} cannot be written.", hint="Give it to this account, or set wal.spool.")
    usage = shutil.disk_usage(there)
    details = [f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.1f} GB are free"]
    if usage.free < _COMFORTABLE_BYTES:
        words = f"Little space is left for the spool {folder}."
        return failed("wal_spool", words, details, "The log waits there while the store is away: free some space.")
    if _is_memory(there):
        return not_verified(
            "wal_spool",
            f"{folder} lies in memory.",
            details,
            "Nothing is lost with it, as the slot keeps the log; but it must all be streamed again after a restart.",
        )
    return passed("wal_spool", f"{folder} can be written.", details)


def _is_memory(folder: Path) -> bool:
    """Whether the folder is on a tmpfs; the longest mount point above it tells."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    mounts = [line.split()[1:3] for line in lines]
    above = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]), default=("", ""))[1] == "tmpfs"
