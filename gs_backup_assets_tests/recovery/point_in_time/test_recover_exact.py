"""No committed transaction older than the point that was recovered to is missing, and none behind it is there.

Writers commit while base backups are taken and the log is archived; what they were told of each commit is compared, one
by one, with what recoveries to the newest point and to random moments bring back.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from gs_backup_assets.errors import BackupError
from gs_backup_assets.postgres.connection import Target, connect
from gs_backup_assets.recovery.wal.survey import survey_archive
from gs_backup_assets_tests.processes import wait_until
from gs_backup_assets_tests.recovery.point_in_time.recover_site import Site, ids, site

WRITERS = 3


@dataclass
class Diary:
    """What clients know: a row's id once its commit was confirmed, and the rows that were begun at all."""

    confirmed: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def write(self, target: Target, writer: int) -> None:
        with connect(target, settings={"search_path": "public"}) as connection, connection.cursor() as cursor:
            number = writer
            while not self.ended.is_set():
                cursor.execute("INSERT INTO t VALUES (%s)", (number,))
                self.confirmed.append(number)
                number += WRITERS


def commit_times(one: Site) -> dict[int, datetime]:
    found = one.server.sql("SELECT id, pg_xact_commit_timestamp(xmin) FROM t")
    return {int(str(number)): at for number, at in found if isinstance(at, datetime)}


@pytest.mark.parametrize("major", [15, 17], ids=lambda major: f"pg{major}")
def test_every_commit_up_to_the_point_is_there_and_none_behind(major: int, tmp_path: Path) -> None:
    with site(tmp_path, major, settings={"track_commit_timestamp": "on", "synchronous_commit": "on"}) as one:
        diary = Diary()
        threads = [
            threading.Thread(target=diary.write, args=(one.server.target(), writer), daemon=True)
            for writer in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        try:
            bases = []
            for _ in range(2):
                bases.append(one.base_backup())
                grown = len(diary.confirmed) + 300
                wait_until(lambda grown=grown: len(diary.confirmed) >= grown, what="the writers go on")
                one.archive()
            archived_by = len(diary.confirmed)
            before_archive = set(diary.confirmed[:archived_by])
            one.archive()
        finally:
            diary.ended.set()
            for thread in threads:
                thread.join(timeout=60)
        times = commit_times(one)
        assert before_archive <= set(times)
        with one.recovered("latest") as found:
            there = set(ids(found))
            last = found.achieved.at
            assert last is not None
            assert before_archive <= there, "commits that were confirmed before the log was archived are missing"
            assert {number for number, at in times.items() if at <= last} == there
        plan = one.plan("latest")
        assert plan.last_commit is not None
        assert plan.last_commit.at == last
        chance = random.Random(major)
        first, span = bases[0].consistent_at, last - bases[0].consistent_at
        moments = [first + timedelta(seconds=span.total_seconds() * chance.random()) for _ in range(3)]
        exactly = [at for at in times.values() if first < at < last]
        for moment in [*moments, chance.choice(sorted(exactly))]:
            with one.recovered(moment.isoformat()) as found:
                wanted = {number for number, at in times.items() if at <= moment}
                assert set(ids(found)) == wanted, moment


@pytest.mark.parametrize("major", [15, 17], ids=lambda major: f"pg{major}")
def test_a_log_that_ends_within_a_record_is_recovered_to_the_last_whole_one(major: int, tmp_path: Path) -> None:
    """The rule where whole segments are archived and nothing else: the last record of one goes on in the next."""
    with site(tmp_path, major) as one:
        one.base_backup()
        one.server.sql("INSERT INTO t SELECT generate_series(1, 20000)")
        one.server.sql("CHECKPOINT")  # whole pages are logged after it: long records
        one.server.sql("UPDATE t SET at = at + interval '1 day'")
        one.archive(partial=False)
        plan = one.plan("latest")
        assert plan.segments[-1].end > plan.end > plan.segments[-1].segment.start
        with one.recovered("latest") as found:
            assert found.achieved.lsn == plan.end
            assert len(ids(found)) == 20000
        with pytest.raises(BackupError, match="TARGET_AFTER_END"):
            one.plan(str(plan.segments[-1].end))
        # And a record that fills more segments than are read at a time, but for its end.
        one.server.sql("SELECT pg_logical_emit_message(true, 'one record', repeat('x', 5 << 20))")
        one.archive(partial=False)
        with one.recovered("latest") as found:
            assert found.achieved.lsn == found.plan.end
            looked = survey_archive(
                one.settings, one.vault.primary, one.system_identifier(), now=datetime.now(timezone.utc)
            )
            assert looked.end == found.plan.end
