"""A problem that comes and goes is told of once in a while, and with how often; what is true in the end is told."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.alerts.message import Message, Problem, Severity
from gs_backup_assets.alerts.state import AlertState, decide, empty, parse_state

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=timezone.utc)
MINUTE, WINDOW, DAY = timedelta(minutes=1), timedelta(minutes=15), timedelta(days=1)
FINGERPRINTS = ("backup", "proof")
# One look: the minutes that passed, what is wrong, and whether the receivers accept what is sent.
looks = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.dictionaries(st.sampled_from(FINGERPRINTS), st.sampled_from(["critical", "warning"])),
        st.booleans(),
    ),
    max_size=60,
)
History = list[tuple[int, dict[str, Severity], bool]]


def problem(fingerprint: str = "backup", severity: Severity = "critical") -> Problem:
    return Problem(fingerprint=fingerprint, title=f"{fingerprint} is stale", body="Old.", hint="", severity=severity)


class People:
    """Those who are told: what they heard, and what they think is wrong."""

    def __init__(self) -> None:
        self.now = NOW
        self.state = empty()
        self.heard: list[tuple[datetime, str, str]] = []
        self.messages: list[Message] = []

    def look(self, wrong: dict[str, Severity], *, after: timedelta = MINUTE, accepts: bool = True) -> list[str]:
        """One look at what is wrong; returns the kinds of the messages that were accepted."""
        self.now += after
        present = [problem(fingerprint, severity) for fingerprint, severity in wrong.items()]
        decision = decide(self.state, present, self.now, DAY, flap_window=WINDOW)
        if not accepts and decision.messages:
            return []
        self.state = parse_state(decision.state.to_cursor()).state
        self.messages += decision.messages
        self.heard += [(self.now, m.kind, about) for m in decision.messages for about in m.about]
        return [message.kind for message in decision.messages]

    @property
    def believed(self) -> set[str]:
        known: set[str] = set()
        for _, kind, fingerprint in self.heard:
            known = known - {fingerprint} if kind == "recovered" else known | {fingerprint}
        return known


WRONG: dict[str, Severity] = {"backup": "critical"}


def test_a_problem_and_its_end_are_told_at_once() -> None:
    people = People()
    assert people.look(WRONG) == ["problem"]
    assert people.look({}) == ["recovered"]
    assert people.look({}) == []


def test_one_that_flaps_every_minute_is_told_once_in_a_window_with_how_often() -> None:
    people = People()
    for minute in range(120):
        people.look(WRONG if minute % 2 == 0 else {})
    times = [when for when, _, _ in people.heard]
    # The first problem and its end, then one message in each quarter of an hour.
    assert 2 + 6 <= len(times) <= 2 + 8
    assert all(later - earlier >= WINDOW for earlier, later in pairwise(times[1:]))
    assert "Came and went 7 times since the last message." in people.messages[2].body


def test_a_recovery_that_waited_says_how_often_it_came_and_went() -> None:
    people = People()
    for wrong in (WRONG, {}, WRONG, {}, WRONG):
        people.look(wrong)
    assert people.look(WRONG, after=WINDOW) == ["problem"]
    assert people.look({}) == [] and people.look(WRONG) == [] and people.look({}) == []
    assert people.look({}, after=WINDOW) == ["recovered"]
    assert "Came and went 1 time since the last message." in people.messages[-1].body
    assert people.look({}, after=WINDOW) == [] and people.state == empty()


def test_a_warning_that_becomes_critical_is_told_at_once_but_not_each_time() -> None:
    people = People()
    kinds = [people.look({"backup": severity}) for severity in ("warning", "critical", "warning", "critical")]
    assert kinds == [["problem"], ["problem"], [], []]
    assert people.look({"backup": "critical"}, after=WINDOW) == []


def test_what_one_problem_does_keeps_no_other_waiting() -> None:
    people = People()
    for wrong in (WRONG, {}, WRONG):
        people.look(wrong)
    assert people.look({**WRONG, "proof": "critical"}) == ["problem"]
    assert people.messages[-1].about == ("proof",)


@given(history=looks)
def test_at_most_two_messages_about_a_problem_in_any_window(history: History) -> None:
    """Two only where a calm one ended or grew worse: of one that flaps there is one."""
    people = People()
    for minutes, wrong, accepts in history:
        people.look(wrong, after=minutes * MINUTE, accepts=accepts)
    for fingerprint in FINGERPRINTS:
        times = [when for when, _, about in people.heard if about == fingerprint]
        assert all(third - first >= WINDOW for first, third in zip(times, times[2:], strict=False))


@given(history=looks, last=st.dictionaries(st.sampled_from(FINGERPRINTS), st.just("critical")))
def test_nothing_is_lost_when_it_settles(history: History, last: dict[str, Severity]) -> None:
    people = People()
    for minutes, wrong, accepts in history:
        people.look(wrong, after=minutes * MINUTE, accepts=accepts)
    people.look(last, after=MINUTE)
    people.look(last, after=WINDOW)
    assert people.believed == set(last)
    people.look({}, after=WINDOW)
    people.look({}, after=WINDOW)
    assert people.believed == set()
    people.look({}, after=WINDOW)
    assert people.state == empty(), "what is over and told is forgotten"


@given(history=looks)
def test_a_problem_that_nobody_knows_of_is_told_at_the_first_look_that_is_accepted(history: History) -> None:
    people = People()
    for minutes, wrong, accepts in history:
        unheard = set(wrong) - set(people.state.told)
        people.look(wrong, after=minutes * MINUTE, accepts=accepts)
        if accepts:
            assert unheard <= {about for when, kind, about in people.heard if when == people.now and kind == "problem"}


def test_a_cursor_of_an_earlier_release_is_read() -> None:
    old = (
        '{"version":1,"told":{"backup":{"first_seen":"2026-11-22T08:00:00Z","last_told":"2026-11-22T08:00:00Z",'
        '"severity":"critical","title":"backup is stale"}}}'
    )
    parsed = parse_state(old)
    assert not parsed.damaged and isinstance(parsed.state, AlertState)
    decision = decide(parsed.state, [], NOW + MINUTE, DAY, flap_window=WINDOW)
    assert [message.kind for message in decision.messages] == ["recovered"]
