"""The integrity report: the right words for each verdict, nothing but itself, and names that cannot break out."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone

import pytest

from gs_backup_assets.catalogue.manifest import StoredFile
from gs_backup_assets.catalogue.proof import (
    Blame,
)
from gs_backup_assets.catalogue.verdict import Finding, Status
from gs_backup_assets.integrity.report import MOST_TABLES, render
from gs_backup_assets.postgres.inventory import Omission
from gs_backup_assets_tests.integrity.proof_records import (
    BACKUP,
    CASES,
    SUMMARIES,
    Page,
    a_key,
    a_manifest,
    a_record,
    a_rule,
    broken_in_production,
    check,
    damaged_manifest,
    failed_comparison,
    not_verified_early,
    tables,
)


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
