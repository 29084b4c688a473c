"""The doctor: checks everything that a backup and its proof need, and says what to do about what is not there."""

from __future__ import annotations

import os
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.catalogue.objectives import unknown_tables
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, SourceError
from gs_backup_assets.postgres import grants
from gs_backup_assets.postgres.connection import (
    Connection,
    ServerFacts,
    Target,
    connect,
    query,
    server_facts,
    target_from_environment,
)
from gs_backup_assets.postgres.database import DatabaseFacts, database_facts
from gs_backup_assets.postgres.inventory import Inventory, take_inventory
from gs_backup_assets.postgres.release import NEWEST_SUPPORTED_MAJOR, OLDEST_SUPPORTED_MAJOR
from gs_backup_assets.postgres.snapshot import exported_snapshot
from gs_backup_assets.recovery import doctor_machine as machine
from gs_backup_assets.recovery import doctor_network as network

_SHOWN = 20  # names listed in full; more are counted


class Diagnosis(BaseModel):
    """One check: its name, how it came out, a sentence, the particulars, what to do, and SQL to run as an administrator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    status: Status
    summary: str
    details: tuple[str, ...] = ()
    hint: str = ""
    sql: tuple[str, ...] = ()
