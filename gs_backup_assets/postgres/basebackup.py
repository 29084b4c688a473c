"""Drives pg_basebackup: a tar of each tablespace into a spool, compressed by the server where it can."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.errors import BackupError, ProgramError, SourceError
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.postgres.dump import Compression
from gs_backup_assets.postgres.release import Release
from gs_backup_assets.postgres.replication import refusal
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.system.programs import Program

BASE, WAL, MANIFEST = "base.tar", "pg_wal.tar", "backup_manifest"
COMPRESSION_UNKNOWN = "COMPRESSION_UNKNOWN"
# Why a server takes no incremental backup on the base that it was given; a full one is possible all the same.
INCREMENTAL_REFUSED = "INCREMENTAL_REFUSED"
LABEL = "gs_backup"
_WORKERS = 2
_PROGRESS = re.compile(r"\s*(\d+)/(\d+) kB ")
_SPEAKER = re.compile(r"^.*\b(?:error|ERROR|DETAIL|HINT):\s+")


def compressions(wanted: Compression, server: Release, programs: Release) -> tuple[str, ...]:
    """Values of `--compress` to try in turn: by the server first, which then sends less, then here, then gzip.

    What a server or a program was built with shows only when it is asked; it says so before it begins.
    """
    if wanted.method == "none":
        return ("none",) if programs.major >= 15 else ("0",)
    if programs.major < 15:  # pg_basebackup of 14 and older has gzip, by itself only
        return (str(min(wanted.level, 9)),)
    level = f"level={wanted.level}"
    gzip = f"gzip:level={min(wanted.level, 9)}"
    if wanted.method == "gzip":
        return (f"server-{gzip}", f"client-{gzip}")
    return (
        f"server-zstd:{level},workers={_WORKERS}",
        f"server-zstd:{level}",
        f"client-zstd:{level}",
        f"server-{gzip}",
        f"client-{gzip}",
    )


@dataclass(frozen=True)
class Options:
    """How a base backup is taken. `incremental` is the backup_manifest of the backup that it adds to."""

    compression: str
    checkpoint: str
    max_rate: str | None
    incremental: Path | None


def base_backup_program(
    toolchain: Toolchain,
    environment: Mapping[str, str],
    folder: Path,
    options: Options,
    *,
    on_progress: Callable[[int, int], None],
) -> Program:
    """pg_basebackup, ready to run into `folder`, which it makes; `on_progress` hears of bytes done and in all."""
    argv: list[str | Path] = [
        toolchain.program("pg_basebackup"),
        "--pgdata",
        folder,
        "--format=tar",
        "--wal-method=stream",
        "--manifest-checksums=SHA256",
        f"--checkpoint={options.checkpoint}",
        f"--compress={options.compression}",
        f"--label={LABEL}",
        "--no-sync",  # a spool; the store makes its copy durable
        "--no-password",
        "--progress",
    ]
    if options.max_rate is not None:
        argv.append(f"--max-rate={options.max_rate}")
    if options.incremental is not None:
        argv.append(f"--incremental={options.incremental}")

    def on_line(line: str) -> None:
        if match := _PROGRESS.match(line):
            on_progress(int(match[1]) * 1024, int(match[2]) * 1024)

    return Program(argv, environment=environment, on_line=on_line)


_LOST = (
    "server closed the connection",
    "terminating connection",
    "could not receive data",
    "unexpected termination of replication stream",
    "the database system is",
    "could not read COPY data",
    "SSL connection has been closed",
)
_NO_INCREMENT = (
    "unless WAL summarization is enabled",
    "WAL summaries are required",
    "WAL summarization is not progressing",
    "found in manifest, but not in this server's history",
    "manifest requires WAL from",
    "system identifier in",
)


def explain(stderr: tuple[str, ...], status: int, target: Target) -> BackupError:
    """What it was that ended pg_basebackup, from its own and the server's words."""
    lines = [line for line in stderr if line.strip() and not _PROGRESS.match(line)]
    words = "\n".join(lines)
    last = " | ".join(line.removeprefix("pg_basebackup: ") for line in lines[-4:]) or f"status {status}"
    refused = refusal(words, target)
    if refused is not None:
        return refused
    if "compress" in words and any(w in words for w in ("not supported by this build", "does not support", "worker")):
        return ProgramError(COMPRESSION_UNKNOWN, f"pg_basebackup: {last}.", "Set physical.compression to gzip:1.")
    if any(phrase in words for phrase in _NO_INCREMENT):
        cause = next(line for line in lines if any(phrase in line for phrase in _NO_INCREMENT))
        cause = _SPEAKER.sub("", cause).rstrip(".")
        return SourceError(INCREMENTAL_REFUSED, f"No incremental backup is possible: {cause}.", "Take a full one.")
    if "WAL level not sufficient" in words:
        return SourceError(
            "WAL_LEVEL_MINIMAL",
            f"{target.redacted()} writes too little WAL for a base backup.",
            "Set wal_level = replica and restart the server.",
        )
    if "No space left on device" in words or "Disk quota exceeded" in words:
        return ProgramError(
            "NO_SPACE",
            f"A disk is full, the spool's or the server's: {last}.",
            "Free space, or set TMPDIR to a larger disk: the whole compressed backup is spooled.",
        )
    if "checksum" in words and ("verification failed" in words or "checksum error" in words):
        return SourceError(
            "SOURCE_PAGES_DAMAGED",
            f"The server found pages of its own with a wrong checksum: {last}.",
            "Its disk or memory is at fault. Keep the older backups, and look at the server's log first.",
        )
    if "has already been removed" in words:
        return SourceError(
            "WAL_REMOVED",
            f"The server removed WAL that the backup needs: {last}.",
            "Raise wal_keep_size or max_slot_wal_keep_size, or the backup's max_rate, and take it again.",
        )
    if "was promoted during" in words:
        return SourceError(
            "STANDBY_PROMOTED", "The standby was promoted in the middle of the backup.", "Take the backup again."
        )
    if "replication slot" in words:
        return SourceError(
            "SLOT_FAILED",
            f"The backup's temporary replication slot failed: {last}.",
            "See pg_replication_slots and max_replication_slots, and take the backup again.",
        )
    if "could not connect" in words or ("connection to server" in words and "failed" in words):
        return SourceError(
            "SERVER_UNREACHABLE",
            f"No connection to {target.redacted()}: {last}",
            "Check the address, the network, TLS and the password; `gs-backup doctor` looks at each of them.",
        )
    if any(phrase in words for phrase in _LOST):
        return SourceError(
            "SERVER_LOST",
            f"The server went away in the middle of the backup: {last}.",
            "Look in its log for a restart or a crash, and take the backup again.",
        )
    return ProgramError(
        "PROGRAM_FAILED",
        f"pg_basebackup ended with status {status}: {last}",
        "`gs-backup doctor` checks the address, the rights and the programs.",
    )


@dataclass(frozen=True)
class WalRange:
    """The WAL that a base backup needs: from `start` to `stop`, which lies on `timeline`.

    It may begin on an older one: a standby goes on with its backup when the server that it follows is promoted.
    """

    timeline: int
    start: Lsn
    stop: Lsn


@dataclass(frozen=True)
class ServerManifest:
    """What PostgreSQL's backup_manifest says: the WAL needed, bytes and number of files, and since 17 whose it is."""

    wal: WalRange
    bytes: int
    files: int
    system_identifier: str | None


def read_manifest(path: Path) -> ServerManifest:
    """Read a backup_manifest (PostgreSQL manual, "Backup Manifest Format").

    Raises ProgramError (`SERVER_MANIFEST_INVALID`).
    """
    try:
        document = json.loads(path.read_bytes())
        ranges = [
            WalRange(int(r["Timeline"]), Lsn.parse(r["Start-LSN"]), Lsn.parse(r["End-LSN"]))
            for r in document["WAL-Ranges"]
        ]
        files = document["Files"]
        size = sum(int(file["Size"]) for file in files)
        identifier = document.get("System-Identifier")
        first, last = min(ranges, key=lambda r: r.start), max(ranges, key=lambda r: (r.stop, r.timeline))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProgramError(
            "SERVER_MANIFEST_INVALID",
            f"The backup_manifest that pg_basebackup wrote cannot be read: {error}.",
            "Take the backup again; if it stays, run pg_basebackup by hand and look at the file.",
        ) from None
    wal = WalRange(last.timeline, first.start, last.stop)
    return ServerManifest(wal, size, len(files), str(identifier) if identifier is not None else None)
