"""What the doctor says of those who are told: nothing is ok that no message would reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_backup_assets.alerts.examine import CHECKS, examine_alerts
from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis

SLACK = "https://hooks.slack.com/services/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"
VARIABLES = ("GS_BACKUP_ALERT_URLS", "SLACK_WEBHOOK_URL", "GS_BACKUP_HEARTBEAT_URL")


def examined(folder: Path, monkeypatch: pytest.MonkeyPatch, **values: str) -> tuple[Diagnosis, Diagnosis]:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in values.items():
        monkeypatch.setenv(variable, value)
    found = examine_alerts(DatabaseSettings(name="shop", url_env="TEST_URL", timezone="UTC", folder=folder))
    assert tuple(diagnosis.name for diagnosis in found) == CHECKS
    assert not any(value in str(found) for value in values.values()), "an address is a secret"
    return found


def test_nobody_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receivers, heartbeat = examined(tmp_path, monkeypatch)
    assert receivers.is_note and "nobody is told" in receivers.summary and "SLACK_WEBHOOK_URL" in receivers.summary
    assert heartbeat.is_note and "GS_BACKUP_HEARTBEAT_URL is not set" in heartbeat.summary


@pytest.mark.parametrize(
    ("values", "variable", "hosts"),
    [
        ({"SLACK_WEBHOOK_URL": SLACK}, "SLACK_WEBHOOK_URL", ("https://hooks.slack.com",)),
        (
            {"GS_BACKUP_ALERT_URLS": f"{SLACK} json://ops"},
            "GS_BACKUP_ALERT_URLS",
            ("https://hooks.slack.com", "json://ops"),
        ),
    ],
)
def test_receivers_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, str], variable: str, hosts: tuple[str, ...]
) -> None:
    receivers, _ = examined(tmp_path, monkeypatch, **values)
    assert receivers.status is Status.PASSED and not receivers.is_note
    assert receivers.summary.startswith(f"{variable} names ") and receivers.details == hosts


@pytest.mark.parametrize("variable", VARIABLES[:2])
def test_an_address_that_nobody_knows_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    receivers, _ = examined(tmp_path, monkeypatch, **{variable: "https//bad"})
    assert receivers.status is Status.FAILED
    assert receivers.summary.startswith("ALERT_URL_INVALID") and variable in receivers.summary


@pytest.mark.parametrize(
    "url", ["hc-ping.com/x", "https//hc-ping.com/x", "ftp://hc-ping.com/x", "https:///x", "http://[x"]
)
def test_a_heartbeat_without_an_address_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    _, heartbeat = examined(tmp_path, monkeypatch, GS_BACKUP_HEARTBEAT_URL=url)
    assert heartbeat.status is Status.FAILED and "HEARTBEAT_URL_INVALID" in heartbeat.summary
    _, heartbeat = examined(tmp_path, monkeypatch, GS_BACKUP_HEARTBEAT_URL="https://hc-ping.com/x")
    assert heartbeat.status is Status.PASSED and not heartbeat.is_note
