"""Drives pg_restore and psql, and says of every error what it means and whose it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from gs_backup_assets.errors import ProgramError
from gs_backup_assets.postgres.connection import Connection
from gs_backup_assets.postgres.inventory import quote
from gs_backup_assets.postgres.toolchain import Toolchain
from gs_backup_assets.system.programs import Finished, run

# Event triggers of the source would forbid the restore's own statements. Only a superuser may set this (PostgreSQL
# manual, "session_replication_role").
NO_TRIGGERS = "-c session_replication_role=replica"


class Origin(str, Enum):
    """Where the cause of a restore error lies."""

    BACKUP = "backup"
    DATA = "data"  # the data breaks a constraint; whether that was so in the source is for the equality checks to say
    ENVIRONMENT = "environment"  # the server that it is restored on lacks something
    OMISSION = "omission"  # it needs something that the dump left out, as the manifest says


@dataclass(frozen=True)
class RestoreError:
    """One error of a restore, classified. `message` is the server's first line: never its DETAIL, which shows data."""

    code: str
    origin: Origin
    entry: str
    message: str
    command: str = ""


@dataclass(frozen=True)
class _Class:
    code: str
    origin: Origin
    pattern: re.Pattern[str]


# The server's messages in the C locale. The first that matches names the error; what matches none is a failure as well.
_CLASSES = tuple(
    _Class(code, origin, re.compile(pattern))
    for code, origin, pattern in (
        (
            "EXTENSION_MISSING",
            Origin.ENVIRONMENT,
            r'extension ".*" is not available|could not open extension control file',
        ),
        ("EXTENSION_MISSING", Origin.ENVIRONMENT, r'could not access file "\$libdir/'),
        (
            "COLLATION_MISSING",
            Origin.ENVIRONMENT,
            r"could not (create locale|open collator)|ICU is not supported|collation .* does not exist",
        ),
        ("EXTENSION_NOT_PRELOADED", Origin.ENVIRONMENT, r"shared_preload_libraries|must be preloaded"),
        ("NO_SPACE", Origin.ENVIRONMENT, r"No space left on device"),
        # A materialized view reads anew when it is restored, and what it reads may lie elsewhere.
        (
            "FOREIGN_DATA_UNREACHABLE",
            Origin.ENVIRONMENT,
            r'could not connect to server "|could not establish connection|could not open file ".*" for reading',
        ),
        (
            "FOREIGN_DATA_UNREACHABLE",
            Origin.ENVIRONMENT,
            r"^user mapping not found|delegated credentials required|password is required",
        ),
        # Only a view that reads another: pg_dump does not fill what reads one that is empty in the source.
        ("DEPENDS_ON_UNPOPULATED", Origin.ENVIRONMENT, r'^materialized view ".*" has not been populated'),
        ("PROGRAMS_OLDER_THAN_SERVER", Origin.BACKUP, r'unrecognized (configuration )?parameter "'),
        ("FOREIGN_KEY_VIOLATED", Origin.DATA, r"violates foreign key constraint"),
        (
            "UNIQUE_VIOLATED",
            Origin.DATA,
            r"could not create unique index|duplicate key value violates unique constraint",
        ),
        (
            "CHECK_VIOLATED",
            Origin.DATA,
            r"violates (check|not-null) constraint|is violated by some row|contains null values",
        ),
        (
            "EXCLUSION_VIOLATED",
            Origin.DATA,
            r"could not create exclusion constraint|conflicting key value violates exclusion",
        ),
        ("ROLE_MISSING", Origin.BACKUP, r'role ".*" does not exist'),
        (
            "ARCHIVE_DAMAGED",
            Origin.BACKUP,
            r"did not find magic string|unexpected end of file|could not (read|uncompress|decompress)",
        ),
        (
            "ARCHIVE_DAMAGED",
            Origin.BACKUP,
            r"could not (open|close) (input|data|toc|TOC) file|corrupt|decompression failed|invalid (block|data)",
        ),
        (
            "DATA_UNREADABLE",
            Origin.BACKUP,
            r"invalid input syntax|invalid byte sequence|missing data for column|extra data after",
        ),
        ("OBJECT_MISSING", Origin.BACKUP, r"does not exist"),
        ("OBJECT_EXISTS", Origin.BACKUP, r"already exists"),
        ("PERMISSION_DENIED", Origin.ENVIRONMENT, r"permission denied|must be (owner|superuser|member)"),
    )
)

_ENTRY = re.compile(r"from TOC entry \d+; \d+ \d+ (.*)$")
_ERROR = re.compile(r"(?:error|fatal|FATAL|ERROR):\s+(.*)$")
# pg_restore writes the pieces of a line one by one, and its parallel jobs into the same pipe: each piece arrives whole,
# but what stands before a message may be another job's, or stand before that one's (seen with 14 to 18, eight jobs).
_BEFORE_MESSAGE = re.compile(r"(?:pg_restore:|error: |warning: | )*")
_QUERY_FAILED = re.compile(r"^could not execute query: (?:ERROR:\s*)?")
_FIRST_WORDS = "could not execute query: ", 'COPY failed for table "'  # of a message that lost what stands before it
_NO_ERROR = re.compile(r"while (INITIALIZING|PROCESSING TOC|FINALIZING)|errors ignored on restore: \d+")
_NAME = r'(?:"(?:[^"]|"")*"|[^\s."(;]+)'
_COPY = re.compile(r'COPY failed for table "(?P<table>.*?)": ')
_FOREIGN_KEY = re.compile(
    rf"^ALTER TABLE (?:ONLY )?{_NAME}\.(?P<table>{_NAME})\s+ADD CONSTRAINT (?P<name>{_NAME}) FOREIGN KEY"
)
# Entries whose restoration reads rows: what the server quotes then may be somebody's data. The names of relations and
# constraints are not, and the classes of errors that consist of them keep their quotes.
_ENTRY_READS_ROWS = re.compile(
    r"^(TABLE DATA|MATERIALIZED VIEW DATA|INDEX|CONSTRAINT|(FK |CHECK )CONSTRAINT|BLOBS?) |^$"
)
_QUOTES_DATA = frozenset({"DATA_UNREADABLE", "RESTORE_ERROR"})
_QUOTED = re.compile(r'"(?:[^"]|"(?=\w))*"|\'[^\']*\'')


def classify(message: str) -> tuple[str, Origin]:
    """The stable code and the origin of a server's or program's error message."""
    for known in _CLASSES:
        if known.pattern.search(message):
            return known.code, known.origin
    return "RESTORE_ERROR", Origin.BACKUP


def parse_errors(lines: Sequence[str]) -> tuple[RestoreError, ...]:
    """Read pg_restore's standard error into classified errors, in order."""
    errors: list[RestoreError] = []
    entry, message, command = "", "", []  # type: ignore[var-annotated]
    in_command = False

    def finish() -> None:
        nonlocal message, command, in_command
        if message:
            code, origin = classify(message)
            order = "\n".join(command).strip()
            label = _entry_of(order, message, entry)
            errors.append(RestoreError(code, origin, label, without_data(code, entry, message), order))
        message, command, in_command = "", [], False

    for line in lines:
        before = _BEFORE_MESSAGE.match(line)[0]  # type: ignore[index]
        words = line[len(before) :]
        if before.startswith(("pg_restore:", "error: ", " error: ")) or words.startswith(_FIRST_WORDS):
            finish()
            if match := _ENTRY.search(words):
                entry = match[1]
            elif _NO_ERROR.match(words):
                continue
            elif words.startswith(_FIRST_WORDS) or "error: " in before:
                message = _QUERY_FAILED.sub("", words)
            elif match := _ERROR.search(words):
                message = match[1]
        elif line.startswith("Command was: "):
            in_command, command = True, [line.removeprefix("Command was: ")]
        elif in_command:
            command.append(line)
    finish()
    return tuple(errors)


def _entry_of(command: str, message: str, entry: str) -> str:
    """The entry that an error belongs to: parallel jobs mix or omit it, but a message and its command stay together."""
    if match := _COPY.match(message):
        return f"TABLE DATA {match['table']}"
    if match := _FOREIGN_KEY.match(command):
        name = f"FK CONSTRAINT {_plain(match['table'])} {_plain(match['name'])} "
        return entry if entry.startswith(name) else f"{name}-"
    return entry or command.partition("\n")[0][:120]


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def without_data(code: str, entry: str, message: str) -> str:
    """The message without what it quotes, where that may come from a row: many people read findings."""
    if code in _QUOTES_DATA and _ENTRY_READS_ROWS.match(entry):
        table, separator, words = message.rpartition("ERROR:")
        return table + separator + _QUOTED.sub('"..."', words)
    return message


_MISSING = re.compile(r'(?:relation|type) "(?P<name>.+?)" does not exist')
_CREATED = re.compile(
    rf"^CREATE (?:OR REPLACE )?(?:UNLOGGED )?(?:TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE|TYPE|DOMAIN)"
    rf" (?P<schema>{_NAME})\.(?P<name>{_NAME})"
)


def trace_causes(errors: Sequence[RestoreError], omitted: Collection[str]) -> tuple[RestoreError, ...]:
    """Give errors that only follow from others, or from what the dump left out, the cause's code and origin.

    `omitted` holds quoted, qualified names; what needs one of them is `DEPENDS_ON_OMITTED`. What could not be created
    for such a reason, or because the server lacks something, is missing to others in turn.
    """
    causes = {_unquoted(name): ("DEPENDS_ON_OMITTED", Origin.OMISSION) for name in omitted}
    traced = []
    for error in errors:
        match = _MISSING.search(error.message) if error.code == "OBJECT_MISSING" else None
        code, origin = causes.get(match["name"] if match else "", (error.code, error.origin))
        traced.append(replace(error, code=code, origin=origin))
        if origin in (Origin.ENVIRONMENT, Origin.OMISSION) and (created := _CREATED.match(error.command)):
            causes[f"{_plain(created['schema'])}.{_plain(created['name'])}"] = code, origin
    return tuple(traced)


def _unquoted(qualified: str) -> str:
    """`"public"."User"` as the server writes it in messages: public.User."""
    return ".".join(part.replace('""', '"') for part in re.findall(r'"((?:[^"]|"")*)"', qualified))


def restore_sections(
    toolchain: Toolchain,
    environment: Mapping[str, str],
    folder: Path,
    *,
    sections: Sequence[str],
    jobs: int,
    owners: bool = True,
    use_list: Path | None = None,
    tick: Callable[[], None] | None = None,
) -> tuple[RestoreError, ...]:
    """Run pg_restore on the given sections (`pre-data`, `data`, `post-data`) and return its errors, classified.

    The target database is the one that the environment's service file names. pg_restore goes on after errors, so
    that all of them are seen; its exit status is only believed together with them. Without `owners` neither roles nor
    privileges are restored, and a policy for a role that is not there is no fault of the backup.
    """
    argv = [
        str(toolchain.program("pg_restore")),
        "--format=directory",
        f"--jobs={jobs}",
        "--dbname=service=gs_backup",
        "--no-password",
        "--no-tablespaces",
        *(f"--section={section}" for section in sections),
    ]
    if not owners:
        argv += ["--no-owner", "--no-privileges"]
    if use_list is not None:
        argv.append(f"--use-list={use_list}")
    # All lines are kept, not only the last: what comes first is the cause of what follows.
    lines: list[str] = []
    options = f"-c client_min_messages=error {NO_TRIGGERS if owners else ''}"
    finished = run([*argv, folder], environment={**environment, "PGOPTIONS": options}, tick=tick, on_line=lines.append)
    errors = _judge(finished, parse_errors(lines))
    if owners:
        return errors
    return tuple(replace(e, origin=Origin.ENVIRONMENT) if e.code == "ROLE_MISSING" else e for e in errors)


def _judge(finished: Finished, errors: tuple[RestoreError, ...]) -> tuple[RestoreError, ...]:
    if finished.status != 0 and not errors:
        words = " | ".join(finished.stderr[-3:]) or "no output"
        return (RestoreError("RESTORE_ERROR", Origin.BACKUP, finished.program, f"status {finished.status}: {words}"),)
    return errors


_ROLE_LINE = re.compile(r'^(?:CREATE|ALTER) ROLE (?P<role>"(?:[^"]|"")*"|[^\s;"]+)[\s;]')
_TABLESPACE_LINE = re.compile(
    r"^(CREATE TABLESPACE|ALTER TABLESPACE|COMMENT ON TABLESPACE|(GRANT|REVOKE) .* ON TABLESPACE)\b"
)


# What psql would take for a command of its own stands outside of quotes; pg_dumpall writes none but these two.
_INERT = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|^--[^\n]*$""", re.MULTILINE)
_RESTRICT = re.compile(r"^\\(?:un)?restrict \w+$", re.MULTILINE)
# Where the server's message goes on with a setting's value, or with what it could not read: both may be secrets.
_BEFORE_VALUE = re.compile(r'(?<="): | at or near ')


def apply_globals(
    toolchain: Toolchain,
    environment: Mapping[str, str],
    globals_sql: Path,
    spool: Path,
    *,
    existing_roles: Collection[str],
) -> tuple[RestoreError, ...]:
    """Create the roles of `globals.sql` with psql.

    Roles that exist already are left as they are, tablespaces are left out. The filtered script is written into
    `spool`, since it may hold password verifiers. A script with psql's own commands in it, which could run programs on
    this machine, is not run at all (`GLOBALS_UNSAFE`).
    """
    text = _RESTRICT.sub("", globals_sql.read_text(encoding="utf-8"))
    if "\\" in _INERT.sub("", text):
        message = "it holds commands for psql, which pg_dumpall does not write"
        return (RestoreError("GLOBALS_UNSAFE", Origin.BACKUP, "globals.sql", message),)
    skip = {*existing_roles, *(quote(role) for role in existing_roles)}
    lines = []
    for line in text.split("\n"):  # splitlines would cut at form feeds as well
        role = _ROLE_LINE.match(line)
        if (role and role["role"] in skip) or _TABLESPACE_LINE.match(line):
            continue
        lines.append(line)
    script = spool / "globals.filtered.sql"
    script.touch(mode=0o600)
    script.write_text("\n".join(lines), encoding="utf-8")
    argv: list[str | Path] = [toolchain.program("psql"), "--no-psqlrc", "--quiet", "--no-password", f"--file={script}"]
    finished = run(argv, environment=environment)
    script.unlink()
    errors = []
    for line in finished.stderr:
        if match := re.search(r":\s+(?:ERROR|FATAL):\s+(.*)$", line) or re.search(r"error: (.*)$", line):
            code, origin = classify(match[1])
            message = _BEFORE_VALUE.split(match[1], maxsplit=1)[0]
            errors.append(RestoreError(code, origin, "globals.sql", message))
    return _judge(finished, tuple(errors))


def add_not_valid(connection: Connection, errors: Sequence[RestoreError]) -> tuple[str, ...]:
    """Add the foreign keys that existing rows violate as NOT VALID, so that at least new rows are checked.

    Returns the entries that could be added so. A database whose data broke a foreign key before the backup was taken
    cannot be restored with that key validated.
    """
    import psycopg2

    added = []
    for error in errors:
        if error.code != "FOREIGN_KEY_VIOLATED" or not error.command.endswith(";"):
            continue
        try:
            with connection.cursor() as cursor:
                cursor.execute(error.command[:-1] + " NOT VALID;")
        except psycopg2.Error:
            continue  # a partitioned table cannot have one: the error stays what it is
        added.append(error.entry)
    return tuple(added)


@dataclass(frozen=True)
class TocEntry:
    """One line of `pg_restore --list`, and its label: kind, schema, name and owner, which only spaces separate."""

    line: str
    label: str


_TOC_LINE = re.compile(r"\d+; \d+ \d+ (?P<label>.+)")


def list_entries(toolchain: Toolchain, folder: Path, *, section: str) -> tuple[TocEntry, ...]:
    """One section of the archive's table of contents; ProgramError (`ARCHIVE_DAMAGED`) when it cannot be read."""
    finished = run([toolchain.program("pg_restore"), "--list", f"--section={section}", folder], capture_stdout=True)
    if finished.status != 0:
        raise ProgramError(
            "ARCHIVE_DAMAGED",
            f"pg_restore cannot read the table of contents: {' | '.join(finished.stderr[-2:])}",
            "Use another backup; `gs-backup list` shows which are proven.",
        )
    entries = []
    for line in finished.stdout.split("\n"):
        if match := _TOC_LINE.fullmatch(line):
            entries.append(TocEntry(line, match["label"]))
    return tuple(entries)
