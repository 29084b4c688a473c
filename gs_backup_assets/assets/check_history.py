"""What the checks came to: of each the newest evaluation that is finished, of the newest partition that has one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES as FINISHED,
)
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

if TYPE_CHECKING:
    from dagster._core.storage.event_log import EventLogStorage

# Of each check the partitions of its asset; None where its evaluations belong to none.
Checks = Mapping[dg.AssetCheckKey, dg.PartitionsDefinition[str] | None]
Found = dict[dg.AssetCheckKey, AssetCheckExecutionRecord]
# Today's backup may be still to come: checks that are run at all have been evaluated for one of the newest two.
_USUAL = 2


def newest_finished(storage: EventLogStorage, checks: Checks, now: datetime) -> Found:
    """The evaluation of each check that counts at `now`; checks that were never finished are not in it.

    Not the newest record: that may be only planned, or belong to the backfill of an old partition, which says nothing
    of the newest backup. Checks of one calendar are asked for together, partition by partition, so that thousands of
    them cost a few queries.
    """
    ever = set(storage.get_latest_asset_check_execution_by_key(list(checks)))
    calendars: dict[dg.PartitionsDefinition[str] | None, set[dg.AssetCheckKey]] = defaultdict(set)
    for key in ever & checks.keys():
        calendars[checks[key]].add(key)
    found: Found = {}
    for days, keys in calendars.items():
        partitions = [None] if days is None else list(reversed(days.get_partition_keys(current_time=now)))
        usual, older = partitions[:_USUAL], partitions[_USUAL:]
        found |= _settled(storage, keys, usual)
        # Of the others it is asked once whether they were finished at all: no calendar is gone through in vain.
        rest = {key: record for key in keys - found.keys() if (record := _newest(storage, key)) is not None}
        found |= rest | _settled(storage, rest.keys(), older)
    return found


def _settled(storage: EventLogStorage, keys: Iterable[dg.AssetCheckKey], partitions: Sequence[str | None]) -> Found:
    """The checks that were finished in one of the partitions, which come newest first."""
    found: Found = {}
    pending = set(keys)
    for partition in partitions:
        if not pending:
            break
        only = PartitionKeyFilter(key=partition)
        here = storage.get_latest_asset_check_execution_by_key(list(pending), partition_filter=only)
        for key in pending & here.keys():  # it answers for other checks of the same name as well
            last = here[key] if here[key].status in FINISHED else _newest(storage, key, only)
            if last is not None:
                found[key] = last
        pending -= found.keys()
    return found


def _newest(
    storage: EventLogStorage, key: dg.AssetCheckKey, only: PartitionKeyFilter | None = None
) -> AssetCheckExecutionRecord | None:
    records = storage.get_asset_check_execution_history(key, limit=1, status=FINISHED, partition_filter=only)
    return records[0] if records else None
