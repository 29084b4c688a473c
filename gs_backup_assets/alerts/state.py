"""When something is said: a pure state machine that announces a problem once, reminds, and tells of its end once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from gs_backup_assets.alerts.message import (
    TITLE_LIMIT,
    Ended,
    Message,
    Problem,
    Severity,
    UtcTime,
    event_message,
    problem_message,
    recovered_message,
    reminder_message,
    shorten,
)


class Told(BaseModel):
    """What people were told about one problem; `title` is kept to be able to name it when it is gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_seen: UtcTime
    last_told: UtcTime
    severity: Severity
    title: str


class AlertState(BaseModel):
    """Every problem that people know of, by fingerprint. Small: it lives in the cursor of a sensor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    told: dict[str, Told] = {}

    def to_cursor(self) -> str:
        """The state as one line of JSON, which `parse_state` reads back."""
        return self.model_dump_json()


class ParsedState(BaseModel):
    """A state read from a cursor; `damaged` says that the cursor held something else and the memory is lost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: AlertState
    damaged: bool


class Decision(BaseModel):
    """What to send now, and the state to keep once all of it was accepted. Keep the old state otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Message, ...]
    state: AlertState


def empty() -> AlertState:
    """The state in which nobody was told anything."""
    return AlertState()


def parse_state(cursor: str | None) -> ParsedState:
    """Read a cursor. None or an empty one is a beginning; one that cannot be read gives an empty state and `damaged`.

    An empty state errs on the loud side: what is still wrong is announced again. What is lost are the recoveries of
    problems announced before, so a caller that meets `damaged` must send `memory_lost()` as well.
    """
    if not cursor:
        return ParsedState(state=empty(), damaged=False)
    try:
        return ParsedState(state=AlertState.model_validate_json(cursor), damaged=False)
    except (ValueError, OverflowError):  # OverflowError: a time at the edge of the calendar that has no equal in UTC
        return ParsedState(state=empty(), damaged=True)


def memory_lost() -> Message:
    """The message that goes with a damaged cursor."""
    return event_message(
        "The memory of earlier alerts was damaged",
        "What is still wrong is announced again. A problem announced before that is not announced again has ended.",
        "Compare earlier messages with `gs-backup status`.",
        key="memory-lost",
    )


def decide(state: AlertState, problems: Sequence[Problem], now: datetime, remind_after: timedelta) -> Decision:
    """Compare what people know with what is wrong at the aware time `now`.

    A new problem, and one whose severity changed, gives a problem message; one that people know of gives nothing until
    `remind_after` has passed since they last heard of it, then a reminder; one that is gone gives a recovered message.
    Each kind is one message, whatever the number of problems. Two problems with one fingerprint count as the more
    severe of them. Raises ValueError for a `now` without time zone.
    """
    if now.utcoffset() is None:
        raise ValueError("now must be an aware time")
    present = _by_fingerprint(problems)
    told = dict(state.told)
    announced: list[Problem] = []
    reminded: list[Problem] = []
    for fingerprint, problem in present.items():
        known = told.get(fingerprint)
        since = known.first_seen if known else min(problem.since or now, now)
        current = problem.model_copy(update={"since": since})
        if known is None:
            announced.append(current)
        elif known.severity != problem.severity:
            was = f"Now {problem.severity}, was {known.severity}. {problem.body}"
            announced.append(current.model_copy(update={"body": was}))
        # Distance, not difference: a time in the future, written by a wrong clock, must not silence the reminders.
        elif abs(now - known.last_told) >= remind_after:
            reminded.append(current)
        else:
            continue
        title = shorten(problem.title, TITLE_LIMIT)
        told[fingerprint] = Told(first_seen=since, last_told=now, severity=problem.severity, title=title)
    ended = [
        Ended(fingerprint=fingerprint, title=known.title, since=known.first_seen)
        for fingerprint, known in state.told.items()
        if fingerprint not in present
    ]
    for one in ended:
        del told[one.fingerprint]

    messages: list[Message] = []
    # No key depends on `now`: a decision repeated after a refusal tells the same news and has the same keys.
    if announced:
        key = _key((problem.fingerprint, problem.severity) for problem in announced)
        messages.append(problem_message(announced, key))
    if reminded:
        key = _key((p.fingerprint, state.told[p.fingerprint].last_told.isoformat()) for p in reminded)
        messages.append(reminder_message(reminded, now, key))
    if ended:
        key = _key((one.fingerprint, one.since.isoformat()) for one in ended)
        messages.append(recovered_message(ended, now, key))
    return Decision(messages=tuple(messages), state=AlertState(told=told))


def _by_fingerprint(problems: Sequence[Problem]) -> dict[str, Problem]:
    present: dict[str, Problem] = {}
    for problem in problems:
        other = present.get(problem.fingerprint)
        if other is None or (other.severity, problem.severity) == ("warning", "critical"):
            present[problem.fingerprint] = problem
    return present


def _key(parts: Iterable[tuple[str, str]]) -> str:
    return json.dumps(sorted(parts))
