"""The schema as a set of named objects with digests, from a normalised `pg_dump --schema-only`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.postgres.dump import explain
from gs_backup_assets.postgres.snapshot import LOCK_WAIT_SECONDS
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.system.programs import run

_HEADER = re.compile(
    r"^--\n-- Name: (?P<name>.*); Type: (?P<type>.*); Schema: (?P<schema>.*); Owner: ?(?P<owner>.*)\n--\n", re.MULTILINE
)
# What pg_dump adds after a definition: its owner (compared on its own, since a verification server may not have the
# roles), settings that depend on the order of objects, and a random token (since the releases of August 2025). It is
# taken off the end only: the same words inside a function's body belong to the definition.
_END = re.compile(
    r"(?:\n\n|\A)(?:ALTER .* OWNER TO .*;|\\unrestrict .*|SET default_table(?:space|_access_method) = .*;)\s*\Z|\s+\Z"
)
_TRAILER = "--\n-- PostgreSQL database dump complete\n--\n"
_PRIVILEGES = ("ACL", "DEFAULT ACL")


class SchemaObject(BaseModel):
    """One object of the schema: what pg_dump calls it, its owner, and the SHA-256 of its normalised definition."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str
    object_schema: str
    name: str
    owner: str
    sha256: str

    @property
    def label(self) -> str:
        """`INDEX public.Lesson_date_idx`, for people."""
        prefix = "" if self.object_schema == "-" else f"{self.object_schema}."
        return f"{self.type} {prefix}{self.name}"

    @property
    def is_privilege(self) -> bool:
        return self.type in _PRIVILEGES


def read_schema(
    toolchain: Toolchain,
    environment: Mapping[str, str],
    *,
    snapshot: str | None = None,
    exclude: Sequence[str] = (),
    lock_wait: float = LOCK_WAIT_SECONDS,
    revalidated: Collection[str] = (),
) -> tuple[SchemaObject, ...]:
    """Run `pg_dump --schema-only` and split its output into objects. Tablespaces belong to a machine and are left out.

    Raises ProgramError like `dump.dump_database`, since it takes the same locks.
    """
    argv = [str(toolchain.program("pg_dump")), "--schema-only", "--no-tablespaces", "--no-password", *exclude]
    argv.append(f"--lock-wait-timeout={lock_wait * 1000:.0f}")
    if snapshot is not None:
        argv.append(f"--snapshot={snapshot}")
    finished = run(argv, environment=environment, capture_stdout=True)
    explain(finished, lock_wait=lock_wait)
    return split_schema(finished.stdout, revalidated=revalidated)


def definitions(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """The header of every object in a plain dump (groups `name`, `type`, `schema`, `owner`), and what follows it."""
    headers = list(_HEADER.finditer(text))
    for header, following in zip(headers, [*headers, None][1:], strict=True):
        yield header, text[header.end() : following.start() if following else len(text)]


def _without_end(body: str) -> str:
    while (match := _END.search(body)) is not None:
        body = body[: match.start()]
    return body.strip()


def split_schema(text: str, *, revalidated: Collection[str] = ()) -> tuple[SchemaObject, ...]:
    """Split a plain schema dump at its headers and digest each part; parts of one name are digested together.

    Objects named in `revalidated` (as pg_restore names entries: type, name, owner) are digested as if they were not
    marked NOT VALID.
    """
    parts: dict[tuple[str, str, str, str], list[str]] = {}
    for header, body in definitions(text.replace(_TRAILER, "")):
        key = (header["type"], header["schema"], header["name"], header["owner"])
        parts.setdefault(key, []).append(_without_end(body))
    objects = []
    for (kind, schema, name, owner), bodies in sorted(parts.items()):
        part = SchemaObject(type=kind, object_schema=schema, name=name, owner=owner, sha256="")
        definition = "\n".join(bodies)
        if any(entry.startswith(f"{kind} {name} ") for entry in revalidated):
            definition = definition.replace(" NOT VALID;", ";")
        objects.append(part.model_copy(update={"sha256": hashlib.sha256(definition.encode()).hexdigest()}))
    return tuple(objects)
