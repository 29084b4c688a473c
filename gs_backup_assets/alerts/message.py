"""What is said to people: problems, and the short plain-text messages made of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from gs_backup_assets.words import counted, duration_text, time_text

Severity = Literal["critical", "warning"]
Kind = Literal["problem", "reminder", "recovered", "event", "success", "failure"]
EventKind = Literal["event", "success", "failure"]
UtcTime = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(timezone.utc))]

# Longest texts in characters. A message is read on a phone at night: what does not fit belongs on the linked page.
TITLE_LIMIT = 100
_BODY_LIMIT = 200
_HINT_LIMIT = 140
_GOOD_LIMIT = 80
_LINK_LIMIT = 160
_DIGEST_LIMIT = 10


class Problem(BaseModel):
    """Something that is wrong now.

    `fingerprint` names the problem for as long as it lasts: it must be the same at every look, so it holds no time and
    no number that moves. `since` is when it became wrong, where that is known. `hint` says what to do, `link` is a
    page that tells more. No field may hold a secret: all of them are posted. `title` names no host and no path: it is
    shown to readers from elsewhere, with `code`, that of the error that is behind it. `last_good` names the backup to
    fall back on, where the body does not. `hides` is what other problems' fingerprints begin with, of which nothing is
    known while this one lasts: those that are no longer seen then have not ended.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str = Field(min_length=1, max_length=200)
    title: str = Field(min_length=1)
    body: str
    hint: str
    severity: Severity
    since: UtcTime | None = None
    link: str = ""
    code: str = ""
    last_good: str = ""
    hides: tuple[str, ...] = Field(default=(), exclude=True)  # of this look alone, and nothing to be read


class Ended(BaseModel):
    """A problem that is gone; `since` is when it began, `flaps` how often it went and came back unsaid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    title: str
    since: UtcTime
    flaps: int = 0


class Message(BaseModel):
    """What is posted. `about` holds the fingerprints it speaks of.

    `key` is equal for two messages that tell the same news in other words (a duration that grew between two attempts);
    where it is empty the words themselves are the identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    title: str = Field(min_length=1)
    body: str
    about: tuple[str, ...] = ()
    key: str = ""

    @property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, of what is told."""
        told = [self.kind, self.key] if self.key else [self.kind, "", self.title, self.body]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def problem_message(problems: Sequence[Problem], key: str = "") -> Message:
    """Announce problems: one in full, several as a digest, the critical ones first."""
    return _told("problem", problems, [_facts(problem) for problem in problems], key)


def reminder_message(problems: Sequence[Problem], now: datetime, key: str = "") -> Message:
    """Say that problems which were announced before are still there, and for how long at the time `now`."""
    return _told("reminder", problems, [_facts(problem, now) for problem in problems], key)


def unwatched_message(titles: Sequence[str], key: str = "") -> Message:
    """Say that problems which were announced are no longer looked at: that they have ended is not known."""
    listed = "; ".join(shorten(title, TITLE_LIMIT) for title in titles[:_DIGEST_LIMIT])
    more = f"; and {len(titles) - _DIGEST_LIMIT} more" if len(titles) > _DIGEST_LIMIT else ""
    return Message(
        kind="event",
        title=f"{counted(len(titles), 'problem')} no longer watched",
        body=f"{listed}{more}.\nWhat this is about is no longer configured. It is not known to be over.",
        key=key,
    )


def recovered_message(ended: Sequence[Ended], now: datetime, key: str = "") -> Message:
    """Say that problems are gone at the time `now`, and how long each of them lasted."""
    lines = [_lasted(one, now) for one in ended]
    about = tuple(one.fingerprint for one in ended)
    titles = [f"Recovered: {shorten(one.title, TITLE_LIMIT)}" for one in ended]
    if len(ended) == 1:
        return Message(kind="recovered", title=titles[0], body=lines[0], about=about, key=key)
    body = _digest([f"{title}. {line}" for title, line in zip(titles, lines, strict=True)])
    return Message(kind="recovered", title=f"{len(ended)} problems recovered", body=body, about=about, key=key)


def event_message(
    title: str, body: str, hint: str = "", link: str = "", key: str = "", *, kind: EventKind = "event"
) -> Message:
    """Tell something that happened once and does not last, such as a cancelled run, or how a test went."""
    parts = [shorten(body, _BODY_LIMIT), *_advice(hint, link)]
    return Message(kind=kind, title=shorten(title, TITLE_LIMIT), body="\n".join(filter(None, parts)), key=key)


def flaps_text(flaps: int) -> str:
    """That a problem came and went between two messages."""
    return f"Came and went {flaps} time{'s' if flaps > 1 else ''} since the last message."


def _lasted(one: Ended, now: datetime) -> str:
    more = f" {flaps_text(one.flaps)}" if one.flaps else ""
    return f"Lasted {duration_text(now - one.since)}, since {time_text(one.since)}.{more}"


def shorten(text: str, limit: int) -> str:
    """The text on one line and in at most `limit` characters; an ellipsis shows that something was cut."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def _told(kind: Literal["problem", "reminder"], problems: Sequence[Problem], facts: list[str], key: str) -> Message:
    prefix = "Still: " if kind == "reminder" else ""
    about = tuple(problem.fingerprint for problem in problems)
    titles = [f"{prefix}[{problem.severity}] {shorten(problem.title, TITLE_LIMIT)}" for problem in problems]
    if len(problems) == 1:
        return Message(kind=kind, title=titles[0], body=facts[0], about=about, key=key)
    paragraphs = sorted(
        zip(problems, titles, facts, strict=True),
        key=lambda paragraph: (paragraph[0].severity != "critical", paragraph[0].fingerprint),
    )
    critical = sum(problem.severity == "critical" for problem in problems)
    title = f"{prefix}{len(problems)} problems, {critical} of them critical"
    body = _digest([f"{title}\n{text}" for _, title, text in paragraphs])
    return Message(kind=kind, title=title, body=body, about=about, key=key)


def _facts(problem: Problem, now: datetime | None = None) -> str:
    since = ""
    if problem.since is not None:
        lasted = "" if now is None else f" ({duration_text(now - problem.since)})"
        since = f"Since {time_text(problem.since)}{lasted}."
    good = shorten(problem.last_good, _GOOD_LIMIT)
    parts = [shorten(problem.body, _BODY_LIMIT), since, good, *_advice(problem.hint, problem.link)]
    return "\n".join(filter(None, parts))


def _advice(hint: str, link: str) -> tuple[str, str]:
    short = shorten(hint, _HINT_LIMIT)
    # A link that was cut leads nowhere: one that is too long is left out.
    return (f"What to do: {short}" if short else "", link if len(link) <= _LINK_LIMIT else "")


def _digest(paragraphs: Sequence[str]) -> str:
    more = len(paragraphs) - _DIGEST_LIMIT
    rest = [f"And {more} more: `gs-backup status` lists them all."] if more > 0 else []
    return "\n\n".join([*paragraphs[:_DIGEST_LIMIT], *rest])
