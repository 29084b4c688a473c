"""Tells people how the staging test went: success as well, since silence would look the same as a dead scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from gs_backup_assets.alerts.message import Message, event_message
from gs_backup_assets.alerts.notify import NotAccepted, Notifier
from gs_backup_assets.catalogue.staging_tests import StagingTestRecord
from gs_backup_assets.catalogue.verdict import CheckResult, Finding, Status, Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import BackupError, ExitStatus
from gs_backup_assets.words import counted, duration_text

MESSAGE_ACCEPTED = "message_accepted"
_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0


def staging_message(record: StagingTestRecord, link: str = "") -> Message:
    """What came of a test, with the seconds until the application worked and what to do.

    The backup comes first and the long words last: of a message that is too long the end is cut off.
    """
    about = f"Backup {record.backup_id} ({record.store} copy) on {record.staging}"
    wrong = record.first_failure
    key = f"staging-test:{record.database}:{record.id}"
    if record.exit_status is ExitStatus.GOOD or wrong is None:
        usable = duration_text(timedelta(seconds=record.rto_seconds or 0.0))
        return event_message(
            f"Restore test of {record.database} succeeded",
            f"{about}: equal and healthy after {usable}.{_masked(record)}",
            link=link,
            key=key,
            kind="success",
        )
    restored = record.verdict is Verdict.PROVEN
    title = f"Restore test of {record.database} {'succeeded, but not in time' if restored else 'FAILED'}"
    hint = next((finding.hint for finding in wrong.findings if finding.hint), "")
    back = next((check for check in record.checks if check.name == "staging_put_back"), None)
    state = "" if back is None else " Staging was put back." if back.status is Status.PASSED else " STAGING IS DOWN."
    words = f"{about}.{state} {wrong.name}: {wrong.summary}."
    return event_message(title, words, hint=hint, link=link, key=key, kind="event" if restored else "failure")


def _masked(record: StagingTestRecord) -> str:
    """What was masked, and what the masking does not reach; nothing where none is configured."""
    if not record.anonymised:
        return ""
    check = record.check("staging_anonymised")
    columns = f" {counted(int(check.metrics['masked_columns']), 'column')} masked."
    return " ".join((columns, *(f"NOT MASKED: {finding.message}" for finding in check.findings)))


def failed_message(database: str, error: BackupError, link: str = "") -> Message:
    """A test that could not begin."""
    title = f"Restore test of {database} did not begin"
    return event_message(title, f"{error.code}: {error.message}", hint=error.hint, link=link, kind="failure")


def told(settings: DatabaseSettings, message: Message, pause: Callable[[float], None] = time.sleep) -> CheckResult:
    """Send a message, three times at most; the check `message_accepted` says whether people were told."""
    notifier = Notifier(settings.alerts.urls_env)
    refusal: BackupError | None = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            pause(_PAUSE_SECONDS)
        try:
            if notifier.send(message):
                return CheckResult(name=MESSAGE_ACCEPTED, status=Status.PASSED, summary=f"told: {message.title}")
            finding = Finding(
                code="NO_RECEIVER", message=f"{settings.alerts.urls_env} is not set.", hint="docs/watch.md shows how."
            )
            summary = "nobody was told, no receiver is configured"
            return CheckResult(name=MESSAGE_ACCEPTED, status=Status.NOT_VERIFIED, summary=summary, findings=(finding,))
        except NotAccepted as error:
            refusal = error
        except BackupError as error:
            refusal = error
            break
    assert refusal is not None
    finding = Finding(code=refusal.code, message=refusal.message, hint=refusal.hint)
    summary = f"not accepted: {message.title}"
    return CheckResult(name=MESSAGE_ACCEPTED, status=Status.FAILED, summary=summary, findings=(finding,))
