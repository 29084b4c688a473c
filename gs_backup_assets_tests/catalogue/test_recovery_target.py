"""What `--to` takes: every kind of target, times with any zone, and no time without one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.recovery_target import RecoveryTarget
from gs_backup_assets.errors import ConfigError
from gs_backup_assets.postgres.wal import Lsn

SIX = datetime(2026, 11, 24, 18, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-24T18:00:00Z", SIX),
        ("2026-11-24 18:00:00 z", SIX),
        ("2026-11-24T18Z", SIX),
        ("2026-11-24T180000Z", SIX),
        ("2026-11-24T20:00+02:00", SIX),
        ("2026-11-24T20:00:00 +02", SIX),
        ("2026-11-24T12:30:00-0530", SIX),
        ("2026-11-24T18:00:00.5Z", SIX + timedelta(milliseconds=500)),
        ("2026-11-24T18:00:00,123456789Z", SIX + timedelta(microseconds=123456)),
        ("2026-11-24Z", SIX - timedelta(hours=18)),
    ],
)
def test_times_are_read_with_their_zone(text: str, at: datetime) -> None:
    target = RecoveryTarget.parse(text)
    assert (target.kind, target.at, target.inclusive) == ("time", at, True)


@pytest.mark.parametrize("text", ["2026-11-24T18:00:00", "2026-11-24 18:00", "2026-11-24"])
def test_a_time_without_a_zone_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RecoveryTarget.parse(text)
    assert caught.value.code == "TARGET_ZONE_MISSING"
    assert f"{text}Z" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["2026-13-24T18:00:00Z", "2026-11-24T25:00:00Z", "2026-11-24T18:00+25", "16/XYZ", "/", "name:", "", "a\nb"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RecoveryTarget.parse(text)
    assert caught.value.code == "TARGET_INVALID"


def test_the_other_kinds() -> None:
    assert RecoveryTarget.parse("latest", timeline=3) == RecoveryTarget(timeline=3)
    position = RecoveryTarget.parse("16/b374d848")
    assert (position.kind, position.lsn, position.inclusive) == ("lsn", Lsn(0x16B374D848), False)
    assert RecoveryTarget.parse("before the migration").name == "before the migration"
    assert RecoveryTarget.parse("name:latest").name == "latest"
    assert RecoveryTarget.parse("name:2026-11-24").name == "2026-11-24"


def test_a_name_that_the_server_would_not_take_is_refused() -> None:
    assert RecoveryTarget.parse("ü" * 31).name == "ü" * 31
    with pytest.raises(ConfigError):
        RecoveryTarget.parse("ü" * 32)


@given(
    st.one_of(
        st.datetimes(
            min_value=datetime(1990, 1, 1),
            max_value=datetime(2100, 1, 1),
            timezones=st.just(timezone.utc),
        ).map(lambda at: RecoveryTarget(at=at)),
        st.integers(0, (1 << 64) - 1).map(lambda value: RecoveryTarget(lsn=Lsn(value), inclusive=False)),
        st.just(RecoveryTarget()),
    )
)
def test_a_target_is_written_as_it_is_read(target: RecoveryTarget) -> None:
    assert RecoveryTarget.parse(str(target)) == target
