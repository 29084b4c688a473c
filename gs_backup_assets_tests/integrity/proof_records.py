"""Proofs and manifests made up for reports, and a reader of the pages that come of them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser

from gs_backup_assets.catalogue.manifest import DumpRecord, Manifest, ServerRecord, StoredFile
from gs_backup_assets.catalogue.proof import (
    DECISIVE_CHECKS,
    Blame,
    ForeignKeyOutcome,
    ProofRecord,
    RuleOutcome,
    TableOutcome,
)
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, verdict_of
from gs_backup_assets.postgres.database import DatabaseFacts, Extension
from gs_backup_assets.postgres.fingerprint import Fingerprint, Level, TablePrint
from gs_backup_assets.postgres.inventory import Omission
from gs_backup_assets.postgres.schema import SchemaObject

TAKEN = datetime(2026, 11, 22, 8, 0, 3, tzinfo=timezone.utc)
BACKUP = "20261122T080003Z"
_NAMES = (  # the tables of the sample database
    "Account BackgroundJobLog Curriculum CurriculumItem CurriculumSection EmailPreference EmailTemplate Invoice",
    "InvoiceItem Lesson LessonAttachment LessonLink LibraryItem MonthlyBilling PasswordResetToken Recommendation",
    "RecurringSlot Session SlotSubscription StudentChecklist StudentChecklistItem StudentCurriculumProgress",
    "StudentInvitation StudentItemProgress StudentProfile SystemSettings TeacherAvailability TeacherLessonSettings",
    "TeacherProfile User VerificationToken",
)
NAMES = " ".join(_NAMES).split()
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
SUMMARIES = {
    "stored_bytes_match": "34 files, 11482116 bytes, all as stored",
    "everything_included": "no rows of the source were left out",
    "restore_clean": "restored without an error",
    "rows_equal": "118204 rows in 31 tables, as in the source",
    "contents_equal": "the contents of 31 tables are those of the source's snapshot",
    "schema_equal": "214 objects are defined as in the source",
    "sequences_equal": "2 sequences stand where they stood",
    "amcheck_clean": "heaps and indexes are sound",
    "foreign_keys_hold": "39 foreign keys hold",
    "rto_met": "usable after 8.6 s, the target is 3600 s",
}


class Page(HTMLParser):
    """Reads a page: balance of its tags, what it refers to, and its text in order."""

    def __init__(self, html: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html.decode())
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {tag} {attrs}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "body" in self.open:
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def tables(count: int = 31) -> tuple[TableOutcome, ...]:
    names = [NAMES[i] if i < len(NAMES) else f"table_{i}" for i in range(count)]
    return tuple(
        TableOutcome(
            name=f'"public"."{name}"',
            source_rows=i * i * 13,
            restored_rows=i * i * 13,
            contents_equal=True,
            total_bytes=8192 + i * i * 1711,
        )
        for i, name in enumerate(names)
    )


def a_manifest(**changes: object) -> Manifest:
    prints = tuple(
        TablePrint(table_schema="public", name=name, rows=i * 100, content="1", total_bytes=8192 * (i + 1))
        for i, name in enumerate(NAMES)
    )
    fields: dict[str, object] = {
        "id": BACKUP,
        "database": "guitar_strategies",
        "partition": "2026-11-22",
        "timezone": "America/Chicago",
        "software": "0.1.0",
        "snapshot_at": TAKEN,
        "finished_at": TAKEN + timedelta(seconds=7.2),
        "server": ServerRecord(
            release="15.20", system_identifier="7423890123456789012", in_recovery=False, lsn="0/2A3F4B80"
        ),
        "source": DatabaseFacts(
            name="neondb",
            encoding="UTF8",
            collate="en_US.utf8",
            ctype="en_US.utf8",
            provider="c",
            locale=None,
            collation_version="2.36",
            total_bytes=41_284_123,
            bootstrap_role="postgres",
            extensions=(Extension(name="pgcrypto", version="1.3"),),
            settings=(),
        ),
        "dump": DumpRecord(programs="17.10", compression="zstd:1", jobs=4, role_passwords=False),
        "files": tuple(
            StoredFile(path=f"dump/{3400 + i}.dat.zst", size=1234 * (i + 1) ** 2, sha256=f"{i:02x}" * 32)
            for i in range(34)
        ),
        "fingerprint": Fingerprint(level=Level.FULL, tables=prints),
        "schema_objects": (
            SchemaObject(type="TABLE", object_schema="public", name="User", owner="app", sha256="0" * 64),
        ),
        "omissions": (),
        "warnings": ("The role is not a superuser: roles are backed up without their passwords.",),
        "stage_seconds": {"dump": 5.0, "store": 1.1},
        **changes,
    }
    return Manifest.model_validate(fields)


def check(name: str, status: Status = Status.PASSED, summary: str = "", *findings: Finding) -> CheckResult:
    return CheckResult(name=name, status=status, summary=summary or SUMMARIES[name], findings=findings)


def a_rule(number: int, status: Status = Status.PASSED, **changes: object) -> RuleOutcome:
    fields: dict[str, object] = {
        "id": f"rule_{number:02}",
        "title": f"Number {number} of {NAMES[number % 31]} is as it should be",
        "severity": "warning" if number % 3 else "critical",
        "table": f'"public"."{NAMES[number % 31]}"',
        "status": status,
        "unexpected": 0,
        "rows": 1000 * number,
        **changes,
    }
    return RuleOutcome.model_validate(fields)


def a_key(number: int, status: Status = Status.PASSED, **changes: object) -> ForeignKeyOutcome:
    table, parent = NAMES[number % 31], NAMES[(number * 7 + 3) % 31]
    fields: dict[str, object] = {
        "name": f"{table}_{parent}Id_fkey",
        "table": f'"public"."{table}"',
        "columns": (f"{parent[0].lower()}{parent[1:]}Id",),
        "references": f'"public"."{parent}"',
        "validated": True,
        "status": status,
        "orphans": 0,
        **changes,
    }
    return ForeignKeyOutcome.model_validate(fields)


def a_record(*others: CheckResult, **changes: object) -> ProofRecord:
    """A proof in which everything held, but for `others` in place of the checks of the same name."""
    checks = {name: check(name) for name in SUMMARIES} | {other.name: other for other in others}
    fields: dict[str, object] = {
        "backup_id": BACKUP,
        "database": "guitar_strategies",
        "partition": "2026-11-22",
        "manifest_sha256": "c0ffee" * 10 + "abcd",
        "started_at": TAKEN + timedelta(minutes=2),
        "finished_at": TAKEN + timedelta(minutes=2, seconds=21),
        "software": "0.1.0",
        "programs": "17.10",
        "server": "throwaway PostgreSQL 17.10",
        "verdict": verdict_of(checks[name] for name in DECISIVE_CHECKS),
        "checks": tuple(checks.values()),
        "rules": tuple(a_rule(i) for i in range(40)),
        "foreign_keys": tuple(a_key(i) for i in range(39)),
        "tables": tables(),
        "blame": Blame.PRODUCTION,
        "stage_seconds": {
            "amcheck": 1.84,
            "analyze": 0.61,
            "cluster": 1.92,
            "equality": 2.2,
            "fetch": 0.38,
            "foreign keys": 0.21,
            "restore": 5.74,
            "rules": 7.7,
            "schema": 0.41,
        },
        "rto_seconds": 8.65,
        "rto_target_seconds": 3600.0,
        **changes,
    }
    return ProofRecord.model_validate(fields)


def broken_in_production() -> tuple[ProofRecord, Manifest]:
    keys = tuple(f"cm3x{i:02}k9q000{i}" for i in range(6))
    violated = Finding(
        code="FOREIGN_KEY_VIOLATED", message='"public"."Lesson" Lesson_studentId_fkey: 6 rows refer to nothing.'
    )
    hold = check(
        "foreign_keys_hold", Status.FAILED, "1 of 39 foreign keys are violated, 0 could not be tested", violated
    )
    broken = [a_rule(i, Status.FAILED, unexpected=6 * i + 2, sample_keys=keys) for i in (3, 10, 17)]
    rules = tuple(next((b for b in broken if b.id == f"rule_{i:02}"), a_rule(i)) for i in range(40))
    lost = a_key(9, Status.FAILED, orphans=6, sample_keys=keys, validated=False)
    foreign_keys = tuple(lost if i == 9 else a_key(i) for i in range(39))
    omission = Omission(
        kind="foreign_table",
        name='"public"."remote_log"',
        reason="its rows live on another server; only its definition is dumped",
        loses_data=False,
    )
    return a_record(hold, rules=rules, foreign_keys=foreign_keys), a_manifest(omissions=(omission,))


def failed_comparison() -> tuple[ProofRecord, Manifest]:
    hint = "The backup does not hold what the source held: use another one, and keep this one to find out why."
    rows = tuple(
        Finding(code="ROWS_DIFFER", message=f'"public"."{n}": 812 rows in the source, 790 restored.', hint=hint)
        for n in NAMES[:8]
    )
    contents = Finding(code="CONTENTS_DIFFER", message='"public"."Lesson" does not hold the source\'s rows.', hint=hint)
    outcomes = [t.model_copy(update={"restored_rows": 790, "contents_equal": False}) for t in tables()[:8]]
    outcomes[0] = outcomes[0].model_copy(update={"restored_rows": None, "contents_equal": None})
    late = Finding(
        code="RTO_EXCEEDED", message="usable after 5000.0 s, the target is 3600 s", hint="Give it more jobs."
    )
    record = a_record(
        check("rows_equal", Status.FAILED, "8 of 31 tables have other rows than the source", *rows),
        check("contents_equal", Status.FAILED, "8 differ from the source's snapshot", contents),
        check("rto_met", Status.FAILED, "usable after 5000.0 s, the target is 3600 s", late),
        rules=(a_rule(1, Status.FAILED, unexpected=22), *(a_rule(i) for i in range(2, 40))),
        tables=(*outcomes, *tables()[8:]),
        blame=Blame.BACKUP,
        stage_seconds={"fetch": 400.0, "cluster": 2.0, "restore": 4498.0, "analyze": 100.0, "equality": 700.0},
        rto_seconds=5000.0,
    )
    return record, a_manifest()


def not_verified_early() -> tuple[ProofRecord, Manifest]:
    reason = "The throwaway PostgreSQL 17.10 has no extension postgis."
    hint = "Install it for the programs used here, or name a server that has it in verification.server_url_env."
    finding = Finding(code="EXTENSION_MISSING", message=reason, hint=hint)
    names = (*DECISIVE_CHECKS[2:], "foreign_keys_hold")
    open_checks = [check(name, Status.NOT_VERIFIED, reason, finding) for name in names]
    no_rto = Finding(code="NOT_RESTORED", message="it was not restored")
    record = a_record(
        *open_checks,
        check("rto_met", Status.NOT_VERIFIED, "it was not restored", no_rto),
        rules=tuple(
            a_rule(i, Status.NOT_VERIFIED, table=None, unexpected=None, rows=None, reason=reason) for i in range(40)
        ),
        foreign_keys=(),
        tables=(),
        blame=Blame.UNKNOWN,
        stage_seconds={"fetch": 0.38, "cluster": 1.92},
        rto_seconds=None,
        server=None,
        programs=None,
    )
    return record, a_manifest()


def damaged_manifest() -> tuple[ProofRecord, None]:
    finding = Finding(
        code="MANIFEST_DAMAGED", message="The manifest is not what was written.", hint="Use another backup."
    )
    reason = "the stored bytes are not those that were backed up"
    others = [
        check(name, Status.NOT_VERIFIED, reason, Finding(code="BYTES_DIFFER", message=reason))
        for name in (*DECISIVE_CHECKS[1:], "foreign_keys_hold", "rto_met")
    ]
    record = a_record(
        check("stored_bytes_match", Status.FAILED, "the manifest is damaged", finding),
        *others,
        rules=(),
        foreign_keys=(),
        tables=(),
        blame=Blame.UNKNOWN,
        stage_seconds={"fetch": 0.01},
        rto_seconds=None,
        server=None,
        programs=None,
    )
    return record, None


CASES = {
    "proven": lambda: (a_record(), a_manifest()),
    "broken": broken_in_production,
    "failed": failed_comparison,
    "open": not_verified_early,
    "damaged": damaged_manifest,
}
