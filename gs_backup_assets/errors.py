"""Every error a user can meet: a stable code, what happened, what to do, and the exit status of the command line."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit statuses of `gs-backup`; scripts depend on these numbers."""

    GOOD = 0
    FAILED = 1
    USAGE = 2
    NOT_VERIFIED = 3
    PROGRAM = 4


class BackupError(Exception):
    """Base of the family.

    `code` is stable and meant for scripts, `message` says what happened, `hint` what to do about it.
    None of the three may hold a secret: they reach logs, run pages and messages.
    """

    exit_status: ExitStatus = ExitStatus.PROGRAM

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(f"{code}: {message} {hint}")
        self.code = code
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[BackupError], tuple[str, str, str]]:
        return type(self), (self.code, self.message, self.hint)


class ConfigError(BackupError):
    """The configuration or the command line is wrong; nothing was started."""

    exit_status = ExitStatus.USAGE


class ProofFailed(BackupError):
    """A proof, check or policy came out negative."""

    exit_status = ExitStatus.FAILED


class NotVerifiable(BackupError):
    """Something could not be checked; this is never a pass."""

    exit_status = ExitStatus.NOT_VERIFIED


class SourceError(BackupError):
    """The source database cannot be reached, or refuses what a backup needs."""


class StoreError(BackupError):
    """The store cannot be read or written, or holds something that is not a backup."""


class ProgramError(BackupError):
    """One of PostgreSQL's programs is missing, unfit, or failed."""
