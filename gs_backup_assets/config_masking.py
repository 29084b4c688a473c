"""The section `anonymise` of backup.yaml: which columns are masked in a copy, and by which rule."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator

FakeKind = Literal["name", "email", "phone", "address", "url", "text", "date"]
FAKES: tuple[str, ...] = get_args(FakeKind)
_ADVICE = f"write hash, null, {{constant: VALUE}} or {{fake: KIND}} with one of {', '.join(FAKES)}"


def _rule(value: Any) -> Any:
    """The one form that a rule has inside: `hash`, `null`, `constant:VALUE` or `fake:KIND`."""
    if value is None:
        return "null"  # YAML's own null
    if isinstance(value, dict) and len(value) == 1:
        ((name, of),) = value.items()
        if name == "constant" and isinstance(of, str | int | float):
            value = f"constant:{str(of).lower() if isinstance(of, bool) else of}"
        elif name == "fake":
            value = f"fake:{of}"
    name, _, of = value.partition(":") if isinstance(value, str) else ("", "", "")
    if value in ("hash", "null") or name == "constant" or (name == "fake" and of in FAKES):
        return value
    raise ValueError(_ADVICE)


MaskRule = Annotated[str, BeforeValidator(_rule)]


class Anonymise(BaseModel):
    """Columns that are masked wherever a copy leaves production: on staging, and in dumps for developers.

    `tables` has, for each table (`schema.table` outside of public), its columns with their rules. `key_env` names the
    variable with the secret by which values are masked: with the same one equal values are masked equally every time;
    without, a new one is drawn for each copy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: dict[str, dict[str, MaskRule]]
    key_env: str | None = None

    @field_validator("tables")
    @classmethod
    def _something(cls, value: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        if not any(value.values()):
            raise ValueError("name at least one column")
        return value
