"""Runs configured commands, of a disaster recovery or a staging test, with its facts in their environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gs_backup_assets.config_recovery import Hook
from gs_backup_assets.errors import ConfigError, ProgramError
from gs_backup_assets.system.programs import run

PREFIX = "GS_BACKUP_RECOVERY_"
_GOES_ON = "Correct it and run this again: it goes on with this hook, what is done stays done."


def run_hook(
    hook: Hook,
    facts: Mapping[str, str | int | float],
    folder: Path,
    *,
    prefix: str = PREFIX,
    advice: str = _GOES_ON,
) -> None:
    """Run one command without a shell, in `folder`, and wait for it.

    Its environment is small: PATH, HOME and the like, what the hook's `environment` names, and each fact as
    `GS_BACKUP_RECOVERY_<NAME>`, or with another `prefix`. `advice` is the hint of a failure. Raises ConfigError
    (`HOOK_VARIABLE_MISSING`), ProgramError (`HOOK_FAILED`, `PROGRAM_UNUSABLE`).
    """
    missing = [name for name in hook.environment if name not in os.environ]
    if missing:
        raise ConfigError(
            "HOOK_VARIABLE_MISSING",
            f"The hook {hook.name!r} needs {', '.join(missing)}, which is not set.",
            "Set it and run this again.",
        )
    environment = {name: os.environ[name] for name in hook.environment}
    environment |= {f"{prefix}{name.upper()}": str(value) for name, value in facts.items()}
    try:
        done = run(list(hook.command), environment=environment, cwd=folder, timeout=hook.timeout.total_seconds())
    except ProgramError as error:
        if error.code != "PROGRAM_TIMEOUT":
            raise
        raise _failed(hook, f"took longer than {hook.timeout.total_seconds():.0f} s and was ended", advice) from error
    if done.status != 0:
        words = " | ".join(line for line in done.stderr[-3:] if line.strip()) or "(nothing on standard error)"
        raise _failed(hook, f"ended with status {done.status}: {words}", advice)


def _failed(hook: Hook, words: str, advice: str) -> ProgramError:
    return ProgramError(
        "HOOK_FAILED",
        f"The hook {hook.name!r} {words}",
        advice,
    )
