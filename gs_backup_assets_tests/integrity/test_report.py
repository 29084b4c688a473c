"""The integrity report: the right words for each verdict, nothing but itself, and names that cannot break out."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser

import pytest

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
from gs_backup_assets.integrity.report import MOST_TABLES, render
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


@pytest.mark.parametrize("case", CASES)
def test_a_page_is_well_formed_and_stands_alone(case: str) -> None:
    html = render(*CASES[case]())
    page = Page(html)
    assert html.startswith(b"<!doctype html>")
    assert page.attributes("html") == [{"lang": "en"}]
    assert len(page.attributes("h1")) == 1
    assert [a["content"] for a in page.attributes("meta") if "http-equiv" in a] == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    ]
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "action"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert b"http://" not in html and b"https://" not in html and b"@import" not in html and b"url(" not in html


@pytest.mark.parametrize("case", CASES)
def test_equal_input_gives_equal_bytes(case: str) -> None:
    assert render(*CASES[case]()) == render(*CASES[case]())


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_the_first_thing_said(case: str) -> None:
    record, manifest = CASES[case]()
    words = Page(render(record, manifest)).words
    verdict = record.verdict.value.replace("_", " ").split()
    assert words[1 : 1 + len(verdict)] == verdict  # after its sign
    assert words[1 + len(verdict)] in ("This", "Do", "It")


def test_a_proven_backup_says_when_in_both_time_zones() -> None:
    text = Page(render(a_record(), a_manifest())).text
    assert (
        "PROVEN This backup was restored on a server of its own and is equal to the production database as it was on"
        " 22 November 2026 at 02:00:03 CST (08:00:03 UTC)." in text
    )
    assert "already broken in production" not in text
    assert "Nothing was left open" in text
    assert "40 data rules hold" in text and "39 foreign keys hold" in text
    for name, summary in SUMMARIES.items():
        assert name in text and summary in text
    assert f"gs-backup restore {BACKUP} --into" in text
    assert "docs/restore-with-stock-programs.md" in text
    assert "c0ffee" * 10 + "abcd" in text


def test_the_date_in_utc_is_told_where_it_is_another() -> None:
    late = datetime(2026, 11, 23, 3, 30, 0, tzinfo=timezone.utc)
    assert (
        "22 November 2026 at 21:30:00 CST (23 November 2026, 03:30:00 UTC)"
        in Page(render(a_record(), a_manifest(snapshot_at=late))).text
    )


@pytest.mark.parametrize("zone", ["UTC", "Mars/Olympus_Mons", "../etc/passwd"])
def test_utc_and_an_unknown_zone_give_utc_alone(zone: str) -> None:
    text = Page(render(a_record(), a_manifest(timezone=zone))).text
    assert "as it was on 22 November 2026 at 08:00:03 UTC." in text


def test_rules_that_are_broken_in_production_are_told_at_once() -> None:
    text = Page(render(*broken_in_production())).text
    assert text.index("PROVEN") < text.index("3 data rules and 1 foreign key are already broken in production.")
    assert text.index("already broken in production") < text.index("Failed, but not part of the verdict")
    assert "by severity: 1 critical, 2 warning. Keys are listed below." in text
    assert "3 data rules broken" in text and "37 data rules hold" in text and "1 foreign key violated" in text
    assert text.index("3 data rules broken") < text.index("37 data rules hold")
    assert "cm3x05k9q0005" in text and "declared NOT VALID" in text and "public.remote_log" in text


def test_one_broken_rule_is_spoken_of_in_the_singular() -> None:
    record = a_record(rules=(a_rule(1, Status.FAILED, unexpected=1), a_rule(2)))
    text = Page(render(record, a_manifest())).text
    assert "1 data rule is already broken in production." in text


def test_a_failed_backup_says_what_differs() -> None:
    text = Page(render(*failed_comparison())).text
    assert "FAILED Do not rely on this backup: tables came back with other rows and" in text
    assert "the backup broke it" in text and "already broken in production" not in text
    assert "ROWS_DIFFER" in text and "CONTENTS_DIFFER" in text and "3 more" in text
    assert text.index("What failed") < text.index("What was proved")
    assert "8 not equal" in text and "not restored" in text
    assert "the target of 1 h is missed by 23 min 20 s" in text
    assert "This backup failed its proof." in text


def test_an_open_proof_tells_one_reason_once() -> None:
    text = Page(render(*not_verified_early())).text
    assert "NOT VERIFIED It is not known whether this backup can be restored" in text
    assert text.count("EXTENSION_MISSING") == 1
    assert "40 data rules" in text and "40 data rules not evaluated" in text
    assert "No table was compared. The manifest names 31 tables" in text
    assert "the time to recover is not known" in text
    assert "already broken in production" not in text


def test_a_restored_backup_without_a_fingerprint_is_not_called_equal() -> None:
    open_check = check("contents_equal", Status.NOT_VERIFIED, "the fingerprint was taken without contents")
    counted = tuple(t.model_copy(update={"contents_equal": None}) for t in tables())
    record = a_record(open_check, tables=counted, blame=Blame.UNKNOWN, rules=(a_rule(1, Status.FAILED, unexpected=3),))
    text = Page(render(record, a_manifest())).text
    assert "NOT VERIFIED This backup was restored, but it is not proven: 1 of 8 checks that decide" in text
    assert "31 only counted" in text and "is equal to the production database" not in text
    assert "1 data rule does not hold in the restored database: cannot tell: the contents" in text


def test_a_damaged_manifest_still_gives_a_report() -> None:
    text = Page(render(*damaged_manifest())).text
    assert "FAILED Do not rely on this backup: its stored files are not those that were written." in text
    assert "22 November 2026 at 08:00:03 UTC" in text  # from the id
    assert "MANIFEST_DAMAGED" in text and "The manifest is damaged" in text
    assert "gs-backup restore refuses it" in text and "--into" not in text
    odd = damaged_manifest()[0].model_copy(update={"backup_id": "unknown"})
    assert "for the partition 2026-11-22" in Page(render(odd, None)).text


HOSTILE = '"public"."<script>alert(1)</script> & \'x\' \u202eevil\u0007"'


def test_hostile_names_stay_text() -> None:
    finding = Finding(code="ROWS_DIFFER", message=HOSTILE, hint="<b>")
    record = a_record(
        check("rows_equal", Status.FAILED, HOSTILE, finding, Finding(code="X", message="<img src=x onerror=y>")),
        database=HOSTILE,
        tables=(tables()[0].model_copy(update={"name": HOSTILE}),),
        rules=(a_rule(1, Status.FAILED, title=HOSTILE, table=HOSTILE, sample_keys=(HOSTILE,)),),
        foreign_keys=(a_key(1, Status.FAILED, name=HOSTILE, table=HOSTILE, columns=(HOSTILE,), references=HOSTILE),),
        server=HOSTILE,
    )
    omission = Omission(kind="row_security", name=HOSTILE, reason=HOSTILE, loses_data=True)
    manifest = a_manifest(omissions=(omission,), warnings=(HOSTILE,), timezone=HOSTILE)
    html = render(record, manifest)
    page = Page(html)
    assert b"<script" not in html and b"<img" not in html and "\u202e".encode() not in html and b"\x07" not in html
    assert "<script>alert(1)</script> & 'x' \\u202eevil\\u0007" in page.text
    assert "rows are missing" in page.text


def test_names_of_other_scripts_are_kept_and_isolated() -> None:
    html = render(
        a_record(tables=(tables()[0].model_copy(update={"name": '"public"."שיעורים"'}),)), a_manifest()
    ).decode()
    assert '"public"."שיעורים"</bdi>'.replace('"', "&#34;") in html


def test_above_the_limit_the_largest_tables_are_shown_and_the_rest_counted() -> None:
    small = tables(251)[0].model_copy(update={"contents_equal": False, "name": '"public"."tiny"', "total_bytes": 0})
    record = a_record(tables=(small, *tables(251)[1:]))
    page = Page(render(record, a_manifest()))
    assert "51 more are in the record" in page.text and "251 tables" in page.text
    assert "public.table_250" in page.text and "public.table_60" in page.text and "public.table_40" not in page.text
    assert "public.tiny" in page.text  # the smallest, but not equal
    assert page.text.index("public.table_250") < page.text.index("public.table_249")
    at_limit = Page(render(a_record(tables=tables(MOST_TABLES)), a_manifest())).text
    assert "more are in the record" not in at_limit


def test_sizes_are_human_and_exact() -> None:
    html = render(a_record(), a_manifest()).decode()
    assert '<span title="41,284,123 bytes">41.3 MB</span>' in html
    edges = a_manifest(
        files=tuple(StoredFile(path=str(n), size=n, sha256="0" * 64) for n in (0, 999, 999_960, 7 * 10**15))
    )
    text = Page(render(a_record(), edges)).text
    assert "0 B" in text and "999 B" in text and "1.0 MB" in text and "7000.0 TB" in text


def test_jinja_is_loaded_only_when_a_report_is_made() -> None:
    code = "import sys, gs_backup_assets.integrity.report; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
