"""What a disaster recovery remembers, so that it goes on where it broke off: one sealed file beside its target."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from gs_backup_assets.catalogue.sealed import seal, unseal
from gs_backup_assets.catalogue.verdict import CheckResult
from gs_backup_assets.errors import ConfigError, StoreError
from gs_backup_assets.vault.opening import Which

Method = Literal["base", "dump"]
_NAME = "disaster_recovery"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Candidate(_Record):
    """A way back. `reaches_to` is the time of the newest commit in it, `expected_seconds` what it took the last time.

    `how_long` says where `expected_seconds` is from, or why it is not known.
    """

    method: Method
    store: Which
    backup: str
    reaches_to: AwareDatetime | None
    expected_seconds: float | None
    how_long: str
    detail: str


class StepRecord(_Record):
    """A step that is done. Seconds are its own, over all attempts; facts are what later steps and the report need."""

    name: str
    ended_at: AwareDatetime
    seconds: float
    facts: dict[str, str | int | float] = {}
    checks: tuple[CheckResult, ...] = ()


class LogLine(_Record):
    """One thing that happened, and when."""

    at: AwareDatetime
    step: str
    words: str


class DisasterState(_Record):
    """A disaster recovery. `alarm` is when the loss was told: objectives are measured from there.

    `begun` is the step at work, or the one that broke off. `refused` are ways back that could not be gone.
    """

    database: str
    alarm: AwareDatetime
    started_at: AwareDatetime
    candidates: tuple[Candidate, ...]
    refused: tuple[str, ...] = ()
    begun: str | None = None
    steps: tuple[StepRecord, ...] = ()
    log: tuple[LogLine, ...] = ()
    finished_at: AwareDatetime | None = None

    @property
    def chosen(self) -> Candidate:
        """The way back that is gone now."""
        return self.candidates[len(self.refused)]

    def done(self, name: str) -> StepRecord | None:
        """A step's record, when it is done."""
        return next((step for step in self.steps if step.name == name), None)

    def facts(self) -> dict[str, str | int | float]:
        """The facts of all steps that are done."""
        return {key: value for step in self.steps for key, value in step.facts.items()}


class StateFile:
    """The file of one recovery, `<target>.disaster.json`, written at once or not at all, readable by us only."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.disaster.json")

    def read(self) -> DisasterState | None:
        """None when there is none. StoreError (`STATE_DAMAGED`)."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return DisasterState.model_validate(unseal(_NAME, data))
        except (ValueError, ValidationError):
            raise StoreError(
                "STATE_DAMAGED", f"{self.path} is not what was written there.", "Begin anew with --restart."
            ) from None

    def write(self, state: DisasterState) -> None:
        aside = self.path.with_name(f"{self.path.name}.new")
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(seal(_NAME, state.model_dump(mode="json")))
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def set_aside(self, stamp: str) -> Path:
        """Give the file another name: a new recovery begins."""
        return self.path.rename(self.path.with_name(f"{self.path.name}.{stamp}"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One recovery at a time. ConfigError (`DISASTER_RECOVERY_RUNNING`, `INTO_UNUSABLE`)."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(
                "INTO_UNUSABLE",
                f"{self.path.parent} cannot be used: {error.strerror or error}.",
                "Choose another folder in disaster_recovery.into.",
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    "DISASTER_RECOVERY_RUNNING", f"Another process recovers to {self.path.name}.", "Wait for it."
                ) from None
            yield
        finally:
            os.close(descriptor)
