"""Compares what surrounds a database's objects: roles, the database's own properties, populated views. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gs_backup_assets.catalogue.verdict import Finding
from gs_backup_assets.postgres.inventory import Omission
from gs_backup_assets.postgres.properties import DatabaseProperties, Grant
from gs_backup_assets.postgres.roles import Role

_HINT = "The backup does not hold what the source held: use another one, and keep this one to find out why."
_UNPOPULATED = "unpopulated_materialized_view"


def roles_differ(source: Sequence[Role], restored: Sequence[Role], ignore: Collection[str]) -> list[Finding]:
    """Roles that did not come back as they were; those in `ignore` existed before and were left as they are."""
    theirs = {role.name: role for role in restored}
    findings = []
    for role in source:
        if role.name in ignore:
            continue
        found = theirs.get(role.name)
        if found is None:
            findings.append(Finding(code="ROLE_MISSING", message=f"The role {role.name} was not restored.", hint=_HINT))
        elif found != role:
            names = [name for name in Role.model_fields if getattr(found, name) != getattr(role, name)]
            changed = {setting.name for setting in {*role.settings} ^ {*found.settings}}
            which = f" ({', '.join(sorted(changed))})" if changed else ""
            message = f"The role {role.name} differs in {', '.join(names).replace('_', ' ')}{which}."
            findings.append(Finding(code="ROLE_DIFFERS", message=message, hint=_HINT))
    return findings


def properties_differ(source: DatabaseProperties | None, restored: DatabaseProperties) -> list[Finding]:
    """Owner, comment, connection limit and grants of the database itself; nothing where they were not recorded."""
    if source is None:
        return []
    names = [name for name in DatabaseProperties.model_fields if getattr(source, name) != getattr(restored, name)]
    messages = []
    for name in names:
        if name == "grants":
            missing = [_words(grant) for grant in source.grants if grant not in restored.grants]
            more = [_words(grant) for grant in restored.grants if grant not in source.grants]
            messages.append(f"grants (missing: {', '.join(missing) or 'none'}; too many: {', '.join(more) or 'none'})")
        else:
            messages.append(name.replace("_", " "))
    return [
        Finding(code="DATABASE_DIFFERS", message=f"The database differs in {text}.", hint=_HINT) for text in messages
    ]


def views_differ(source: Sequence[Omission], restored: Sequence[Omission]) -> list[Finding]:
    """Materialized views that are populated on one side only: without rows here, or with some that nobody expects."""
    mine, yours = ({o.name for o in omissions if o.kind == _UNPOPULATED} for omissions in (source, restored))
    return [
        Finding(
            code="MATERIALIZED_VIEW_DIFFERS" if name in mine else "MATERIALIZED_VIEW_UNPOPULATED",
            message=f"{name} is {'not populated' if name in mine else 'populated'} in the source, and otherwise here.",
            hint=_HINT,
        )
        for name in sorted(mine ^ yours)
    ]


def _words(grant: Grant) -> str:
    return f"{grant.privilege} to {grant.grantee or 'PUBLIC'}"
