"""The heartbeat at a real HTTP server: after a proven, fresh backup that is on record, and never else."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from pathlib import Path

import pytest

from gs_backup_assets.alerts.heartbeat import HeartbeatFailed, beat_after_proof
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets_tests.alerts.receiver import Behaviour, Receiver
from gs_backup_assets_tests.catalogue.manifests import NOW, made_up, proof_of
from gs_backup_assets_tests.chain import settings_in

SECRET = "4e91b7c2-heart"
SOON = NOW + timedelta(minutes=5)


def beat(
    url: str,
    folder: Path,
    *,
    verdict: Verdict = Verdict.PROVEN,
    on_record: bool = True,
    after: timedelta = timedelta(minutes=5),
) -> HeartbeatFailed | None:
    record = proof_of(made_up(NOW), "ab" * 32, verdict, NOW + after)
    return beat_after_proof(
        settings_in(folder),
        record,
        NOW + after,
        on_record=on_record,
        timeout_seconds=0.5,
        environment={"GS_BACKUP_HEARTBEAT_URL": url} if url else {},
    )


def address(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/ping/{SECRET}"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_proven_backup_is_heard_once(tmp_path: Path) -> None:
    with Receiver() as receiver:
        assert beat(address(receiver), tmp_path) is None
    assert receiver.paths == [f"/ping/{SECRET}"]


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.NOT_VERIFIED])
def test_anything_but_a_proven_backup_keeps_silent(tmp_path: Path, verdict: Verdict) -> None:
    with Receiver() as receiver:
        assert beat(address(receiver), tmp_path, verdict=verdict) is None
    assert receiver.paths == []


def test_a_proof_that_no_store_has_kept_keeps_silent(tmp_path: Path) -> None:
    with Receiver() as receiver:
        assert beat(address(receiver), tmp_path, on_record=False) is None
    assert receiver.paths == []


def test_the_proof_of_an_old_backup_keeps_silent(tmp_path: Path) -> None:
    """A backfill of last month must not tell that all is well today."""
    with Receiver() as receiver:
        assert beat(address(receiver), tmp_path, after=timedelta(hours=26)) is None
        assert receiver.paths == []
        assert beat(address(receiver), tmp_path, after=timedelta(hours=24)) is None
        assert len(receiver.paths) == 1


def test_without_an_address_nothing_is_done(tmp_path: Path) -> None:
    assert beat("", tmp_path) is None


@pytest.mark.parametrize("behaviour", ["refuse", "redirect", "hang_up", "delay", "drip"])
def test_what_was_not_heard_is_a_failure_without_the_address(
    tmp_path: Path, behaviour: Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Receiver(behaviour) as receiver:
        if behaviour == "drip":  # the head of the answer says it all: it is not waited for the rest
            assert beat(address(receiver), tmp_path) is None
            return
        started = time.monotonic()
        failure = beat(address(receiver), tmp_path)
        assert time.monotonic() - started < 30
    assert failure is not None and failure.code == "HEARTBEAT_NOT_ACCEPTED"
    assert "GS_BACKUP_HEARTBEAT_URL" in failure.hint
    assert len(receiver.paths) == 3 and "/login" not in receiver.paths, "asked again, and no redirect followed"
    for text in (str(failure), caplog.text):
        assert SECRET not in text and str(receiver.port) not in text


@pytest.mark.parametrize("url", ["ftp://example.org/{}", "not an address {}", "http://[{}/", "http://127.0.0.1:1/{}"])
def test_an_address_that_is_none_is_a_failure_that_does_not_show_it(tmp_path: Path, url: str) -> None:
    failure = beat(url.format(SECRET), tmp_path)
    assert failure is not None and SECRET not in str(failure)


def test_a_heartbeat_that_was_missed_once_is_heard_at_the_next_try(tmp_path: Path) -> None:
    with Receiver("refuse") as receiver:
        import threading

        heals = threading.Timer(0.5, lambda: setattr(receiver, "behaviour", "accept"))
        heals.start()
        assert beat(address(receiver), tmp_path) is None
        heals.join()
    assert 2 <= len(receiver.paths) <= 3
