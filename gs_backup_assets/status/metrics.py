"""Metrics for Prometheus, made of one snapshot; docs/status.md lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.postgres.wal import Lsn
from gs_backup_assets.status.snapshot import Detail, Snapshot

if TYPE_CHECKING:
    from prometheus_client import Metric

# Name after `gs_backup_` -> what it means, and its labels beside `database`. docs/status.md lists the same.
METRICS: Mapping[str, tuple[str, ...]] = {
    "status": ("1 for the status that the database has, 0 for the others.", "status"),
    "problems": ("How many things are wrong with the backups now.",),
    "store_readable": ("Whether the primary store could be read.",),
    "backups": ("Dumps in the primary store, by verdict.", "verdict"),
    "last_backup_age_seconds": ("Age of the newest backup.",),
    "last_backup_timestamp_seconds": ("When the newest backup was taken.",),
    "last_backup_size_bytes": ("What the newest backup takes up in the store.",),
    "last_backup_verdict": ("1 for the verdict of the newest backup, 0 for the others.", "verdict"),
    "last_proven_age_seconds": ("Age of the newest proven backup.",),
    "last_proven_timestamp_seconds": ("When the newest proven backup was taken.",),
    "broken_rules": ("Data rules that the newest proven backup breaks.",),
    "proof_stage_seconds": ("Seconds of each stage of the last proof that succeeded.", "stage"),
    "rpo_target_seconds": ("How much may be lost.", "data_class"),
    "rpo_seconds": ("How much would be lost now.", "data_class"),
    "rto_target_seconds": ("How soon it must be back.", "data_class"),
    "rto_seconds": ("How soon it would be back, as the last proof that succeeded measured it.", "data_class"),
    "base_backups": ("Base backups in the primary store.",),
    "last_base_backup_age_seconds": ("Age of the newest base backup.",),
    "last_base_backup_size_bytes": ("What the newest base backup takes up in the store.",),
    "wal_archived_age_seconds": ("How long ago the archive was last known to be where the server was.",),
    "wal_archived_position_bytes": ("Position up to which the archive had the write-ahead log.",),
    "wal_server_position_bytes": ("Position up to which the server had flushed it.",),
    "wal_lag_bytes": ("Bytes of the write-ahead log that the archive lacked.",),
    "wal_position_age_seconds": ("How long ago the stream last told where it stands.",),
}
Sample = tuple[Any, ...]  # name, value or None for one that is not known, values of the labels
_STATES = ("healthy", "warning", "error")


class _Collector:
    """Gives one snapshot to a registry."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        return _metrics(self._snapshot)


def render(snapshot: Snapshot) -> tuple[bytes, str]:
    """The metrics in Prometheus' text format, and its content type."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_LATEST

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot))
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _metrics(snapshot: Snapshot) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    families = {
        name: GaugeMetricFamily(f"gs_backup_{name}", words, labels=("database", *labels))
        for name, (words, *labels) in METRICS.items()
    }
    for detail in snapshot.details:
        for samples in (_of_status, _of_backups, _of_recovery, _of_the_cluster):
            for name, value, *labels in samples(detail):
                if value is not None:
                    families[name].add_metric((detail.status.database, *labels), float(value))
    yield from families.values()


def _of_status(detail: Detail) -> Iterator[Sample]:
    one = detail.status
    for state in _STATES:
        yield ("status", one.status == state, state)
    yield ("problems", len(one.headlines))
    yield ("store_readable", one.store_readable)
    if one.store_readable:
        verdicts = Counter(summary.verdict for summary in detail.reading.summaries)
        for known in Verdict:
            yield ("backups", verdicts[known], known.value)


def _of_backups(detail: Detail) -> Iterator[Sample]:
    newest, proven = detail.status.latest_backup, detail.status.last_proven
    if newest is not None:
        yield ("last_backup_age_seconds", newest.age / 1000)
        yield ("last_backup_timestamp_seconds", newest.created.timestamp())
        yield ("last_backup_size_bytes", newest.size)
        for known in Verdict:
            yield ("last_backup_verdict", newest.verdict is known, known.value)
    if proven is not None:
        yield ("last_proven_age_seconds", proven.age / 1000)
        yield ("last_proven_timestamp_seconds", proven.created.timestamp())
        yield ("broken_rules", proven.broken_rules)


def _of_recovery(detail: Detail) -> Iterator[Sample]:
    for stage, seconds in detail.stage_seconds.items():
        yield ("proof_stage_seconds", seconds, stage)
    for goal in detail.status.objectives:
        yield ("rpo_target_seconds", goal.rpo_target_seconds, goal.name)
        yield ("rpo_seconds", goal.rpo_seconds, goal.name)
        yield ("rto_target_seconds", goal.rto_target_seconds, goal.name)
        yield ("rto_seconds", goal.rto_seconds, goal.name)


def _of_the_cluster(detail: Detail) -> Iterator[Sample]:
    one, now, position = detail.status, detail.reading.now, detail.position
    if one.latest_base_backup is not None:
        yield ("base_backups", one.total_base_backups)
        yield ("last_base_backup_age_seconds", one.latest_base_backup.age / 1000)
        yield ("last_base_backup_size_bytes", one.latest_base_backup.size)
    if one.wal_archived_at is not None:
        yield ("wal_archived_age_seconds", max(0.0, (now - one.wal_archived_at).total_seconds()))
    if position is not None:
        yield ("wal_archived_position_bytes", Lsn.parse(position.archived_lsn).value)
        yield ("wal_server_position_bytes", Lsn.parse(position.server_lsn).value)
        yield ("wal_lag_bytes", position.lag_bytes)
        yield ("wal_position_age_seconds", max(0.0, (now - position.at).total_seconds()))
