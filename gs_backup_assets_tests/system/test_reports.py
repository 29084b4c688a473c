"""The reports folder: private, whole, shared by proofs that run at the same time, and never in a proof's way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gs_backup_assets.system.reports import ReportNotKept, Reports, reports_in


def write_docs(reports: Reports, words: str) -> None:
    """Data Docs as Great Expectations writes them: readable by all, in folders."""
    assert reports.docs is not None
    below = reports.docs / "expectations"
    below.mkdir(mode=0o755)
    for path in (reports.docs / "index.html", below / f"{words}.html"):
        path.write_text(words)
        path.chmod(0o644)


def test_what_is_made_is_private_and_what_was_there_keeps_its_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "reports" / "shop" / "2026-11-22"
    with reports_in(folder) as reports:
        assert reports.made == (folder, folder.parent, folder.parent.parent)
        write_docs(reports, "first")
        assert reports.keep({"report.html": b"first"}, with_docs=True) is None
    found = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "reports", *tmp_path.rglob("reports/**/*"))}
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in found.items() if path.is_file()} == {0o600}
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert {path.name for path in folder.iterdir()} == {"report.html", "data_docs"}


def test_two_at_the_same_time_and_the_last_one_wins(tmp_path: Path) -> None:
    with reports_in(tmp_path) as nightly, reports_in(tmp_path) as by_hand:
        write_docs(nightly, "nightly")
        write_docs(by_hand, "by hand")
        assert by_hand.keep({"report.html": b"by hand"}, with_docs=True) is None
        assert (tmp_path / "data_docs" / "index.html").read_text() == "by hand"
        assert nightly.keep({"report.html": b"nightly"}, with_docs=True) is None
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.html")} == {
        *("report.html", "data_docs/index.html", "data_docs/expectations/nightly.html")
    }
    assert (tmp_path / "report.html").read_bytes() == b"nightly"
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "data_docs"}


def test_many_that_finish_in_the_same_moment(tmp_path: Path) -> None:
    def keep_often(name: str) -> list[ReportNotKept | None]:
        refusals = []
        for _ in range(40):
            with reports_in(tmp_path) as reports:
                write_docs(reports, name)
                refusals.append(reports.keep({"report.html": name.encode()}, with_docs=True))
        return refusals

    with ThreadPoolExecutor(4) as pool:
        refusals = [refusal for found in pool.map(keep_often, "abcd") for refusal in found]
    assert refusals == [None] * 160
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "data_docs"}
    assert len(list((tmp_path / "data_docs" / "expectations").iterdir())) == 1, "what lies there is of one proof"


def test_a_folder_that_cannot_be_made_or_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (Path("/proc/nonesuch/reports"), tmp_path / "file" / "reports"):
        with reports_in(folder) as reports:
            assert reports.docs is None
            refusal = reports.keep({"report.html": b"words"}, with_docs=True)
        assert refusal is not None and refusal.code == "REPORT_NOT_KEPT"
        assert str(folder) in refusal.message and "`reports`" in refusal.hint
    with reports_in(tmp_path) as reports:
        (tmp_path / "report.html").mkdir()
        refusal = reports.keep({"report.html": b"words"})
    assert refusal is not None and "directory" in refusal.message.lower()
