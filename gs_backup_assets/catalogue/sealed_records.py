"""Histories of sealed records, one object each below a database's folder: the newest of them, read back."""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import BaseModel

from gs_backup_assets.catalogue.sealed import unseal
from gs_backup_assets.vault.store import Store, keys

_Record = TypeVar("_Record", bound=BaseModel)


def read_newest(
    store: Store, prefix: str, pattern: re.Pattern[str], *, name: str, model: type[_Record], newest: int
) -> tuple[_Record, ...]:
    """The newest records below `prefix` that can be read, the oldest first; their keys there fit `pattern`.

    A damaged one proves nothing, and is left out. Raises what the store raises.
    """
    found = [key for key in keys(store, prefix) if pattern.fullmatch(key.removeprefix(f"{prefix}/"))]
    records = []
    for key in sorted(found, key=lambda key: key.rpartition("/")[2])[-newest:]:
        with store.open(key) as stream:
            try:
                records.append(model.model_validate(unseal(name, stream.read())))
            except ValueError:  # pydantic's ValidationError is one
                continue
    return tuple(records)
