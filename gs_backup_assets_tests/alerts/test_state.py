"""The state machine says everything once: properties over random histories, and the cases that matter by name."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.alerts.message import Message, Problem, Severity
from gs_backup_assets.alerts.state import AlertState, Decision, decide, empty, memory_lost, parse_state

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

FINGERPRINTS = ("backup", "proof", "check/a")
# One look: the minutes that passed, what is wrong, and whether the receivers accept what is sent.
looks = st.lists(
    st.tuples(
        st.integers(1, 2000),
        st.dictionaries(st.sampled_from(FINGERPRINTS), st.sampled_from(["critical", "warning"])),
        st.booleans(),
    ),
    max_size=30,
)
History = list[tuple[int, dict[str, Severity], bool]]


def _problem(fingerprint: str = "backup", severity: Severity = "critical", since: datetime | None = None) -> Problem:
    return Problem(
        fingerprint=fingerprint,
        title=f"{fingerprint} is stale",
        body="Old.",
        hint="Run.",
        severity=severity,
        since=since,
    )


def _problems(wrong: dict[str, Severity]) -> list[Problem]:
    return [_problem(fingerprint, severity) for fingerprint, severity in wrong.items()]


def _kinds(messages: tuple[Message, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return [(message.kind, message.about) for message in messages]


def _told(history: History, remind_after: timedelta) -> list[tuple[datetime, str, str]]:
    """Live through a history as a sensor does; returns when, what kind, and which fingerprint was accepted."""
    cursor, now = "", NOW
    told: list[tuple[datetime, str, str]] = []
    for minutes, wrong, accepts in history:
        now += timedelta(minutes=minutes)
        decision = decide(parse_state(cursor).state, _problems(wrong), now, remind_after)
        if accepts:
            cursor = decision.state.to_cursor()
            told += [(now, message.kind, about) for message in decision.messages for about in message.about]
    return told


def test_a_new_problem_is_told_once_then_nothing_until_it_is_time_to_remind() -> None:
    first = decide(empty(), [_problem()], NOW, DAY)
    quiet = decide(first.state, [_problem()], NOW + DAY - HOUR, DAY)
    reminded = decide(quiet.state, [_problem()], NOW + DAY, DAY)
    quiet_again = decide(reminded.state, [_problem()], NOW + DAY + HOUR, DAY)

    assert _kinds(first.messages) == [("problem", ("backup",))]
    assert quiet == Decision(messages=(), state=first.state)
    assert _kinds(reminded.messages) == [("reminder", ("backup",))]
    assert "(1 d)" in reminded.messages[0].body
    assert quiet_again.messages == ()


def test_a_recovery_is_told_once_with_its_duration_and_forgotten() -> None:
    first = decide(empty(), [_problem(since=NOW - HOUR)], NOW, DAY)
    gone = decide(first.state, [], NOW + HOUR, DAY)

    assert [message.title for message in gone.messages] == ["Recovered: backup is stale"]
    assert gone.messages[0].body == "Lasted 2 h, since 2026-11-22 07:00 UTC."
    assert gone.state == empty()
    assert decide(gone.state, [], NOW + 2 * HOUR, DAY).messages == ()


def test_a_problem_that_returns_is_told_again() -> None:
    gone = decide(decide(empty(), [_problem()], NOW, DAY).state, [], NOW + HOUR, DAY)
    back = decide(gone.state, [_problem()], NOW + 2 * HOUR, DAY)
    assert _kinds(back.messages) == [("problem", ("backup",))]
    assert "Since 2026-11-22 10:00 UTC." in back.messages[0].body


def test_a_changed_severity_is_told_at_once_and_keeps_the_beginning() -> None:
    first = decide(empty(), [_problem(severity="warning")], NOW, DAY)
    worse = decide(first.state, [_problem(severity="critical")], NOW + HOUR, DAY)

    assert _kinds(worse.messages) == [("problem", ("backup",))]
    assert worse.messages[0].body.startswith("Now critical, was warning. Old.\nSince 2026-11-22 08:00 UTC.")
    assert decide(worse.state, [_problem(severity="critical")], NOW + 2 * HOUR, DAY).messages == ()


def test_what_another_problem_hides_has_not_ended() -> None:
    state = decide(empty(), [_problem("shop:stale"), _problem("studio:stale")], NOW, DAY).state
    away = _problem("shop:store").model_copy(update={"hides": ("shop:",)})
    decision = decide(state, [away], NOW + 2 * DAY, DAY)
    assert _kinds(decision.messages) == [("problem", ("shop:store",)), ("recovered", ("studio:stale",))]
    back = decide(decision.state, [_problem("shop:stale")], NOW + 2 * DAY + HOUR, 3 * DAY)
    assert _kinds(back.messages) == [("recovered", ("shop:store",))], "it is known already"
    over = decide(decision.state, [], NOW + 2 * DAY + HOUR, DAY)
    assert set(over.messages[0].about) == {"shop:store", "shop:stale"}


def test_what_is_no_longer_configured_has_not_ended_and_is_forgotten() -> None:
    state = decide(empty(), [_problem("shop:stale"), _problem("studio:stale")], NOW, DAY).state
    decision = decide(state, [], NOW + HOUR, DAY, watched=lambda fingerprint: fingerprint.startswith("studio:"))
    assert [message.kind for message in decision.messages] == ["event", "recovered"]
    assert decision.messages[0].title == "1 problem no longer watched" and "shop:stale" in decision.messages[0].body
    assert decision.state == empty()


def test_news_of_each_kind_is_one_message() -> None:
    start = decide(empty(), [_problem("a"), _problem("b"), _problem("c")], NOW, DAY)
    later = decide(start.state, [_problem("c"), _problem("d"), _problem("e")], NOW + DAY, DAY)
    assert _kinds(start.messages) == [("problem", ("a", "b", "c"))]
    assert _kinds(later.messages) == [("problem", ("d", "e")), ("reminder", ("c",)), ("recovered", ("a", "b"))]


@pytest.mark.parametrize("order", [("warning", "critical"), ("critical", "warning")])
def test_one_fingerprint_twice_is_one_problem_of_the_higher_severity(order: tuple[Severity, Severity]) -> None:
    decision = decide(empty(), [_problem(severity=severity) for severity in order], NOW, DAY)
    assert [message.title for message in decision.messages] == ["[critical] backup is stale"]


def test_a_beginning_in_the_future_counts_as_now() -> None:
    decision = decide(empty(), [_problem(since=NOW + DAY)], NOW, DAY)
    assert decision.state.told["backup"].first_seen == NOW


def test_a_clock_that_was_far_ahead_does_not_silence_the_reminders() -> None:
    ahead = decide(empty(), [_problem()], NOW + 1000 * DAY, DAY)
    assert _kinds(decide(ahead.state, [_problem()], NOW, DAY).messages) == [("reminder", ("backup",))]


def test_a_now_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        decide(empty(), [], datetime(2026, 11, 22), DAY)


@given(history=looks)
def test_no_problem_is_told_twice_without_a_recovery_between(history: History) -> None:
    # Severity is held still here: its change is news of its own.
    steady: History = [(minutes, dict.fromkeys(wrong, "critical"), accepts) for minutes, wrong, accepts in history]
    open_now: set[str] = set()
    for _, kind, fingerprint in _told(steady, DAY):
        if kind == "problem":
            assert fingerprint not in open_now
            open_now.add(fingerprint)
        elif kind == "recovered":
            # Exactly once: a second recovery would find nothing to remove.
            open_now.remove(fingerprint)
        else:
            assert fingerprint in open_now


@given(history=looks)
def test_after_an_accepted_look_people_know_exactly_what_is_wrong(history: History) -> None:
    known: set[str] = set()
    for _, kind, fingerprint in _told(history, DAY):
        known = known - {fingerprint} if kind == "recovered" else known | {fingerprint}
    accepted = [set(wrong) for _, wrong, accepts in history if accepts]
    assert known == (accepted[-1] if accepted else set())


@given(history=looks, remind_minutes=st.integers(1, 5000))
def test_reminders_are_spaced_and_never_missed(history: History, remind_minutes: int) -> None:
    remind_after = timedelta(minutes=remind_minutes)
    told = _told(history, remind_after)
    for fingerprint in FINGERPRINTS:
        last: datetime | None = None
        for when, kind, about in told:
            if about != fingerprint:
                continue
            if kind == "reminder":
                assert last is not None
                assert when - last >= remind_after
            last = when

    # The other direction: at an accepted look nobody has been left without a word for longer than that.
    now, heard = NOW, dict.fromkeys(FINGERPRINTS, NOW)
    for minutes, wrong, accepts in history:
        now += timedelta(minutes=minutes)
        heard |= {about: when for when, _, about in told if when == now}
        if accepts:
            assert all(now - heard[fingerprint] < remind_after for fingerprint in wrong)


@given(history=looks, wrong=st.dictionaries(st.sampled_from(FINGERPRINTS), st.sampled_from(["critical", "warning"])))
def test_a_decision_that_was_not_delivered_is_made_again(history: History, wrong: dict[str, Severity]) -> None:
    state, now = empty(), NOW
    for minutes, present, _ in history:
        now += timedelta(minutes=minutes)
        state = decide(state, _problems(present), now, DAY).state

    first = decide(state, _problems(wrong), now, DAY)
    assert decide(state, _problems(wrong), now, DAY) == first

    # A minute later the words may differ by a duration; who is told of what does not, nor does the identity.
    later = decide(state, _problems(wrong), now + timedelta(minutes=1), timedelta(days=10_000))
    again = [message for message in first.messages if message.kind != "reminder"]
    assert [message.identity for message in later.messages] == [message.identity for message in again]
    assert _kinds(later.messages) == _kinds(tuple(again))


def test_a_repeated_reminder_has_the_same_identity_and_the_next_one_another() -> None:
    told = decide(empty(), [_problem()], NOW, DAY).state
    first = decide(told, [_problem()], NOW + DAY, DAY)
    repeated = decide(told, [_problem()], NOW + DAY + HOUR, DAY)
    following = decide(first.state, [_problem()], NOW + 2 * DAY, DAY)
    identities = [decision.messages[0].identity for decision in (first, repeated, following)]
    assert identities[0] == identities[1] != identities[2]


@given(history=looks)
def test_the_state_survives_the_cursor(history: History) -> None:
    state, now = empty(), NOW + timedelta(microseconds=123456)
    for minutes, wrong, _ in history:
        now += timedelta(minutes=minutes)
        state = decide(state, _problems(wrong), now, DAY).state
    parsed = parse_state(state.to_cursor())
    assert (parsed.state, parsed.damaged) == (state, False)


def test_the_state_of_thirty_problems_is_small() -> None:
    problems = [
        Problem(fingerprint=f"check/{n}", title="t" * 5000, body="b" * 5000, hint="", severity="warning")
        for n in range(30)
    ]
    assert len(decide(empty(), problems, NOW, DAY).state.to_cursor()) < 10_000


@pytest.mark.parametrize("cursor", [None, ""])
def test_no_cursor_is_a_beginning_and_no_damage(cursor: str | None) -> None:
    parsed = parse_state(cursor)
    assert (parsed.state, parsed.damaged) == (empty(), False)


@pytest.mark.parametrize(
    "cursor",
    [
        "nonsense",
        "null",
        "[]",
        '{"version":2,"told":{}}',
        '{"version":1,"told":{"a":{}}}',
        '{"version":1,"told":{},"more":1}',
        '{"version":1,"told":{"a":{"first_seen":"0001-01-01T00:00:00+23:00","last_told":"2026-11-22T08:00:00Z",'
        '"severity":"warning","title":"t"}}}',
        '{"version":1,"told":{"a":{"first_seen":"2026-11-22T08:00:00","last_told":"2026-11-22T08:00:00Z",'
        '"severity":"warning","title":"t"}}}',
        "\ud800",
    ],
)
def test_a_damaged_cursor_is_reported_and_what_is_wrong_is_told_again(cursor: str) -> None:
    parsed = parse_state(cursor)
    assert (parsed.state, parsed.damaged) == (empty(), True)
    assert _kinds(decide(parsed.state, [_problem()], NOW, DAY).messages) == [("problem", ("backup",))]
    assert "damaged" in memory_lost().title


@given(cursor=st.text(min_size=1))
def test_no_cursor_whatever_it_holds_raises(cursor: str) -> None:
    assert isinstance(parse_state(cursor).state, AlertState)
