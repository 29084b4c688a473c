"""The audit log: every tampering is found, no sound log is taken for a broken one, and many may write at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gs_backup_assets.catalogue.audit import AuditLog, Author, failure_noted, mirror, note
from gs_backup_assets.catalogue.audit_check import check_audit
from gs_backup_assets.catalogue.catalogue import Catalogue, proof_id
from gs_backup_assets.catalogue.manifest import HOLD
from gs_backup_assets.catalogue.verdict import Status, Verdict
from gs_backup_assets.errors import ConfigError, ProgramError, StoreError
from gs_backup_assets.recovery.selftest.breakages_in_audit import AUDIT, AuditBreakage
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.audit_logs import (
    APPEND,
    BY,
    SECOND,
    append_in_processes,
    assert_all_there,
    checked,
    found,
    note_backup,
    path_of,
    proofs,
    put_backup,
    write_lines,
)
from gs_backup_assets_tests.catalogue.manifests import NOW, made_up, proof_of, put
from gs_backup_assets_tests.processes import wait_until

texts = st.text(max_size=8)
times = st.datetimes(datetime(2001, 1, 1), datetime(2099, 1, 1), timezones=st.just(timezone.utc))
values = st.text(max_size=8) | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
entries = st.tuples(texts, texts, st.dictionaries(texts, texts, max_size=2), st.dictionaries(texts, values, max_size=2))


def appended(store: LocalStore, what: list[tuple[str, str, dict[str, str], dict[str, str | int | float]]]) -> AuditLog:
    """A log with these actors, results, ids and details; the clock runs backwards now and then."""
    log = AuditLog(store, "shop")
    for number, (actor, result, ids, details) in enumerate(what):
        now = NOW + timedelta(days=(number * 37) % 11)
        log.append(Author(actor, "verify"), "restore", ids, result, details, now=now)
    return log


@settings(max_examples=150, deadline=None)
@given(what=st.lists(entries, min_size=1, max_size=5), data=st.data())
def test_every_tampering_is_found_and_a_sound_log_is_sound(
    what: list[tuple[str, str, dict[str, str], dict[str, str | int | float]]], data: st.DataObject
) -> None:
    """Any byte of any record but the last, any removal but from the end, any exchange of two."""
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        log = appended(store, what)
        assert checked(store).status is Status.PASSED
        assert [record.sequence for record in log.records()] == list(range(1, len(what) + 1))
        if len(what) == 1:
            return
        kind = data.draw(st.sampled_from(["edit", "remove", "exchange"]))
        first = data.draw(st.integers(1, len(what) - 1))
        path = path_of(store, first)
        if kind == "edit":
            line = bytearray(path.read_bytes())
            at = data.draw(st.integers(0, len(line) - 1))
            line[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[at]))
            path.write_bytes(line)
            assert found(store) & {"AUDIT_EDITED", "AUDIT_DAMAGED", "AUDIT_REORDERED"}
        elif kind == "remove":
            path.unlink()
            assert found(store) == {"AUDIT_GAP"}
        else:
            second = path_of(store, data.draw(st.integers(first + 1, len(what))))
            one, two = path.read_bytes(), second.read_bytes()
            path.write_bytes(two)
            second.write_bytes(one)
            assert found(store) == {"AUDIT_REORDERED"}
        assert checked(store).status is Status.FAILED


@settings(max_examples=100, deadline=None)
@given(texts, texts, st.dictionaries(texts, texts, max_size=3), st.dictionaries(texts, values, max_size=3), times)
def test_what_was_written_is_read(
    actor: str, result: str, ids: dict[str, str], details: dict[str, str | int | float], now: datetime
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = AuditLog(LocalStore(Path(folder)), "shop")
        written = log.append(Author(actor, "prune"), "prune", ids, result, details, now=now)
        assert log.records() == [written]
        line = log.line(1)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        assert (written.at, written.actor.isprintable(), len(written.ids)) == (now, True, len(ids))


def test_nothing_reaches_a_terminal_as_a_command(store: LocalStore) -> None:
    record = AuditLog(store, "shop").append(
        Author("\x1b[2J\udc80Zoë", "verify"), "hold", {"backup": "a\nb"}, "x\0", {"reason": "\x9bq", "n": 1}
    )
    assert (record.actor, record.ids, record.result) == ("?[2J?Zoë", {"backup": "a?b"}, "x?")
    assert record.details == {"reason": "?q", "n": 1}
    assert AuditLog(store, "shop").records() == [record]


def test_an_author_is_whom_the_variable_names_or_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GS_BACKUP_ACTOR", raising=False)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert Author.here("verify") == Author(user, "verify")
    monkeypatch.setenv("GS_BACKUP_ACTOR", "deploy")
    assert Author.here("prune") == Author("deploy", "prune")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become a user without a name")
def test_a_user_without_a_name_is_a_number() -> None:
    script = "import os; from gs_backup_assets.catalogue.audit import Author; os.setuid(64321); print(Author.here('x'))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "Author(actor='uid 64321', command='x')"


def test_an_empty_log_is_not_verified(store: LocalStore, other: LocalStore) -> None:
    assert (checked(store).status, found(store)) == (Status.NOT_VERIFIED, {"AUDIT_EMPTY"})
    assert found(store, other) == {"AUDIT_EMPTY"}
    assert AuditLog(store, "shop").records() == []


def test_a_clock_that_runs_backwards_does_no_harm(store: LocalStore) -> None:
    log = AuditLog(store, "shop")
    for days in (0, -40, 400, -400):
        log.append(BY, "proof", {}, "PROVEN", now=NOW + timedelta(days=days))
    assert [record.sequence for record in log.records()] == [1, 2, 3, 4]
    assert checked(store).status is Status.PASSED


def test_writers_that_are_killed_do_no_harm(store: LocalStore) -> None:
    """Wherever it hits them: before a record is stored, or after, when they have not heard of it yet."""
    log = AuditLog(store, "shop")
    for delay in (0.0, 0.003, 0.01, 0.02, 0.05):
        before = log.newest()
        writer = subprocess.Popen([*APPEND, str(store.root), "killed", "1000000"])
        wait_until(lambda: log.newest() > before + 3, what="the writer to write")  # noqa: B023
        time.sleep(delay)
        writer.kill()
        writer.wait()
    last = log.newest()
    assert log.append(BY, "proof", {}, "PROVEN").sequence == last + 1
    assert (checked(store).status, checked(store).metrics["audit_records"]) == (Status.PASSED, last + 1)


def test_a_writer_that_was_killed_before_leaves_nothing_that_counts(store: LocalStore) -> None:
    log = AuditLog(store, "shop")
    log.append(BY, "proof", {}, "PROVEN")
    (store.root / "shop/audit/00001").mkdir()  # a folder was made, and its first record not stored
    (store.root / "shop/audit/00000/.partial-abcdef").write_bytes(b'{"act')
    assert log.append(BY, "proof", {}, "PROVEN").sequence == 2
    assert checked(store).status is Status.PASSED


def test_the_thousandth_record_begins_a_new_folder(store: LocalStore) -> None:
    write_lines(store, proofs(999))
    log = AuditLog(store, "shop")
    assert [log.append(BY, "proof", {}, "PROVEN").sequence for _ in range(2)] == [1000, 1001]
    assert path_of(store, 1000).parent.name == "00001"
    assert checked(store).metrics["audit_records"] == 1001


def test_who_never_gets_a_number_gives_up(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gs_backup_assets.catalogue.audit._LONGEST_PAUSE", 0.001)
    path_of(store, 1).mkdir(parents=True)  # is in the way, and no record
    with pytest.raises(StoreError, match="AUDIT_BUSY"):
        AuditLog(store, "shop").append(BY, "proof", {}, "PROVEN")


def test_four_processes_write_one_chain(store: LocalStore) -> None:
    append_in_processes(str(store.root))
    assert_all_there(AuditLog(store, "shop").records())
    assert checked(store).status is Status.PASSED


def test_a_log_that_is_checked_while_it_grows_is_sound(store: LocalStore, other: LocalStore) -> None:
    log = AuditLog(store, "shop")
    log.append(BY, "proof", {}, "PROVEN")
    mirror(store, other, "shop")

    def write() -> None:
        for _ in range(60):
            log.append(BY, "proof", {}, "PROVEN")
            mirror(store, other, "shop")

    with ThreadPoolExecutor() as pool:
        writing = pool.submit(write)
        results = [checked(store, other)]
        while not writing.done():
            results.append(checked(store, other))
        writing.result()
    assert [result.findings for result in results if result.status is not Status.PASSED] == []
    assert checked(store, other).metrics["audit_records_copied"] == 61


@pytest.mark.parametrize("breakage", AUDIT, ids=lambda breakage: breakage.name)
def test_each_breakage_is_named(store: LocalStore, breakage: AuditBreakage) -> None:
    put_backup(store, NOW)
    write_lines(store, proofs(4, since=NOW - SECOND))
    note_backup(store, NOW)
    assert checked(store).status is Status.PASSED
    original = {path: path.read_bytes() for path in (store.root / "shop/audit/00000").iterdir()}
    for path in original:
        os.link(path, store.root / path.name)  # as in the self-test
    breakage.apply(store.root, "shop")
    assert breakage.expected in found(store)
    for path, line in original.items():
        assert (store.root / path.name).read_bytes() == line


def test_an_edited_line_is_named_alone(store: LocalStore) -> None:
    lines = write_lines(store, proofs(5))
    path_of(store, 3).write_bytes(lines[2].replace(b"PROVEN", b"FAILED"))
    findings = checked(store).findings
    assert [finding.code for finding in findings] == ["AUDIT_EDITED"]
    assert "00000003.json is not what record 4 was written after" in findings[0].message


def test_a_line_that_is_written_otherwise_is_edited_even_at_the_end(store: LocalStore) -> None:
    lines = write_lines(store, proofs(2))
    path_of(store, 2).write_bytes(lines[1].replace(b'":', b'": ', 1))
    assert found(store) == {"AUDIT_EDITED"}
    with pytest.raises(StoreError, match="AUDIT_EDITED"):
        AuditLog(store, "shop").records()
    path_of(store, 2).write_bytes(b"\xff")
    with pytest.raises(StoreError, match="AUDIT_DAMAGED"):
        AuditLog(store, "shop").records()


def test_the_shell_finds_it_too(store: LocalStore) -> None:
    """The commands in docs/audit.md, with nothing but the store."""
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    script = page.split("```sh\n")[1].split("```")[0]

    def run() -> str:
        shell = ["sh", "-eu", "-c", script]
        return subprocess.run(shell, cwd=store.root, capture_output=True, text=True, check=True).stdout

    lines = write_lines(store, proofs(1001))
    assert run() == ""
    path_of(store, 2).write_bytes(lines[1].replace(b"PROVEN", b"FAILED"))
    path_of(store, 1000).unlink()
    assert run() == "shop/audit/00000/00000003.json\nshop/audit/00001/00001001.json\n"


def test_gaps_are_named_with_their_ends(store: LocalStore) -> None:
    write_lines(store, proofs(6))
    for number in (1, 3, 4):
        path_of(store, number).unlink()
    messages = [finding.message for finding in checked(store).findings]
    assert len(messages) == 2
    assert "Record 1 is missing" in messages[0]
    assert "Records 3 to 4 are missing" in messages[1]


def test_a_log_that_begins_anew_is_no_log(store: LocalStore) -> None:
    """Records 1 to 3 are gone and the rest is renumbered: what was written after something is no beginning."""
    lines = write_lines(store, proofs(4))
    for number in (1, 2, 3, 4):
        path_of(store, number).unlink()
    store.put_bytes(lines[3].replace(b'"sequence":4', b'"sequence":1'), AuditLog(store, "shop").key(1))
    assert found(store) == {"AUDIT_EDITED"}


def test_strangers_in_the_log_are_shown_and_ignored(store: LocalStore) -> None:
    write_lines(store, proofs(2))
    for name in ("note.txt", "00000/00000002.json.bak", "00007/00000003.json", "99/00000003.json"):
        store.put_bytes(b"x", f"shop/audit/{name}")
    assert AuditLog(store, "shop").append(BY, "proof", {}, "PROVEN").sequence == 3
    findings = checked(store).findings
    assert [finding.code for finding in findings] == ["AUDIT_DAMAGED"] * 4
    assert len(AuditLog(store, "shop").records()) == 3


def test_a_record_of_another_database_is_out_of_place(store: LocalStore) -> None:
    lines = write_lines(store, proofs(1))
    store.put_bytes(lines[0], AuditLog(store, "other").key(1))
    other_log = AuditLog(store, "other")
    other_log.append(BY, "proof", {}, "PROVEN")
    assert {finding.code for finding in check_audit(store, "other").findings} == {"AUDIT_REORDERED"}


def test_a_backup_without_a_record_means_that_the_end_is_cut(store: LocalStore) -> None:
    put_backup(store, NOW - SECOND)  # before the log was begun
    put_backup(store, NOW)
    note_backup(store, NOW - SECOND)
    note_backup(store, NOW)
    assert checked(store).status is Status.PASSED
    path_of(store, 2).unlink()
    assert found(store) == set()  # as old as the log
    later = put_backup(store, NOW + 9 * SECOND)
    findings = checked(store).findings
    assert [finding.code for finding in findings] == ["AUDIT_CUT"]
    assert f"{later}/manifest.json" in findings[0].message
    AuditLog(store, "shop").append(BY, "copy", {"backup": later}, "copied")  # brought back from the other store
    assert checked(store).status is Status.PASSED


def test_a_proof_and_a_hold_without_a_record_mean_that_the_end_is_cut(store: LocalStore) -> None:
    manifest = made_up(NOW)
    proof = proof_of(manifest, put(store, manifest), Verdict.PROVEN, NOW + 9 * SECOND)
    log = AuditLog(store, "shop")
    log.append(BY, "backup", {"backup": manifest.id}, "stored", now=NOW + SECOND)
    Catalogue(store, "shop").add_proof(proof, b"")
    store.put_bytes(b"{}", f"{manifest.folder}/{HOLD}")
    assert [finding.code for finding in checked(store).findings] == ["AUDIT_CUT"] * 2
    log.append(BY, "proof", {"backup": manifest.id, "proof": proof_id(proof)}, "PROVEN")
    log.append(BY, "hold", {"backup": manifest.id}, "held")
    assert checked(store).status is Status.PASSED
    assert "3 backups, proofs and holds" in checked(store).summary


# Writing where writing may be impossible.


def test_a_note_that_cannot_be_written_is_an_answer(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    nowhere = LocalStore(tmp_path / "file" / "store")
    refusal = note(nowhere, "shop", BY, "restore", ids={}, result="PROVEN")
    assert refusal is not None
    assert refusal.code == "STORE_UNAVAILABLE"
    assert note(nowhere, "shop", BY, "restore", ids={}, result="PROVEN", otherwise=store) is None
    assert [one.result for one in AuditLog(store, "shop").records()] == ["PROVEN"]
    both = note(nowhere, "shop", BY, "restore", ids={}, result="PROVEN", otherwise=nowhere)
    assert both is not None


def test_work_that_breaks_off_is_noted_with_its_code(store: LocalStore) -> None:
    for error in (ProgramError("RESTORE_BROKE", "", ""), KeyboardInterrupt(), ValueError("s3cret")):
        with (
            pytest.raises(type(error)),
            failure_noted(store, "shop", BY, "restore", ids={"backup": "b"}),
        ):
            raise error
    with pytest.raises(ConfigError), failure_noted(store, "shop", BY, "restore", ids={}):
        raise ConfigError("DATABASE_EXISTS", "", "")
    with failure_noted(store, "shop", BY, "restore", ids={}):
        pass
    results = [one.result for one in AuditLog(store, "shop").records()]
    assert results == ["RESTORE_BROKE", "KeyboardInterrupt", "ValueError"]
