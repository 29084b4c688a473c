"""Chains of base backups: whatever the catalogue holds, what is chosen can be restored."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.catalogue import PhysicalEntry
from gs_backup_assets.catalogue.chains import chain_of, next_backup
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.errors import StoreError
from gs_backup_assets_tests.catalogue.physical import _proof as proof_of
from gs_backup_assets_tests.catalogue.physical import made_up_base
from gs_backup_assets_tests.catalogue.wal import SYSTEM

BEGIN = datetime(2026, 11, 22, 7, tzinfo=timezone.utc)


def entry(
    number: int,
    base: int | None = None,
    *,
    system: str = SYSTEM,
    verdict: Verdict = Verdict.NOT_VERIFIED,
    damaged: bool = False,
    release: str = "17.10",
    timeline: int = 1,
) -> PhysicalEntry:
    """The backup of a day; `base` is the day of the one that it adds to."""

    def moment(day: int) -> datetime:
        return BEGIN + timedelta(days=day)

    name = f"{moment(base):%Y%m%dT%H%M%SZ}" if base is not None else None
    manifest = made_up_base(moment(number), base=name, system=system, timeline=timeline)
    server = manifest.server.model_copy(update={"release": release})
    manifest = manifest.model_copy(update={"server": server})
    damage = StoreError("MANIFEST_DAMAGED", "It is.", "Use another.") if damaged else None
    proof = None if verdict is Verdict.NOT_VERIFIED else proof_of(manifest, "0" * 64, verdict)
    contents = None if damaged else manifest
    return PhysicalEntry("shop", manifest.partition, manifest.id, contents, "0" * 64, damage, proof, kind="physical")


def decided(entries: list[PhysicalEntry], *, longest: int = 7, full: bool = False) -> str | None:
    """The id of the base that is chosen."""
    base = next_backup(entries, system_identifier=SYSTEM, major=17, longest=longest, full=full).base
    return base.id if base else None


def test_the_chain_of_a_backup() -> None:
    first, second, third = entry(0), entry(1, 0), entry(2, 1)
    every = [third, first, second, entry(3)]
    assert chain_of(every, third) == (first, second, third)
    assert chain_of(every, first) == (first,)


@pytest.mark.parametrize(
    ("base", "code"),
    [
        (None, "CHAIN_BROKEN"),
        (entry(0, damaged=True), "MANIFEST_DAMAGED"),
        (entry(0, system="99"), "CHAIN_INCONSISTENT"),
        (entry(0, release="18.1"), "CHAIN_INCONSISTENT"),
    ],
    ids=["missing", "damaged", "of another cluster", "of another major"],
)
def test_a_chain_that_cannot_be_restored(base: PhysicalEntry | None, code: str) -> None:
    second = entry(1, 0)
    with pytest.raises(StoreError, match=code):
        chain_of([second, *([base] if base else [])], second)


def test_a_circle_ends() -> None:
    one, other = entry(0, 1), entry(1, 0)
    with pytest.raises(StoreError, match="CHAIN_INCONSISTENT"):
        chain_of([one, other], one)
    itself = entry(2, 2)
    with pytest.raises(StoreError, match="CHAIN_INCONSISTENT"):
        chain_of([itself], itself)


def test_what_comes_next() -> None:
    assert decided([]) is None, "the first one is full"
    first, second = entry(0), entry(1, 0)
    assert decided([first]) == first.id
    assert decided([first, second]) == second.id
    assert decided([first, second], longest=2) is None
    assert decided([first, second], longest=1) is None
    assert decided([first, second], full=True) is None
    assert decided([first, entry(1, 0, verdict=Verdict.FAILED)]) == first.id
    assert decided([first, entry(1, 0, damaged=True)]) == first.id
    assert decided([entry(0, verdict=Verdict.FAILED), second]) is None, "what adds to a failed one is not sound either"
    assert decided([entry(0, system="99")]) is None
    assert decided([entry(0, release="16.2")]) is None
    assert decided([first, entry(1, 0, timeline=2)]) == second.id, "another timeline needs no full one"
    assert decided([entry(0, verdict=Verdict.PROVEN)]) == first.id


histories = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 11)),
        st.sampled_from([SYSTEM, SYSTEM, SYSTEM, "99"]),
        st.sampled_from([Verdict.NOT_VERIFIED, Verdict.PROVEN, Verdict.PROVEN, Verdict.FAILED]),
        st.sampled_from([False, False, False, True]),
        st.booleans(),
    ),
    max_size=12,
)


@given(histories, st.integers(1, 5))
def test_what_is_chosen_can_be_restored(
    history: list[tuple[int | None, str, Verdict, bool, bool]], longest: int
) -> None:
    """Any history, with gaps, circles, damage and foreign clusters in it."""
    entries = [
        entry(number, base, system=system, verdict=verdict, damaged=damaged)
        for number, (base, system, verdict, damaged, kept) in enumerate(history)
        if kept
    ]
    chosen = next_backup(entries, system_identifier=SYSTEM, major=17, longest=longest, full=False)
    if chosen.base is None:
        assert chosen.chain == () and chosen.reason
        return
    assert chosen.chain == chain_of(entries, chosen.base)
    assert len(chosen.chain) < longest
    assert chosen.chain[0].require_manifest().base is None
    assert all(one.verdict is not Verdict.FAILED and one.damage is None for one in chosen.chain)
    assert {one.require_manifest().system_identifier for one in chosen.chain} == {SYSTEM}
    assert [one.id for one in chosen.chain] == sorted(one.id for one in chosen.chain)


@given(histories)
def test_order_does_not_matter(history: list[tuple[int | None, str, Verdict, bool, bool]]) -> None:
    entries = [
        entry(number, base, system=system, verdict=verdict, damaged=damaged)
        for number, (base, system, verdict, damaged, _) in enumerate(history)
    ]
    assert decided(entries) == decided(list(reversed(entries)))
