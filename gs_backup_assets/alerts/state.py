"""When something is said: a pure state machine that announces a problem once, reminds, and tells of its end once.

A problem that comes and goes is told of once in a while, and with how often it did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
    flaps_text,
    problem_message,
    recovered_message,
    reminder_message,
    shorten,
    unwatched_message,
)


class Told(BaseModel):
    """What people were told about one problem; `title` is kept to be able to name it when it is gone.

    `open` is what they know of it, `seen` is whether it was there at the last look, `changes` is how often it came or
    went since the last message. A `restless` one came back soon after its end was told, or changed its severity: the
    next message about it has to wait.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_seen: UtcTime
    last_told: UtcTime
    severity: Severity
    title: str
    open: bool = True
    seen: bool = True
    changes: int = 0
    restless: bool = False


class AlertState(BaseModel):
    """Every problem that people know of or heard of a moment ago, by fingerprint. Small: it lives in a cursor."""

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


def decide(
    state: AlertState,
    problems: Sequence[Problem],
    now: datetime,
    remind_after: timedelta,
    *,
    flap_window: timedelta = timedelta(0),
    watched: Callable[[str], bool] = lambda _: True,
) -> Decision:
    """Compare what people know with what is wrong at the aware time `now`.

    A new problem, and one whose severity changed, gives a problem message; one that people know of gives nothing until
    `remind_after` has passed since they last heard of it, then a reminder; one that is gone gives a recovered message.
    Each kind is one message, whatever the number of problems. Two problems with one fingerprint count as the more
    severe of them. Raises ValueError for a `now` without time zone.

    A problem and its end are told at once. What comes after that is told when `flap_window` has passed since the last
    message about the same problem, if it is still news then. Keep the state also when there is no message. A problem
    that another one hides stays as it is, and nothing is said of it. One that is not `watched`, by its fingerprint, is
    forgotten, which is said: a database that backup.yaml no longer names has not recovered.
    """
    if now.utcoffset() is None:
        raise ValueError("now must be an aware time")
    present = _by_fingerprint(problems)
    dropped = {name: told for name, told in state.told.items() if not watched(name)}
    hidden = tuple(start for problem in problems for start in problem.hides)
    steps = {
        fingerprint: _Step(known)
        if fingerprint not in present and known is not None and known.open and fingerprint.startswith(hidden)
        else _step(fingerprint, known, present.get(fingerprint), _Clock(now, remind_after, flap_window))
        for fingerprint in dict.fromkeys((*state.told, *present))
        if fingerprint not in dropped
        for known in (state.told.get(fingerprint),)
    }
    announced = [step.announced for step in steps.values() if step.announced is not None]
    reminded = [step.reminded for step in steps.values() if step.reminded is not None]
    ended = [step.ended for step in steps.values() if step.ended is not None]
    told = {fingerprint: step.keep for fingerprint, step in steps.items() if step.keep is not None}

    messages: list[Message] = []
    # No key depends on `now`: a decision repeated after a refusal tells the same news and has the same keys.
    if any(told.open for told in dropped.values()):
        gone = {name: told for name, told in dropped.items() if told.open}
        key = _key((name, told.first_seen.isoformat()) for name, told in gone.items())
        messages.append(unwatched_message([told.title for told in gone.values()], key))
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


@dataclass(frozen=True)
class _Clock:
    now: datetime
    remind_after: timedelta
    flap_window: timedelta


@dataclass(frozen=True)
class _Step:
    """What becomes of one problem: what is kept of it, and the one thing that is said of it, if any."""

    keep: Told | None
    announced: Problem | None = None
    reminded: Problem | None = None
    ended: Ended | None = None


def _step(fingerprint: str, known: Told | None, problem: Problem | None, clock: _Clock) -> _Step:
    if known is not None:
        changes = known.changes + (known.seen != (problem is not None))
        silent = known.model_copy(update={"changes": changes, "seen": problem is not None})
        # Distance, not difference: a time in the future, written by a wrong clock, must not silence what is to be said.
        passed = abs(clock.now - known.last_told)
        calm = known.open and not known.restless and known.changes == 0
        if problem is None:
            return _gone(fingerprint, silent, passed, clock, may_speak=calm or passed >= clock.flap_window)
        return _present(silent, problem, passed, clock, calm=calm)
    assert problem is not None
    announced = _since(problem, clock.now)
    return _Step(_heard(announced, clock.now), announced=announced)


def _gone(fingerprint: str, known: Told, passed: timedelta, clock: _Clock, *, may_speak: bool) -> _Step:
    if known.open and may_speak:
        flaps = known.changes // 2
        ended = Ended(fingerprint=fingerprint, title=known.title, since=known.first_seen, flaps=flaps)
        gone = known.model_copy(update={"open": False, "last_told": clock.now, "changes": 0, "restless": False})
        return _Step(gone if clock.flap_window else None, ended=ended)
    return _Step(known if known.open or passed < clock.flap_window else None)


def _present(known: Told, problem: Problem, passed: timedelta, clock: _Clock, *, calm: bool) -> _Step:
    flaps = _flaps(known.changes)
    if not known.open and passed >= clock.flap_window:
        announced = _since(problem, clock.now, flaps)
        return _Step(_heard(announced, clock.now, restless=known.changes > 1), announced=announced)
    current = problem.model_copy(update={"since": known.first_seen})
    if known.open and known.severity != problem.severity and (calm or passed >= clock.flap_window):
        was = f"{flaps}Now {problem.severity}, was {known.severity}. {problem.body}"
        announced = current.model_copy(update={"body": was})
        return _Step(_heard(current, clock.now, restless=True), announced=announced)
    if known.open and passed >= max(clock.remind_after, clock.flap_window):
        reminded = current.model_copy(update={"body": f"{flaps}{problem.body}"})
        return _Step(_heard(current, clock.now, restless=known.changes > 0), reminded=reminded)
    return _Step(known)


def _since(problem: Problem, now: datetime, flaps: str = "") -> Problem:
    """A problem as it is announced: it began when that is known, and not in the future."""
    since = min(problem.since or now, now)
    return problem.model_copy(update={"since": since, "body": f"{flaps}{problem.body}"})


def _heard(problem: Problem, now: datetime, *, restless: bool = False) -> Told:
    """What people know of a problem that is told of now."""
    assert problem.since is not None
    return Told(
        first_seen=problem.since,
        last_told=now,
        severity=problem.severity,
        title=shorten(problem.title, TITLE_LIMIT),
        restless=restless,
    )


def _flaps(changes: int) -> str:
    """How often a problem came and went unsaid, if it did."""
    return f"{flaps_text(changes // 2)} " if changes > 1 else ""


def _by_fingerprint(problems: Sequence[Problem]) -> dict[str, Problem]:
    present: dict[str, Problem] = {}
    for problem in problems:
        other = present.get(problem.fingerprint)
        if other is None or (other.severity, problem.severity) == ("warning", "critical"):
            present[problem.fingerprint] = problem
    return present


def _key(parts: Iterable[tuple[str, str]]) -> str:
    return json.dumps(sorted(parts))
