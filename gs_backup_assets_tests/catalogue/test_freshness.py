"""Freshness: never having been run is stale, and so is a backup that nobody proved."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.freshness import Freshness, Kind, freshness_of
from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.manifests import NOW, made_up, proof_of, put

LIMIT = timedelta(hours=25)
SECOND = timedelta(seconds=1)


def entry(age: timedelta) -> Summary:
    taken = NOW - age
    return Summary(
        database="shop",
        partition=taken.date().isoformat(),
        id=backup_id(taken),
        manifest_sha256="",
        damage=None,
        stored_bytes=1,
        source_bytes=1,
        key_id=None,
        verdict=Verdict.NOT_VERIFIED,
        proved_at=None,
        rto_seconds=None,
        broken_rules=(),
    )


def test_never_having_been_run_is_stale() -> None:
    assert Freshness(None, None, LIMIT).stale(NOW) == (Kind.BACKUP, Kind.PROOF)


def test_a_backup_that_was_never_proven_is_stale() -> None:
    assert Freshness(entry(timedelta()), None, LIMIT).stale(NOW) == (Kind.PROOF,)


def test_the_limit_itself_is_not_too_old() -> None:
    at_limit, beyond = entry(LIMIT), entry(LIMIT + SECOND)
    assert Freshness(at_limit, at_limit, LIMIT).stale(NOW) == ()
    assert Freshness(at_limit, beyond, LIMIT).stale(NOW) == (Kind.PROOF,)
    assert Freshness(beyond, beyond, LIMIT).stale(NOW) == (Kind.BACKUP, Kind.PROOF)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_time_only_ever_makes_stale(age: int, later: int) -> None:
    newest = entry(timedelta(seconds=age))
    freshness = Freshness(newest, newest, LIMIT)
    assert set(freshness.stale(NOW)) <= set(freshness.stale(NOW + later * SECOND))


def test_it_is_read_from_the_store(tmp_path: Path) -> None:
    catalogue = Catalogue(LocalStore(tmp_path), "shop")
    assert freshness_of(catalogue.summaries(), LIMIT) == Freshness(None, None, LIMIT)
    old = made_up(NOW - timedelta(days=3))
    digest = put(catalogue.store, old)
    catalogue.add_proof(proof_of(old, digest, Verdict.PROVEN, NOW), b"")
    assert freshness_of(catalogue.summaries(), LIMIT).stale(NOW) == (Kind.BACKUP, Kind.PROOF), (
        "the proof is new, its backup is old"
    )
    recent = made_up(NOW - timedelta(hours=1))
    digest = put(catalogue.store, recent)
    assert freshness_of(catalogue.summaries(), LIMIT).stale(NOW) == (Kind.PROOF,)
    catalogue.add_proof(proof_of(recent, digest, Verdict.FAILED, NOW), b"")
    assert freshness_of(catalogue.summaries(), LIMIT).stale(NOW) == (Kind.PROOF,)
    catalogue.add_proof(proof_of(recent, digest, Verdict.PROVEN, NOW + SECOND), b"")
    assert freshness_of(catalogue.summaries(), LIMIT).stale(NOW) == ()
