"""Drives pg_amcheck: are tables and indexes of a restored database sound inside?"""

from __future__ import annotations

from collections.abc import Mapping

from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.system.programs import run


def run_amcheck(toolchain: Toolchain, environment: Mapping[str, str], database: str, *, jobs: int) -> tuple[str, ...]:
    """Check every heap and B-tree; returns the lines that report damage, empty when all is sound.

    Installs the extension amcheck where it is missing, so call it after the schema has been compared. Raises
    ProgramError (`PROGRAM_FAILED`) when the check itself could not run: pg_amcheck says 2 for damage, 1 for failure.
    """
    argv = [
        str(toolchain.program("pg_amcheck")),
        f"--database={database}",
        "--install-missing",
        f"--jobs={jobs}",
        "--no-password",
    ]
    finished = run(argv, environment=environment, capture_stdout=True)
    if finished.status == 2:
        return tuple(line.strip() for line in finished.stdout.splitlines() if line.strip())
    finished.require_success("The check needs the extension amcheck on the server that the backup was restored to.")
    return ()
