"""Leaves a recovered data directory so that it can be started: its configuration, without what would do harm."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gs_backup_assets.postgres.recovery_server import AUTO_CONF, keep_settings
from gs_backup_assets.recovery.physical.unpacking import FOLDER, SETTINGS, Unpacked
from gs_backup_assets.recovery.stored.checked_reading import CheckedReading
from gs_backup_assets.system.account import Account, current_account
from gs_backup_assets.system.programs import run

# Where files lie, and how the machine is reached, is of the machine that the backup was taken on.
_OF_THE_MACHINE = (
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "listen_addresses",
    "unix_socket_directories",
    "stats_temp_directory",
    "ssl",
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_ca_file",
    "ssl_crl_file",
    "ssl_crl_dir",
    "krb_server_keyfile",
)
# What would make another server's replica of it, or end its next recovery at this one's target.
_OF_RECOVERY = re.compile(
    r"\s*(archive_mode|restore_command|primary_conninfo|primary_slot_name|recovery_\w+|standby_mode)\s*=", re.IGNORECASE
)
_SETTING = re.compile(r"\s*(?P<name>\w+)\s*=?\s*\S")
_ACTING = ("archive_command", "archive_library", "primary_conninfo", "shared_preload_libraries", "cron.database_name")
_MARK = """
# ---- gs-backup recover: begin ----
# This cluster is a copy. With archive_mode on it would archive its log where the server archives that it was copied
# from, and the two would be mixed up. Take this block out once this one takes the other's place.
archive_mode = off
# ---- gs-backup recover: end ----
"""
_HBA = """# The cluster kept its rules of access outside of its data directory: these let nobody in but its own account.
# Those of the source, as far as the backup has them, are at the end of postgresql.conf, as comments.
local  all  all  peer
"""


def leave_startable(unpacked: Unpacked, reading: CheckedReading, into: Path, *, prepared: int) -> tuple[str, ...]:
    """Write what is missing of the configuration and switch archiving off; returns what people have to know.

    A cluster whose configuration lay elsewhere (as Debian's does) gets a postgresql.conf from the backup's own record.
    With `prepared` transactions it must allow at least as many: the log may know more than the base backup's settings.
    """
    data, account, notes = unpacked.data, unpacked.account, []
    auto = keep_settings(data)
    kept = [line for line in auto.splitlines() if not _OF_RECOVERY.match(line)]
    _write(data / AUTO_CONF, "".join(f"{line}\n" for line in kept), account)
    conf = data / "postgresql.conf"
    if conf.exists():
        text = conf.read_text(encoding="utf-8", errors="surrogateescape")
    else:
        text = _recorded(reading, into)
        notes.append(
            "The cluster's configuration lay outside of its data directory: postgresql.conf was written from the"
            " settings that were in force, without those of the machine (paths, addresses, TLS). Look through it."
        )
    _write(conf, text.rstrip("\n") + "\n" + _MARK, account)
    if not (data / "pg_hba.conf").exists():
        _write(data / "pg_hba.conf", _HBA, account)
        notes.append("pg_hba.conf was written anew and lets only the server's own account in, over its socket.")
    if not (data / "pg_ident.conf").exists():
        _write(data / "pg_ident.conf", "", account)
    moved = _move_tablespaces_out(unpacked, into / "tablespaces")
    if moved:
        notes.append(
            f"Tablespaces that are younger than the base backup lie in {into / 'tablespaces'}: {', '.join(moved)}."
        )
    acting = [name for name in _ACTING if _is_set(name, text) or _is_set(name, auto)]
    notes.append(
        "archive_mode = off stands in a marked block at the end of postgresql.conf: take it out when this server takes"
        " the place of the old one, and take a base backup then, as it writes a new timeline."
    )
    if acting:
        notes.append(f"The old server's {', '.join(acting)} are in the configuration: check them before the start.")
    argv: list[str | Path] = [unpacked.toolchain.program("postgres"), "-D", data, "-C", "max_prepared_transactions"]
    asked = run(argv, account=account, capture_stdout=True, timeout=60)
    if asked.status != 0:
        notes.append(f"The configuration cannot be read as it is: {' | '.join(asked.stderr[-3:])}")
    if prepared:
        notes.append(f"Prepared transactions wait to be committed or rolled back: {prepared}, in pg_prepared_xacts.")
    if asked.status == 0 and int(asked.stdout) < prepared:
        _write(data / AUTO_CONF, "".join(f"{line}\n" for line in [*kept, _limit(prepared)]), account)
        notes.append(f"max_prepared_transactions was raised to {prepared}: without it the server does not start.")
    return tuple(notes)


def _move_tablespaces_out(unpacked: Unpacked, spaces: Path) -> list[str]:
    """Bring those that the log made inside of the data directory to the others, where a base backup finds them."""
    account, known = unpacked.account, {str(oid) for oid in unpacked.tablespaces}
    inside = [path for path in (unpacked.data / "pg_tblspc").iterdir() if not path.is_symlink()]
    moved = sorted((path for path in inside if path.name not in known), key=lambda path: path.name)
    for path in moved:
        if not spaces.exists():
            spaces.mkdir(mode=0o700)
            os.chown(spaces, account.uid, account.gid)
        path.rename(spaces / path.name)
        path.symlink_to(spaces / path.name)
        os.lchown(path, account.uid, account.gid)
    return [path.name for path in moved]


def _limit(prepared: int) -> str:
    return f"max_prepared_transactions = '{prepared}'"


def _recorded(reading: CheckedReading, into: Path) -> str:
    """The settings that the backup recorded, those of the machine as comments."""
    path = into / SETTINGS
    reading.copy_out(f"{FOLDER}/{SETTINGS}", path)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.unlink()
    return "".join(f"# {line}\n" if _name(line) in _OF_THE_MACHINE else f"{line}\n" for line in lines)


def _name(line: str) -> str:
    match = _SETTING.match(line)
    return "" if match is None else match["name"]


def _is_set(name: str, text: str) -> bool:
    """Whether a configuration sets something to more than nothing; its value is nobody's business here."""
    return re.search(rf"^\s*{re.escape(name)}\s*=?\s*'?[^'\s#]", text, re.MULTILINE | re.IGNORECASE) is not None


def _write(path: Path, text: str, account: Account) -> None:
    """Durably, as the server wants its files."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as sink:
        sink.write(text)
        sink.flush()
        os.fsync(sink.fileno())
    path.chmod(0o600)
    if account != current_account():
        os.chown(path, account.uid, account.gid)
