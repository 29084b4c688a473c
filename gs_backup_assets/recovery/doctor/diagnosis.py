"""One finding of the doctor: a check, how it came out, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.catalogue.verdict import Status

_SHOWN = 20


class Diagnosis(BaseModel):
    """One check. `summary` is a sentence, `details` are particulars, `sql` is for an administrator to run as it is.

    `narrower_sql` is another way to the same, for those to whom the first statement of `sql` gives too much.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    status: Status
    summary: str
    details: tuple[str, ...] = ()
    hint: str = ""
    sql: tuple[str, ...] = ()
    narrower_sql: tuple[str, ...] = ()

    @property
    def is_note(self) -> bool:
        """Nothing that a backup needs is missing, but there is something to recommend."""
        return self.status is Status.PASSED and bool(self.hint)


def passed(name: str, summary: str, details: Sequence[str] = (), hint: str = "") -> Diagnosis:
    """What a backup needs here is there."""
    return Diagnosis(name=name, status=Status.PASSED, summary=summary, details=tuple(details), hint=hint)


def failed(name: str, summary: str, details: Sequence[str] = (), hint: str = "", sql: Sequence[str] = ()) -> Diagnosis:
    """It is not there: a backup, or its proof, would fail or be incomplete."""
    return Diagnosis(
        name=name, status=Status.FAILED, summary=summary, details=tuple(details), hint=hint, sql=tuple(sql)
    )


def not_verified(name: str, reason: str, details: Sequence[str] = (), hint: str = "") -> Diagnosis:
    """The check could not run, or could not tell."""
    return Diagnosis(name=name, status=Status.NOT_VERIFIED, summary=reason, details=tuple(details), hint=hint)


def listed(names: Sequence[str]) -> tuple[str, ...]:
    """The first names in full, the others counted."""
    rest = len(names) - _SHOWN
    return (*names[:_SHOWN], *((f"and {rest} more",) if rest > 0 else ()))
