"""The command that is told to people: it can be pasted into a shell, whatever the folder's name is."""

from __future__ import annotations

import shlex
from pathlib import Path

from gs_backup_assets.postgres.pg_ctl import start_command
from gs_backup_assets_tests.conftest import toolchain_of


def test_names_with_blanks_and_quotes_are_quoted() -> None:
    data, log = Path("/srv/bob's disk/data"), Path("/srv/bob's disk/log")
    words = shlex.split(start_command(toolchain_of(17), data, log))
    assert words[1:] == ["-D", str(data), "-l", str(log), "start"]
