"""Messages are short, complete and in plain text."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gs_backup_assets.alerts.message import (
    Ended,
    Message,
    Problem,
    Severity,
    event_message,
    problem_message,
    recovered_message,
    reminder_message,
    shorten,
)
from gs_backup_assets.words import duration_text

SINCE = datetime(2026, 11, 22, 8, 0, tzinfo=timezone.utc)


def _problem(number: int = 1, severity: Severity = "critical", **changes: object) -> Problem:
    fields: dict[str, object] = {
        "fingerprint": f"stale/{number}",
        "title": f"Backup {number} is stale",
        "body": "The newest backup is older than 25 h.",
        "hint": "Run `gs-backup run`.",
        "severity": severity,
        "since": SINCE,
    }
    return Problem.model_validate(fields | changes)


def test_a_problem_says_what_since_when_what_to_do_and_where_to_look() -> None:
    message = problem_message([_problem(link="https://dagster.example.org/runs/1")])

    assert (message.kind, message.title, message.about) == ("problem", "[critical] Backup 1 is stale", ("stale/1",))
    assert message.body.splitlines() == [
        "The newest backup is older than 25 h.",
        "Since 2026-11-22 08:00 UTC.",
        "What to do: Run `gs-backup run`.",
        "https://dagster.example.org/runs/1",
    ]


def test_what_is_unknown_leaves_no_empty_line() -> None:
    assert problem_message([_problem(since=None, hint="")]).body == "The newest backup is older than 25 h."


def test_a_time_is_shown_in_utc_whatever_zone_it_came_in() -> None:
    chicago = timezone(timedelta(hours=-6))
    message = problem_message([_problem(since=datetime(2026, 11, 22, 2, 0, tzinfo=chicago))])
    assert "Since 2026-11-22 08:00 UTC." in message.body


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValidationError):
        _problem(since=datetime(2026, 11, 22))


def test_a_reminder_says_for_how_long() -> None:
    message = reminder_message([_problem()], SINCE + timedelta(days=1, hours=2))
    assert (message.kind, message.title) == ("reminder", "Still: [critical] Backup 1 is stale")
    assert "Since 2026-11-22 08:00 UTC (1 d 2 h)." in message.body


def test_a_recovery_says_how_long_it_lasted() -> None:
    ended = Ended(fingerprint="stale/1", title="Backup 1 is stale", since=SINCE)
    message = recovered_message([ended], SINCE + timedelta(hours=3, minutes=5))
    assert (message.kind, message.title) == ("recovered", "Recovered: Backup 1 is stale")
    assert message.body == "Lasted 3 h 5 min, since 2026-11-22 08:00 UTC."


def test_several_recoveries_are_one_message() -> None:
    ended = [Ended(fingerprint=f"f{n}", title=f"Title {n}", since=SINCE - timedelta(hours=n)) for n in (1, 2)]
    message = recovered_message(ended, SINCE)
    assert (message.title, message.about) == ("2 problems recovered", ("f1", "f2"))
    assert "Title 1. Lasted 1 h" in message.body
    assert "Title 2. Lasted 2 h" in message.body


def test_many_problems_are_one_digest_that_begins_with_the_critical_ones_and_counts_the_rest() -> None:
    problems = [_problem(n, "warning") for n in range(11)] + [_problem(99)]
    message = problem_message(problems)

    assert message.title == "12 problems, 1 of them critical"
    assert message.body.startswith("[critical] Backup 99 is stale\n")
    assert message.body.count("What to do:") == 10
    assert message.body.endswith("And 2 more: `gs-backup status` lists them all.")
    assert set(message.about) == {problem.fingerprint for problem in problems}


@given(text=st.text(min_size=1, max_size=2000), count=st.integers(1, 30))
def test_no_message_exceeds_a_few_hundred_characters_per_problem(text: str, count: int) -> None:
    problems = [_problem(n, title=text, body=text, hint=text, link="https://x/" + text) for n in range(count)]
    message = problem_message(problems)
    assert len(message.title) <= 120
    assert len(message.body) <= 720 * min(count, 10) + 60


def test_a_long_link_is_left_out_because_a_cut_one_leads_nowhere() -> None:
    assert "https" not in problem_message([_problem(link="https://x/" + "a" * 400)]).body


@given(text=st.text(max_size=300), limit=st.integers(1, 60))
def test_shorten_keeps_one_line_within_the_limit_and_shows_the_cut(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    assert len(short.splitlines()) <= 1
    assert short == " ".join(text.split()) or short.endswith("…")


def test_an_event_tells_what_happened_and_what_to_do() -> None:
    message = event_message("Run 1a2b was cancelled", "By a person, after 3 min.", "Start it again.", "https://d/1a2b")
    assert (message.kind, message.title) == ("event", "Run 1a2b was cancelled")
    assert message.body == "By a person, after 3 min.\nWhat to do: Start it again.\nhttps://d/1a2b"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86400, "1 d"),
        (86400 * 40 + 3600 * 5 + 60, "40 d 5 h"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert duration_text(timedelta(seconds=seconds)) == text


def test_identity_is_the_key_or_else_the_words() -> None:
    def message(title: str, key: str) -> Message:
        return Message(kind="event", title=title, body="b", key=key)

    assert message("a", "k").identity == message("b", "k").identity
    assert message("a", "k").identity != message("a", "l").identity
    assert message("a", "").identity == message("a", "").identity
    assert message("a", "").identity != message("b", "").identity
