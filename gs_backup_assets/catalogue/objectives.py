"""Recovery objectives by data class: how much may be lost (RPO), and how soon it must be back (RTO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from pydantic import BaseModel, ConfigDict

DEFAULT_CLASS = "important"
CRITICAL_CLASS = "critical"


class Objective(BaseModel):
    """Targets of one data class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rpo: timedelta
    rto: timedelta


def class_of(table: str, classes: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """The data class of a table name without schema; tables that no class names are `important`."""
    for name, tables in classes.items():
        if any(table in alternatives for alternatives in tables):
            return name
    return DEFAULT_CLASS


def tables_of(wanted: str, present: Sequence[str], classes: Mapping[str, Sequence[Sequence[str]]]) -> tuple[str, ...]:
    """The tables among `present` that belong to the class `wanted`."""
    return tuple(table for table in present if class_of(table, classes) == wanted)


def unknown_tables(present: Sequence[str], classes: Mapping[str, Sequence[Sequence[str]]]) -> tuple[str, ...]:
    """Entries of the classes of which no alternative exists: their objectives cannot be verified."""
    return tuple("/".join(names) for tables in classes.values() for names in tables if not set(names) & set(present))
