"""The doctor's checks of who is told: receivers of messages and the heartbeat. Nothing is sent."""

from __future__ import annotations

import os

from gs_backup_assets.alerts.heartbeat import is_address
from gs_backup_assets.alerts.notify import SLACK_VARIABLE, Notifier
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis, failed, passed
from gs_backup_assets.words import counted

CHECKS = ("alerts", "heartbeat")


def examine_alerts(settings: DatabaseSettings) -> tuple[Diagnosis, Diagnosis]:
    """Whether anybody would be told, as far as that shows without a message; both checks, in this order."""
    return _receivers(settings), _heartbeat(settings)


def _receivers(settings: DatabaseSettings) -> Diagnosis:
    notifier = Notifier(settings.alerts.urls_env)
    try:
        receivers = notifier.receivers()
    except ConfigError as error:
        return failed(CHECKS[0], f"{error.code}: {error.message}", hint=error.hint)
    if receivers:
        words = f"{notifier.variable} names {counted(len(receivers), 'receiver')}: failures and stale backups are told."
        return passed(CHECKS[0], words, receivers)
    variable = settings.alerts.urls_env
    return passed(
        CHECKS[0],
        f"Note: neither {variable} nor {SLACK_VARIABLE} is set, so nobody is told of failures.",
        hint=f"Set {variable}.",
    )


def _heartbeat(settings: DatabaseSettings) -> Diagnosis:
    variable = settings.alerts.heartbeat_url_env
    url = os.environ.get(variable, "").strip()
    if not url:
        return passed(
            CHECKS[1],
            f"Note: {variable} is not set: when this machine is dead, nothing here can tell it.",
            hint="docs/watch.md shows what notices that from elsewhere.",
        )
    if not is_address(url):
        hint = f"Write the whole address into {variable}, or unset it."
        return failed(CHECKS[1], f"HEARTBEAT_URL_INVALID: {variable} is no http:// or https:// address.", hint=hint)
    return passed(CHECKS[1], f"{variable} is set: its address is asked for after each proven backup.")
