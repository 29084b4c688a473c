"""Drives pg_dump and pg_dumpall under an exported snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gs_backup_assets.errors import ConfigError, ProgramError
from gs_backup_assets.postgres.inventory import Inventory
from gs_backup_assets.postgres.snapshot import LOCK_TIMEOUT_HINT, LOCK_WAIT_SECONDS, lock_timeout_message
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.system.programs import Finished, run


@dataclass(frozen=True)
class Compression:
    """A method (`zstd`, `lz4`, `gzip`, `none`) and its level."""

    method: str
    level: int

    @staticmethod
    def parse(text: str) -> Compression:
        """Read `zstd:1`, `gzip:6`, `lz4` or `none`; ConfigError (`COMPRESSION_INVALID`) otherwise."""
        method, _, level = text.partition(":")
        if method not in ("zstd", "lz4", "gzip", "none") or not (level.isdigit() or level == ""):
            raise ConfigError(
                "COMPRESSION_INVALID", f"{text!r} is no compression.", "Write zstd:1, lz4:1, gzip:1 or none."
            )
        return Compression(method, int(level) if level else 1)

    def __str__(self) -> str:
        return "none" if self.method == "none" else f"{self.method}:{self.level}"

    def supported_by(self, toolchain: Toolchain) -> bool:
        """gzip and none work everywhere; zstd and lz4 need programs since 16 that were built with them."""
        capabilities = toolchain.capabilities
        return {"zstd": capabilities.zstd, "lz4": capabilities.lz4}.get(self.method, True)

    def argument(self, toolchain: Toolchain) -> str:
        if self.method == "none":
            return "--compress=0"
        return f"--compress={self}" if toolchain.release.major >= 16 else f"--compress={self.level}"


FALLBACK_COMPRESSION = Compression("gzip", 1)


def excluded(inventory: Inventory) -> tuple[str, ...]:
    """pg_dump's arguments that leave out what the role cannot read; the manifest lists it as omissions."""
    # A sequence's definition can be dumped without the right to read its state, and columns may depend on it.
    arguments = [
        f"--exclude-table{'-data' if relation.kind == 'S' else ''}={relation.qualified}"
        for relation in inventory.unreadable
    ]
    if not inventory.large_objects_readable:
        arguments.append("--no-blobs")
    return tuple(arguments)


def dump_database(
    toolchain: Toolchain,
    environment: Mapping[str, str],
    folder: Path,
    *,
    snapshot: str,
    jobs: int,
    compression: Compression,
    encoding: str = "UTF8",
    exclude: Sequence[str] = (),
    lock_wait: float = LOCK_WAIT_SECONDS,
    written: Callable[[int], None] = lambda _bytes: None,
) -> Finished:
    """Dump in directory format into `folder` (created by pg_dump); `written` is told the bytes on disk now and then.

    `encoding` is the database's own: not every text can be converted, and in SQL_ASCII none can. `lock_wait` is how
    many seconds to wait for a locked table. Raises ProgramError: `LOCK_TIMEOUT`, `PROGRAMS_OLDER_THAN_SERVER`,
    `NO_SPACE` or `PROGRAM_FAILED`.
    """
    argv = [
        str(toolchain.program("pg_dump")),
        "--format=directory",
        f"--file={folder}",
        f"--jobs={jobs}",
        f"--snapshot={snapshot}",
        compression.argument(toolchain),
        f"--encoding={encoding}",
        f"--lock-wait-timeout={lock_wait * 1000:.0f}",
        "--no-password",
        "--no-sync",  # a spool; the store makes its copy durable
        *exclude,
    ]

    def tick() -> None:
        if folder.is_dir():
            written(sum(entry.stat().st_size for entry in folder.iterdir()))

    finished = run(argv, environment=environment, tick=tick)
    explain(finished, lock_wait=lock_wait)
    return finished


def dump_globals(
    toolchain: Toolchain, environment: Mapping[str, str], path: Path, *, database: str, passwords: bool
) -> None:
    """Write roles, memberships and tablespaces as SQL; without `passwords` it needs few rights."""
    argv = [
        str(toolchain.program("pg_dumpall")),
        "--globals-only",
        "--no-password",
        f"--database={database}",
        f"--file={path}",
    ]
    if not passwords:
        argv.append("--no-role-passwords")
    finished = run(argv, environment=environment)
    explain(finished)
    path.chmod(0o600)


def explain(finished: Finished, *, lock_wait: float = LOCK_WAIT_SECONDS) -> None:
    """Raise the ProgramError that says why pg_dump or pg_dumpall failed; nothing when it did not."""
    if finished.status == 0:
        return
    words = "\n".join(finished.stderr)
    if "server version mismatch" in words:
        raise ProgramError(
            "PROGRAMS_OLDER_THAN_SERVER",
            f"{finished.program} is older than the server.",
            "`gs-backup toolchain add MAJOR` fetches programs of the server's major.",
        )
    # pg_dump limits its waiting by statement_timeout, and switches that off for everything else.
    if "could not obtain lock" in words or "statement timeout" in words:
        raise ProgramError("LOCK_TIMEOUT", lock_timeout_message(lock_wait), LOCK_TIMEOUT_HINT)
    if "No space left on device" in words:
        raise ProgramError(
            "NO_SPACE", f"{finished.program} filled the spool's disk.", "Free space, or set TMPDIR to a larger disk."
        )
    finished.require_success("`gs-backup doctor` checks the address, the rights and the programs.")
