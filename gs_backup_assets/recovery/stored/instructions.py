"""Leaves word in a store of how to get a database back from it, for whoever has nothing else."""

from __future__ import annotations

from importlib.resources import files

from gs_backup_assets.vault.store import Store, unless_there

NAME = "RESTORE.txt"


def leave_instructions(store: Store) -> None:
    """Put `RESTORE.txt` at the top of a store that has none; one that is there is left alone. StoreError."""
    if store.exists(NAME):
        return
    with unless_there():
        store.put_bytes(files(__package__).joinpath(NAME).read_bytes(), NAME, locked=False)
