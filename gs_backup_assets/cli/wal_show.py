"""How `gs-backup wal status` shows the archive, as a document and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gs_backup_assets.cli.common import human_bytes
from gs_backup_assets.words import counted

if TYPE_CHECKING:
    from rich.console import Console

    from gs_backup_assets.config_backups import Wal
    from gs_backup_assets.recovery.wal.state import ClusterState, ServerState, WalState


def state_document(state: WalState, wal: Wal) -> dict[str, Any]:
    """The state as plain data."""
    refusal = state.refusal
    return {
        "max_lag_seconds": wal.max_lag.total_seconds(),
        "server": None if state.live is None else _server(state.live, wal),
        "refusal": None
        if refusal is None
        else {"code": refusal.code, "message": refusal.message, "hint": refusal.hint},
        "clusters": [_cluster(cluster) for cluster in state.clusters],
    }


def _server(live: ServerState, wal: Wal) -> dict[str, Any]:
    facts, slot = live.server.facts, live.slot
    return {
        "system_identifier": facts.system_identifier,
        "timeline": facts.timeline,
        "flushed_lsn": str(facts.lsn),
        "lag_bytes": live.lag_bytes,
        "lag_seconds": live.lag_seconds,
        "slot": {
            "name": wal.slot,
            "status": "missing" if slot is None else "lost" if slot.lost else slot.wal_status,
            "restart_lsn": None if slot is None or slot.restart_lsn is None else str(slot.restart_lsn),
            "safe_bytes": None if slot is None else slot.safe_bytes,
        },
        "max_slot_wal_keep_bytes": live.limits.keep_bytes,
        "idle_slot_timeout_seconds": live.limits.idle_seconds,
    }


def _cluster(cluster: ClusterState) -> dict[str, Any]:
    gap = cluster.gap
    return {
        "system_identifier": cluster.system_identifier,
        "gap": None
        if gap is None
        else {"first": gap.missing, "segments": cluster.gap_segments, "start": str(gap.start), "end": str(gap.end)},
        "position": None if cluster.position is None else cluster.position.model_dump(mode="json"),
        "timelines": [
            {
                "timeline": t.timeline,
                "first": t.first,
                "last": t.last,
                "segments": t.segments,
                "stored_bytes": t.stored_bytes,
                "missing": t.missing,
                "end_lsn": str(t.end),
            }
            for t in cluster.timelines
        ],
    }


def show_state(console: Console, document: dict[str, Any]) -> None:
    """The document for people."""
    from rich.table import Table

    for cluster in document["clusters"]:
        console.print(f"Cluster {cluster['system_identifier']}", markup=False)
        table = Table("timeline", "first", "last", "segments", "stored", "missing", "up to", box=None, pad_edge=False)
        for t in cluster["timelines"]:
            cells = (t["timeline"], t["first"], t["last"], t["segments"], human_bytes(t["stored_bytes"]))
            table.add_row(*map(str, (*cells, t["missing"], t["end_lsn"])))
        console.print(table)
        if (gap := cluster["gap"]) is not None:
            console.print(
                f"WAL_GAP: nothing behind {gap['start']} can be recovered:"
                f" {counted(gap['segments'], 'segment')} from {gap['first']} on, behind the newest base backup."
                " Take a new one: `gs-backup base-backup --full`.",
                markup=False,
            )
    if not document["clusters"]:
        console.print("Nothing is archived yet.")
    if (refusal := document["refusal"]) is not None:
        console.print(f"{refusal['code']}: {refusal['message']} {refusal['hint']}", markup=False)
        return
    server, slot = document["server"], document["server"]["slot"]
    seconds = server["lag_seconds"]
    lag = "for an unknown time" if seconds is None else f"{seconds:.0f} s"
    console.print(
        f"Server: timeline {server['timeline']} at {server['flushed_lsn']}; the archive is behind by"
        f" {human_bytes(server['lag_bytes'])}, {lag} (limit {document['max_lag_seconds']:.0f} s).",
        markup=False,
    )
    room = "without limit" if slot["safe_bytes"] is None else f"{human_bytes(slot['safe_bytes'])} more until it is lost"
    console.print(f"Slot {slot['name']}: {slot['status']}, from {slot['restart_lsn']} on, {room}.", markup=False)
