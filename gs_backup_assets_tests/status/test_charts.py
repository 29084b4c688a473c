"""The charts: which backup stands for a day, and that what is drawn is well-formed and says in words what it shows."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.catalogue.summary import Summary
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.status.charts import DAYS, by_day, last_days, line_chart, verdict_chart

NOW = datetime(2026, 11, 22, 8, 0, 3, tzinfo=timezone.utc)


def summary(verdict: Verdict, hours_ago: int) -> Summary:
    taken = NOW - timedelta(hours=hours_ago)
    return Summary(
        database="shop",
        partition=taken.date().isoformat(),
        id=backup_id(taken),
        manifest_sha256="ab" * 32,
        damage=None,
        stored_bytes=3,
        source_bytes=10,
        key_id=None,
        verdict=verdict,
        proved_at=None,
        rto_seconds=None,
        broken_rules=(),
    )


def test_the_newest_proven_backup_stands_for_a_day_else_the_newest() -> None:
    days = last_days(NOW.date())
    assert len(days) == DAYS and days[-1] == NOW.date()
    failed, proven, old = summary(Verdict.FAILED, 1), summary(Verdict.PROVEN, 2), summary(Verdict.PROVEN, 3)
    assert by_day([failed, proven, old], days)[-1] == proven
    assert by_day([failed, summary(Verdict.NOT_VERIFIED, 2)], days)[-1] == failed
    assert by_day([], days) == [None] * DAYS


@given(st.lists(st.sampled_from([None, *Verdict]), min_size=DAYS, max_size=DAYS))
def test_one_mark_for_each_day_with_its_words(verdicts: list[Verdict | None]) -> None:
    backups = [None if verdict is None else summary(verdict, 1) for verdict in verdicts]
    root = ElementTree.fromstring(verdict_chart(last_days(NOW.date()), backups))
    assert len(root) == DAYS
    assert root.attrib["aria-label"] == f"Proven on {verdicts.count(Verdict.PROVEN)} of the last {DAYS} days"
    said = [mark.findtext("title", "").partition(": ")[2] for mark in root]
    assert [word == "no backup" for word in said] == [verdict is None for verdict in verdicts]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e15)), max_size=DAYS))
def test_a_line_stays_inside_its_box(values: list[float | None]) -> None:
    chart = line_chart('Size "of" <backups>', values)
    known = [value for value in values if value is not None]
    if len(known) < 2:
        assert chart is None
        return
    assert chart is not None
    root = ElementTree.fromstring(chart)
    points = [tuple(map(float, pair.split(","))) for pair in root[0].attrib["points"].split()]
    assert len(points) == len(known) and root.attrib["aria-label"] == 'Size "of" <backups>'
    assert all(0 <= x <= 300 and 0 <= y <= 44 for x, y in points)
