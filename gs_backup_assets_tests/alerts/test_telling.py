"""Databases with receivers of their own: each hears of its own, and one that refuses keeps no other from hearing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from gs_backup_assets.alerts.message import Problem
from gs_backup_assets.alerts.notify import NotAccepted
from gs_backup_assets.alerts.telling import Concern, Teller
from gs_backup_assets.config_watching import Alerts

from .receiver import Receiver

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=timezone.utc)
OPS, SHOP = Alerts(urls_env="GS_BACKUP_TEST_OPS"), Alerts(urls_env="GS_BACKUP_TEST_SHOP")


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Receiver, Receiver]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("SLACK_WEBHOOK_URL", raising=False)
    with Receiver() as ops, Receiver() as shop:
        monkeypatch.setenv(OPS.urls_env, ops.url())
        monkeypatch.setenv(SHOP.urls_env, shop.url())
        yield ops, shop


def of(alerts: Alerts, name: str) -> Concern:
    return Concern(
        alerts, Problem(fingerprint=name, title=f"{name} is stale", body="Old.", hint="", severity="critical")
    )


def test_each_hears_of_its_own(both: tuple[Receiver, Receiver]) -> None:
    ops, shop = both
    telling = Teller([OPS, SHOP]).tell({}, [of(OPS, "a"), of(SHOP, "b")], NOW)
    assert ops.titles == ["[critical] a is stale"] and shop.titles == ["[critical] b is stale"]
    assert set(telling.told[OPS.urls_env].told) == {"a"} and set(telling.told[SHOP.urls_env].told) == {"b"}


def test_what_one_refuses_is_told_again_to_that_one_alone(both: tuple[Receiver, Receiver]) -> None:
    ops, shop = both
    shop.behaviour = "refuse"
    teller = Teller([OPS, SHOP])
    concerns = [of(OPS, "a"), of(SHOP, "b")]
    first = teller.tell({}, concerns, NOW)
    assert first.refused is not None and "NOT ACCEPTED" in first.words and first.told[SHOP.urls_env].told == {}
    shop.behaviour = "accept"
    second = teller.tell(first.told, concerns, NOW + timedelta(minutes=1))
    assert (len(ops.received), len(shop.received), second.refused) == (1, 1, None)


@pytest.mark.parametrize("behaviour", ["refuse", "hang_up"])
def test_when_nobody_hears_it_fails(both: tuple[Receiver, Receiver], behaviour: str) -> None:
    for receiver in both:
        receiver.behaviour = behaviour  # type: ignore[assignment]
    with pytest.raises(NotAccepted):
        Teller([OPS, SHOP]).tell({}, [of(OPS, "a"), of(SHOP, "b")], NOW)


def test_where_nobody_is_named_the_tick_says_so(
    both: tuple[Receiver, Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SHOP.urls_env)
    telling = Teller([OPS, SHOP]).tell({}, [of(SHOP, "b")], NOW)
    assert "NOBODY WAS TOLD" in telling.words and telling.told[SHOP.urls_env].told == {}


def test_two_hundred_problems_at_once_are_one_message(both: tuple[Receiver, Receiver]) -> None:
    Teller([OPS]).tell({}, [of(OPS, f"database {number}") for number in range(200)], NOW)
    assert both[0].titles == ["200 problems, 200 of them critical"]
    assert "And 190 more" in both[0].received[0]["message"]
