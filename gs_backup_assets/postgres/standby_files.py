"""Writes what makes a data directory a standby: signal file, settings, password file; no recovery.conf exists any more.

PostgreSQL manual: "Standby Server Settings", "Setting Up a Standby Server", "The Password File".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.postgres.connection import Connection, Target, query

_TARGETS = (
    "recovery_target",
    "recovery_target_time",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_xid",
)
_SIGNALS = ("recovery.signal", "standby.signal")
# Of a libpq connection: what a WAL receiver sets itself (libpqwalreceiver.c), and what must not reach a file.
_NOT_KEPT = frozenset(
    {"password", "sslpassword", "dbname", "replication", "fallback_application_name", "application_name"}
)
# Where configuration files are kept elsewhere (Debian), a copy has none: these are of the machine, not of the cluster.
_OF_THE_MACHINE = (
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "unix_socket_directories",
    "listen_addresses",
    "stats_temp_directory",
    "ssl",
    "ssl_cert_file",
    "ssl_key_file",
)


@dataclass(frozen=True)
class Written:
    """Files that were written, and what people must look at."""

    files: tuple[Path, ...]
    warnings: tuple[str, ...]


def write_standby_files(
    connection: Connection,
    primary: Target,
    data: Path,
    passfile: Path,
    *,
    application: str,
    slot: str,
    restore_command: str | None,
    port: int | None,
) -> Written:
    """Make `data` a standby of `primary`, to which `connection` is open; its present settings stay but for these.

    The password goes into `passfile` (0600) and nowhere else.
    """
    files: list[Path] = []
    warnings: list[str] = []
    for name in _SIGNALS:
        (data / name).unlink(missing_ok=True)
    files.append(_write(data / "standby.signal", ""))
    if primary.password is not None:
        escaped = primary.password.replace("\\", "\\\\").replace(":", "\\:")
        files.append(_write(passfile, f"*:*:*:*:{escaped}\n"))
    settings = {
        "primary_conninfo": conninfo(primary, application, passfile if primary.password is not None else None),
        "primary_slot_name": slot,
        "restore_command": restore_command or "",
        "recovery_target_timeline": "latest",
        **dict.fromkeys(_TARGETS, ""),
        "hot_standby": "on",
        **({"port": str(port)} if port else {}),
    }
    if not (data / "postgresql.conf").exists():
        files.append(_write(data / "postgresql.conf", _settings_of(connection)))
        warnings.append(
            "The primary keeps its configuration outside of its data directory: postgresql.conf was written anew from"
            " the settings that the role can see. Compare it with the primary's."
        )
    if not (data / "pg_hba.conf").exists():
        files.append(_write(data / "pg_hba.conf", "local all all peer\n"))
        files.append(_write(data / "pg_ident.conf", ""))
        warnings.append(
            "pg_hba.conf lets in the local socket only: copy the primary's before anybody needs the replica."
        )
    auto = data / "postgresql.auto.conf"
    there = auto.read_text(encoding="utf-8") if auto.exists() else ""
    lines = [f"{name} = {quoted(value)}" for name, value in settings.items()]
    files.append(_write(auto, there + "\n".join(["# Added by gs-backup replica create:", *lines]) + "\n"))
    return Written(tuple(files), tuple(warnings))


def conninfo(primary: Target, application: str, passfile: Path | None) -> str:
    """A connection string without a password (manual, "Connection Strings")."""
    kept = {name: value for name, value in primary.parameters.items() if name not in _NOT_KEPT}
    kept["application_name"] = application
    if passfile is not None:
        kept["passfile"] = str(passfile)
    return " ".join(f"{name}={_value(value)}" for name, value in kept.items())


def quoted(value: str) -> str:
    """A value as postgresql.conf wants it."""
    return "'" + value.replace("'", "''") + "'"


def _value(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _settings_of(connection: Connection) -> str:
    """The primary's settings that come from its files, as far as the role can see them."""
    rows = query(
        connection,
        "SELECT name, current_setting(name) FROM pg_settings WHERE source = 'configuration file' AND name <> ALL (%s)"
        " ORDER BY name",
        (list(_OF_THE_MACHINE),),
    )
    return "".join(f"{name} = {quoted(value)}\n" for name, value in rows)


def _write(path: Path, text: str) -> Path:
    """A private file, in place of what is there."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    return path
