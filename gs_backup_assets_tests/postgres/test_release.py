"""Tests of version numbers and of the rule which programs are new enough for a server."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.postgres.release import NEWEST_SUPPORTED_MAJOR, OLDEST_SUPPORTED_MAJOR, Release

releases = st.builds(Release, st.integers(OLDEST_SUPPORTED_MAJOR, NEWEST_SUPPORTED_MAJOR + 2), st.integers(0, 60))


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("17.10", Release(17, 10)),
        ("15.20 (Debian 15.20-0+deb12u1)", Release(15, 20)),
        ("pg_dump (PostgreSQL) 18.1", Release(18, 1)),
        ("postgres (PostgreSQL) 19beta1", Release(19, 0)),
        ("16.15.0", Release(16, 15)),
    ],
)
def test_versions_are_read_as_programs_and_servers_write_them(text: str, release: Release) -> None:
    assert Release.parse(text) == release


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match="not a PostgreSQL version"):
        Release.parse("pg_dump")


@pytest.mark.parametrize(
    ("programs", "server", "fits"),
    [
        ("15.20", "15.20", True),
        ("15.18", "15.20", False),
        ("15.19", "15.20", False),
        ("17.10", "15.20", False),  # May 2026
        ("18.1", "15.20", False),  # November 2025
        ("18.6", "15.20", False),  # August 2026
        ("16.15", "15.20", False),
        ("17.10", "15.18", True),  # released on the same day
        ("17.10", "15.19", False),
        ("17.11", "15.19", True),
        ("18.5", "15.19", False),  # unknown: between May and August 2026
        ("15.19", "17.11", False),  # never an older major
        ("14.23", "15.1", False),
        ("18.0", "13.18", True),
    ],
)
def test_the_trap_of_november_2026(programs: str, server: str, fits: bool) -> None:
    assert Release.parse(programs).fits_server(Release.parse(server)) is fits


@given(releases)
def test_a_server_is_fitted_by_its_own_programs(release: Release) -> None:
    assert release.fits_server(release)


@given(releases, releases)
def test_no_older_release_ever_fits(programs: Release, server: Release) -> None:
    if programs.fits_server(server):
        assert programs >= server
        assert programs.major == server.major or programs.latest_day() >= server.earliest_day()


@given(releases, releases, releases)
def test_fitting_is_transitive(newest: Release, middle: Release, oldest: Release) -> None:
    if newest.fits_server(middle) and middle.fits_server(oldest):
        assert newest.fits_server(oldest)


@given(releases)
def test_days_are_in_order(release: Release) -> None:
    following = Release(release.major, release.minor + 1)
    assert release.earliest_day() <= release.latest_day()
    assert release.earliest_day() <= following.earliest_day()
    assert release.latest_day() <= following.latest_day()


def test_known_days_are_exact() -> None:
    november = Release(15, 20)
    assert november.earliest_day() == november.latest_day() == date(2026, 11, 13)
    may = {Release(15, 18), Release(16, 14), Release(17, 10), Release(18, 4)}
    assert {release.earliest_day() for release in may} == {date(2026, 5, 14)}
