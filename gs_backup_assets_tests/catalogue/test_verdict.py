"""The verdict: a failure fails, a gap leaves open, and nothing checked is never a pass."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.verdict import CheckResult, Status, Verdict, verdict_of

checks = st.lists(st.sampled_from(Status)).map(lambda all_: [CheckResult(name="x", status=s, summary="") for s in all_])


def test_nothing_checked_is_no_pass() -> None:
    assert verdict_of([]) is Verdict.NOT_VERIFIED


@given(checks)
def test_the_worst_check_decides(results: list[CheckResult]) -> None:
    statuses = {result.status for result in results}
    verdict = verdict_of(iter(results))
    assert (verdict is Verdict.FAILED) == (Status.FAILED in statuses)
    assert (verdict is Verdict.PROVEN) == (statuses == {Status.PASSED})


@given(checks, checks)
def test_another_check_never_makes_a_pass_of_what_was_none(some: list[CheckResult], more: list[CheckResult]) -> None:
    if some and verdict_of(some) is not Verdict.PROVEN:
        assert verdict_of([*some, *more]) is not Verdict.PROVEN
