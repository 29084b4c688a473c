"""Where the server was and where the archive was, as the stream of the write-ahead log saw it: a few small records.

An idle server writes no log. That it had flushed up to `server_lsn` at a moment, together with archived bytes up to
there, shows that nothing was lost until that moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone

from pydantic import AwareDatetime, BaseModel, ConfigDict, field_validator

from gs_backup_assets.catalogue.sealed import seal, unseal
from gs_backup_assets.catalogue.wal_archive import archive_folder
from gs_backup_assets.errors import StoreError
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.vault.store import Store, keys, unless_there

POSITIONS = "positions"
KEPT = 3
_STEM = "%Y%m%dT%H%M%S%fZ"
_KEY = re.compile(r"\d{8}T\d{12}Z\.json")


class Position(BaseModel):
    """One look at the server. `at` is aware, in UTC, by the clock of the machine that streams.

    `timeline` is the one that the server writes. `server_lsn` is what it had flushed, `archived_lsn` up to where the
    archive had the log, both as PostgreSQL writes positions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system_identifier: str
    timeline: int
    at: AwareDatetime
    server_lsn: str
    archived_lsn: str

    @field_validator("at")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.astimezone(timezone.utc)

    @field_validator("server_lsn", "archived_lsn")
    @classmethod
    def _position(cls, value: str) -> str:
        return str(Lsn.parse(value))

    @property
    def lag_bytes(self) -> int:
        """How many bytes of the log the archive lacked."""
        return max(0, Lsn.parse(self.server_lsn).value - Lsn.parse(self.archived_lsn).value)


def positions_folder(database: str, system_identifier: str) -> str:
    """`<database>/wal/<system identifier>/positions`."""
    return f"{archive_folder(database, system_identifier)}/{POSITIONS}"


def put_position(store: Store, database: str, position: Position) -> None:
    """Store a record, and remove all but the newest ones. Raises what the store raises.

    A record of the same microsecond stays: nothing is lost by that.
    """
    folder = positions_folder(database, position.system_identifier)
    data = seal("position", position.model_dump(mode="json"))
    with unless_there():
        store.put_bytes(data, f"{folder}/{position.at.strftime(_STEM)}.json", locked=False)
    for key in _stored(store, folder)[:-KEPT]:
        store.delete(key)


def newest_position(store: Store, database: str, system_identifier: str) -> Position | None:
    """The newest record of a cluster; None when there is none. Raises what `positions` does."""
    return next(positions(store, database, system_identifier), None)


def positions(store: Store, database: str, system_identifier: str) -> Iterator[Position]:
    """The records of a cluster, the newest first.

    One that cannot be read is passed over for the one before it: an older record claims less. When none can be read,
    StoreError (`POSITION_DAMAGED`).
    """
    damaged: StoreError | None = None
    read = False
    for key in reversed(_stored(store, positions_folder(database, system_identifier))):
        try:
            with store.open(key) as stream:
                position = Position.model_validate(unseal("position", stream.read()))
        except StoreError as error:
            if error.code != "OBJECT_MISSING":  # it was removed this moment, for a newer one
                raise
        except ValueError:  # pydantic's ValidationError is one
            damaged = _damaged(key)
        else:
            if position.system_identifier == system_identifier:
                read = True
                yield position
            else:
                damaged = _damaged(key)
    if damaged is not None and not read:
        raise damaged


def _stored(store: Store, folder: str) -> list[str]:
    return [key for key in keys(store, folder) if _KEY.fullmatch(key.rpartition("/")[2])]


def _damaged(key: str) -> StoreError:
    return StoreError(
        "POSITION_DAMAGED",
        f"{key} is not a record of the stream.",
        "The stream writes the next one within its `partial_every`; see that `gs-backup wal stream` runs.",
    )
