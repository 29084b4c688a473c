"""The copy of the audit log in the other store: what it shows, and how a log that was lost goes on from it."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.audit import AuditLog, mirror, note, resume
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.errors import StoreError
from gs_backup_assets.recovery.offsite.offsite import mirror_log
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.audit_logs import (
    BY,
    SECOND,
    checked,
    found,
    note_backup,
    path_of,
    proofs,
    put_backup,
    write_lines,
)
from gs_backup_assets_tests.catalogue.manifests import NOW, made_up, put


def test_records_of_either_store_account_for_what_lies_in_both(store: LocalStore, other: LocalStore) -> None:
    """A cold restore writes to the off-site store's own log, all else to the primary one's."""
    note_backup(store, NOW - SECOND)
    for place in (store, other):
        put(place, made_up(NOW + 9 * SECOND))
    assert [finding.code for finding in checked(store, other).findings] == ["AUDIT_CUT"] * 2
    note_backup(other, NOW + 9 * SECOND)
    mirror(store, other, "shop")
    assert checked(store, other).status is Status.PASSED


def test_a_copy_is_brought_once_and_byte_for_byte(store: LocalStore, other: LocalStore) -> None:
    lines = write_lines(store, proofs(3))
    assert mirror(store, other, "shop") == 3
    assert mirror(store, other, "shop") == 0
    AuditLog(store, "shop").append(BY, "proof", {}, "PROVEN")
    assert mirror(store, other, "shop") == 1
    copy = AuditLog(other, "shop", copied=True)
    assert copy.lines(copy.stored_keys())[:3] == lines
    assert (checked(store, other).status, checked(store, other).metrics["audit_records_copied"]) == (Status.PASSED, 4)
    assert AuditLog(other, "shop").records() == []  # its own log is another one


def test_both_logs_have_copies_and_neither_gets_in_the_way(store: LocalStore, other: LocalStore) -> None:
    write_lines(store, proofs(3))
    write_lines(other, proofs(2, since=NOW + SECOND))
    assert (mirror(store, other, "shop"), mirror(other, store, "shop")) == (3, 2)
    assert checked(store, other).metrics == {"audit_records": 5, "audit_records_copied": 5, "audit_findings": 0}
    path_of(other, 2).write_bytes(path_of(other, 2).read_bytes().replace(b"PROVEN", b"FAILED"))
    assert found(store, other) == {"AUDIT_DIFFERS"}


def test_a_log_without_its_copy_is_not_verified(store: LocalStore, other: LocalStore) -> None:
    """An unmounted disk looks like an empty store."""
    write_lines(store, proofs(3))
    assert (checked(store, other).status, found(store, other)) == (Status.NOT_VERIFIED, {"AUDIT_NOT_COPIED"})
    mirror(store, other, "shop")
    assert checked(store, other).status is Status.PASSED


def test_a_copy_alone_is_checked_where_nothing_else_is_left(store: LocalStore, other: LocalStore) -> None:
    write_lines(store, proofs(3))
    mirror(store, other, "shop")
    assert (checked(other).status, checked(other).metrics["audit_records"]) == (Status.PASSED, 3)
    (other.root / AuditLog(other, "shop", copied=True).key(2)).unlink()
    assert found(other) == {"AUDIT_GAP"}


def test_only_a_copy_shows_an_edit_of_the_last_record(store: LocalStore, other: LocalStore) -> None:
    lines = write_lines(store, proofs(3))
    mirror(store, other, "shop")
    path_of(store, 3).write_bytes(lines[2].replace(b"PROVEN", b"FAILED"))
    assert found(store) == set()  # a chain cannot show it
    assert found(store, other) == {"AUDIT_DIFFERS"}
    with pytest.raises(StoreError, match="AUDIT_DIFFERS"):
        mirror(store, other, "shop")


def test_a_log_that_was_written_anew_differs_from_its_copy(store: LocalStore, other: LocalStore) -> None:
    """All digests are right again, so the chain holds; the copy is what tells."""
    write_lines(store, proofs(3))
    mirror(store, other, "shop")
    for number in (1, 2, 3):
        path_of(store, number).unlink()
    write_lines(store, [one.model_copy(update={"actor": "nobody"}) for one in proofs(5)])
    assert found(store) == set()
    assert found(store, other) == {"AUDIT_DIFFERS"}
    with pytest.raises(StoreError, match="AUDIT_DIFFERS"):
        mirror(store, other, "shop")
    assert len(AuditLog(other, "shop", copied=True).stored_keys()) == 3


def test_a_log_that_lost_its_end_or_everything_differs_from_its_copy(store: LocalStore, other: LocalStore) -> None:
    write_lines(store, proofs(3))
    mirror(store, other, "shop")
    for number in (3, 2, 1):
        path_of(store, number).unlink()
        assert found(store, other) == {"AUDIT_DIFFERS"}
        with pytest.raises(StoreError, match="AUDIT_DIFFERS"):
            mirror(store, other, "shop")
    AuditLog(store, "shop").append(BY, "proof", {}, "PROVEN")  # it begins anew
    assert found(store, other) == {"AUDIT_DIFFERS"}


def test_what_does_not_go_on_from_the_copy_is_not_brought(store: LocalStore, other: LocalStore) -> None:
    lines = write_lines(store, proofs(4))
    path_of(store, 4).unlink()
    mirror(store, other, "shop")
    path_of(store, 3).write_bytes(lines[2].replace(b"PROVEN", b"FAILED"))
    (other.root / AuditLog(other, "shop", copied=True).key(3)).unlink()
    path_of(store, 4).write_bytes(lines[3])
    with pytest.raises(StoreError, match="AUDIT_DIFFERS"):
        mirror(store, other, "shop")  # the third was edited before its copy was made, the fourth tells
    path_of(store, 3).unlink()
    with pytest.raises(StoreError, match="AUDIT_DIFFERS"):
        mirror(store, other, "shop")


def test_copies_that_are_made_at_the_same_time_do_no_harm(store: LocalStore, other: LocalStore) -> None:
    write_lines(store, proofs(40))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: mirror(store, other, "shop"), range(4)))
    assert checked(store, other).metrics["audit_records_copied"] == 40


def test_copies_of_two_logs_at_the_same_time_are_not_mixed(tmp_path: Path, other: LocalStore) -> None:
    """The log was edited between them."""
    sources = [LocalStore(tmp_path / name) for name in "ab"]
    for source, days in zip(sources, (0, 1), strict=True):
        write_lines(source, proofs(40, since=NOW + timedelta(days=days)))

    def bring(source: LocalStore) -> str:
        try:
            mirror(source, other, "shop")
        except StoreError as error:
            return error.code
        return "brought"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(bring, sources)) == ["AUDIT_DIFFERS", "brought"]
    assert (checked(other).status, checked(other).metrics["audit_records"]) == (Status.PASSED, 40)


def lose(store: LocalStore, other: LocalStore) -> LocalStore:
    """The store is lost, a new one is in its place, and the log of three records is in the other one alone."""
    write_lines(store, proofs(3))
    mirror(store, other, "shop")
    shutil.rmtree(store.root)
    put(store, made_up(NOW))  # what is being worked on
    return store


def test_after_the_store_was_lost_its_log_goes_on_from_the_copy(store: LocalStore, other: LocalStore) -> None:
    """As docs/audit.md says: the very log, and a record that it was lost."""
    lose(store, other)
    assert note(store, "shop", BY, "backup", ids={"backup": made_up(NOW).id}, result="stored", otherwise=other) is None
    records = AuditLog(store, "shop").records()
    assert [(one.event, one.ids) for one in records[3:]] == [
        ("resume", {"records": "3"}),
        ("backup", {"backup": made_up(NOW).id}),
    ]
    assert mirror(store, other, "shop") == 2
    assert checked(store, other).status is Status.PASSED
    assert "lost and gone on from its copy 1 time" in checked(store, other).summary
    path_of(store, 2).unlink()
    assert found(store, other) == {"AUDIT_GAP", "AUDIT_DIFFERS"}  # what was removed is no loss


def test_what_lost_its_record_with_the_store_is_not_verified_and_nothing_else(
    store: LocalStore, other: LocalStore
) -> None:
    now = datetime.now(timezone.utc).replace(microsecond=0)
    lose(store, other)
    lost = put_backup(store, now - SECOND)  # its record had no copy yet
    assert note(store, "shop", BY, "backup", ids={"backup": made_up(NOW).id}, result="stored", otherwise=other) is None
    assert {(one.code, one.message.split("/")[-2]) for one in checked(store).findings} == {("AUDIT_LOST", lost)}
    assert checked(store).status is Status.NOT_VERIFIED
    put_backup(store, NOW + SECOND)  # the records of that time were copied
    assert (checked(store).status, found(store)) == (Status.FAILED, {"AUDIT_LOST", "AUDIT_CUT"})


def test_many_writers_and_copies_bring_one_log_back(store: LocalStore, other: LocalStore) -> None:
    lose(store, other)

    def write(number: int) -> None:
        assert note(store, "shop", BY, "proof", ids={"n": str(number)}, result="PROVEN", otherwise=other) is None
        resume(store, other, "shop", BY)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    mirror(store, other, "shop")
    assert checked(store, other).status is Status.PASSED
    assert {one.ids["n"] for one in AuditLog(store, "shop").records() if "n" in one.ids} == set("01234567")


def test_a_log_that_was_brought_back_in_part_is_brought_back_wholly(store: LocalStore, other: LocalStore) -> None:
    """Killed on the way: the newest are there, and the first is not."""
    lose(store, other)
    resume(store, other, "shop", BY)
    for number in (1, 2):
        path_of(store, number).unlink()
    assert found(store) == {"AUDIT_GAP"}
    assert (resume(store, other, "shop", BY), resume(store, other, "shop", BY)) == (3, 0)
    mirror(store, other, "shop")
    assert checked(store, other).status is Status.PASSED


def test_a_log_is_not_begun_anew_while_its_copy_cannot_be_read(store: LocalStore, other: LocalStore) -> None:
    lose(store, other)
    away = other.root.rename(other.root.with_name("away"))
    other.root.write_bytes(b"")  # no folder can be read there
    refusal = note(store, "shop", BY, "backup", ids={}, result="stored", otherwise=other)
    assert refusal is not None and AuditLog(store, "shop").newest() == 0
    other.root.unlink()
    away.rename(other.root)
    (other.root / AuditLog(other, "shop", copied=True).key(1)).unlink()
    assert resume(store, other, "shop", BY) == 0  # a copy without a beginning is no log to go on from


def test_the_off_site_stores_own_log_comes_back_with_the_next_copy(store: LocalStore, other: LocalStore) -> None:
    write_lines(store, proofs(2))
    write_lines(other, proofs(3))
    assert mirror_log(store, other, "shop", by=BY).metrics["audit_records_copied"] == 5
    shutil.rmtree(other.root)
    assert mirror_log(store, other, "shop", by=BY).status is Status.PASSED
    assert [one.event for one in AuditLog(other, "shop").records()] == ["proof", "proof", "proof", "resume"]
    assert checked(store, other).status is Status.PASSED


def test_a_log_that_had_to_begin_anew_gets_a_copy_of_its_own(store: LocalStore, other: LocalStore) -> None:
    """As docs/audit.md says."""
    write_lines(store, proofs(3))
    mirror(store, other, "shop")
    shutil.rmtree(store.root)
    AuditLog(store, "shop").append(BY, "backup", {}, "stored")
    assert found(store, other) == {"AUDIT_DIFFERS"}
    (other.root / "shop/audit-copy").rename(other.root / "shop/audit-copy-2026-11-24")
    assert mirror(store, other, "shop") == 1
    assert checked(store, other).status is Status.PASSED


def test_a_store_that_has_nothing_gets_no_log_when_there_is_another(store: LocalStore, other: LocalStore) -> None:
    """A disk that is not mounted looks like an empty store."""
    put(other, made_up())
    assert note(store, "shop", BY, "restore", ids={}, result="PROVEN", otherwise=other) is None
    assert not store.root.exists()
    assert len(AuditLog(other, "shop").records()) == 1
