"""The values of settings: in a file of the backup, encrypted as the dump is, never in the readable manifest."""

from __future__ import annotations

from pathlib import Path

from gs_backup_assets.catalogue.manifest import Manifest
from gs_backup_assets.catalogue.verdict import Finding
from gs_backup_assets.postgres.connection import Connection
from gs_backup_assets.postgres.settings import Assignment, Setting, parse_script, read_settings, settings_script

SETTINGS_FILE = "settings.sql"


def save_settings(connection: Connection, spool: Path) -> None:
    """Write the settings of the connected database into the spool, as a script that psql can run."""
    path = spool / SETTINGS_FILE
    path.touch(mode=0o600)
    path.write_bytes(settings_script([setting.assignment for setting in read_settings(connection)]).encode())


def fetched_settings(manifest: Manifest, fetched: Path) -> tuple[tuple[Assignment, ...], tuple[Finding, ...]]:
    """The settings of a backup whose files lie in `fetched`, and what is wrong with their file, if anything.

    A backup from before that file has the values in its manifest. A script that is not as `save_settings` writes it
    gives no settings.
    """
    if SETTINGS_FILE not in {file.path for file in manifest.files}:
        return tuple(s.assignment for s in manifest.source.settings if isinstance(s, Setting)), ()
    try:
        return parse_script((fetched / SETTINGS_FILE).read_bytes().decode()), ()
    except ValueError:  # its text may hold secrets: it is not told
        message = f"{SETTINGS_FILE} is not what a backup writes; no setting was taken from it."
        return (), (Finding(code="SETTINGS_UNSAFE", message=message, hint="Use another backup, and find out why."),)
