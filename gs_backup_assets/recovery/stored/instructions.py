"""Leaves word in a store of how to get a database back from it, for whoever has nothing else."""

from __future__ import annotations

from importlib.resources import files

from gs_backup_assets.errors import StoreError
from gs_backup_assets.vault.store import Store

NAME = "RESTORE.txt"


def leave_instructions(store: Store) -> None:
    """Put `RESTORE.txt` at the top of a store that has none; one that is there is left alone. StoreError."""
    if store.exists(NAME):
        return
    try:
        store.put_bytes(files(__package__).joinpath(NAME).read_bytes(), NAME, locked=False)
    except StoreError as error:
        if error.code != "OBJECT_EXISTS":  # another backup was quicker
            raise
