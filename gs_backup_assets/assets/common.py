"""What the assets share: steps that log progress and turn errors into failures, and metadata made of results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from gs_backup_assets.assets import metadata as keys
from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.catalogue.verdict import CheckResult, Status
from gs_backup_assets.errors import BackupError
from gs_backup_assets.progress import Listener, Progress

ListenerFactory = Callable[[dg.AssetExecutionContext], Listener]

# Worth another try by themselves; anything else stays wrong until somebody does something.
_TRANSIENT = frozenset(
    {"SERVER_UNREACHABLE", "LOCK_TIMEOUT", "STORE_UNAVAILABLE", "TRANSFER_DAMAGED", "KEY_UNAVAILABLE", "BACKUP_RUNNING"}
)
_LOG_EVERY_SECONDS = 10.0


class StepLog:
    """Writes stages to the step's log, and bytes and rate every ten seconds."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._log = context.log
        self._last: dict[str, float] = {}

    def stage_started(self, stage: str) -> None:
        self._log.info(f"{stage}: started")

    def stage_advanced(self, stage: str, done: int, total: int | None, unit: str, seconds: float) -> None:
        now = time.monotonic()
        if now - self._last.setdefault(stage, now) >= _LOG_EVERY_SECONDS:
            self._last[stage] = now
            share = f" of {total / 1e6:.0f}" if total else ""
            self._log.info(f"{stage}: {done / 1e6:.0f}{share} MB, {done / 1e6 / max(seconds, 0.001):.0f} MB/s")

    def stage_ended(self, stage: str, seconds: float, ok: bool) -> None:
        self._log.info(f"{stage}: {'done' if ok else 'ended without success'} after {seconds:.2f} s")


def author(context: dg.AssetExecutionContext) -> Author:
    """Who acts in a step, for the audit log."""
    return Author.here(f"dagster run {context.run_id[:8]}")


@contextmanager
def step(context: dg.AssetExecutionContext, listener: ListenerFactory) -> Iterator[Progress]:
    """Run a plain function inside an asset: hands out progress, and turns a BackupError into a Dagster failure."""
    try:
        yield Progress(listener(context))
    except BackupError as error:
        raise failure(error) from error


def failure(error: BackupError) -> dg.Failure:
    """A Dagster failure with the error's code and hint; only what may pass by itself is retried."""
    return dg.Failure(
        description=f"{error.code}: {error.message} {error.hint}",
        metadata={keys.CODE: error.code, keys.HINT: error.hint, keys.EXIT_STATUS: int(error.exit_status)},
        allow_retries=error.code in _TRANSIENT,
    )


def check_result(
    asset: dg.AssetKey,
    name: str,
    status: Status,
    *,
    blocking: bool,
    metadata: Mapping[str, Any],
) -> dg.AssetCheckResult:
    """A Dagster check result. What could not be verified has not passed; it warns, and says so in its metadata."""
    severe = status is Status.FAILED and blocking
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=status is Status.PASSED,
        severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
        metadata={keys.STATUS: status.value, **metadata},
    )


def from_check(asset: dg.AssetKey, check: CheckResult, *, blocking: bool) -> dg.AssetCheckResult:
    """A Dagster check result from a plain one: numbers become plots, findings a list."""
    metadata: dict[str, Any] = {keys.SUMMARY: check.summary, **check.metrics}
    if check.findings:
        metadata[keys.FINDINGS] = dg.MetadataValue.md(
            "\n".join(f"- **{f.code}** {f.message.rstrip('.')}. {f.hint}" for f in check.findings)
        )
    return check_result(asset, check.name, check.status, blocking=blocking, metadata=metadata)


def evaluated(asset: dg.AssetKey, check: CheckResult, *, blocking: bool) -> dg.AssetCheckEvaluation:
    """The same as an event, for a sensor that reports without a run."""
    result = from_check(asset, check, blocking=blocking)
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=check.name,
        passed=result.passed,
        severity=result.severity,
        metadata=result.metadata,
    )
