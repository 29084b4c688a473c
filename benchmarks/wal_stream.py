"""The stream of the write-ahead log against pgbench at full speed: does it keep up, and what would be lost.

The lag is measured from outside, each second: how long ago was the newest moment of which everything is archived.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.floors import Floor, show, write
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.cluster import Cluster, create_database, running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.toolchain import embedded_server
from gs_backup_assets.recovery.wal.stream import stream_wal
from gs_backup_assets.recovery.wal.words import Words
from gs_backup_assets.system.programs import Program, run
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.opening import open_store

DATABASE = "bench"
_SETTINGS = {
    "wal_level": "replica",
    "max_wal_senders": "5",
    "max_replication_slots": "5",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "fsync": "off",  # the server shall be as fast as it can: the store syncs each segment all the same
    "synchronous_commit": "on",
    "archive_mode": "off",
}


@dataclass(frozen=True)
class Measured:
    """`lags` in seconds, once a second or so while the load ran; `catch_up_seconds` is from the load's end on."""

    seconds: float
    written_bytes: int
    shipped_bytes: int
    lags: tuple[float, ...]
    catch_up_seconds: float

    @property
    def written_mb_s(self) -> float:
        return self.written_bytes / 1e6 / self.seconds

    @property
    def shipped_mb_s(self) -> float:
        return self.shipped_bytes / 1e6 / (self.seconds + self.catch_up_seconds)

    @property
    def worst_lag(self) -> float:
        """The achieved RPO in seconds."""
        return max(self.lags, default=float("inf"))


def main() -> int:
    """Measure, print, write the results as JSON; 1 when a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--scale", type=int, default=20)
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    arguments = parser.parse_args()
    with (
        workspace("bench") as folder,
        running_cluster(embedded_server(), purpose="bench", settings=_SETTINGS, superuser="postgres") as server,
    ):
        measured = measure(server, folder, seconds=arguments.seconds, clients=arguments.clients, scale=arguments.scale)
    floors = (
        Floor("achieved RPO under load, seconds", measured.worst_lag, 60.0),
        Floor("catching up after the load, seconds", measured.catch_up_seconds, 30.0),
    )
    print(f"log written  {measured.written_mb_s:8.1f} MB/s\nlog shipped  {measured.shipped_mb_s:8.1f} MB/s")
    show(floors)
    document = {**asdict(measured), "achieved_rpo_seconds": measured.worst_lag, "shipped_mb_s": measured.shipped_mb_s}
    write(arguments.results, "wal_stream", document, floors)
    return 0 if all(floor.kept for floor in floors) else 1


def measure(server: Cluster, folder: Path, *, seconds: int, clients: int = 4, scale: int = 20) -> Measured:
    """pgbench for so many seconds while the stream runs in this process, then until everything is archived."""
    with connect(server.target()) as connection:
        create_database(connection, DATABASE)
    target = server.target(DATABASE)
    p = target.parameters
    where: list[str | Path] = ["-h", p["host"], "-p", p["port"], "-U", p["user"]]
    pgbench: list[str | Path] = [server.toolchain.program("pgbench"), *where]
    run([*pgbench, "-i", "-q", "-s", str(scale), DATABASE]).require_success()
    settings = DatabaseSettings.model_validate(
        {"name": "bench", "url_env": "UNUSED", "timezone": "UTC", "folder": folder, "wal": {"partial_every": "5s"}}
    )
    lines: list[dict[str, object]] = []
    stop = threading.Event()
    words = Words(lambda line: lines.append(json.loads(line)), as_json=True, every=1.0)
    thread = threading.Thread(
        target=stream_wal,
        args=(settings, open_store(settings), target),
        kwargs={"stop": stop, "words": words},
    )
    thread.start()
    try:
        _wait(lambda: any(line["code"] == "WAL_STREAMING" for line in lines))
        before, first = _written(server), len(lines)
        started = time.monotonic()
        load = ["-T", str(seconds), "-n", "-c", str(clients), "-j", "2", DATABASE]
        with Program([*pgbench, *load]) as program:
            program.wait(timeout=seconds + 60).require_success()
        elapsed, lags = time.monotonic() - started, [line.get("lag_seconds") for line in lines[first:]]
        written, ended = _written(server) - before, time.monotonic()
        at_end = len(lines)
        _wait(lambda: any(line.get("lag_bytes") == 0 for line in lines[at_end:]))
        caught_up = time.monotonic() - ended
    finally:
        stop.set()
        thread.join(60)
    shipped = [line["bytes"] for line in lines if isinstance(line.get("bytes"), int)]
    return Measured(
        seconds=elapsed,
        written_bytes=written,
        shipped_bytes=int(str(shipped[-1])) if shipped else 0,
        lags=tuple(float(lag) for lag in lags if isinstance(lag, (int, float))),
        catch_up_seconds=caught_up,
    )


def _written(server: Cluster) -> int:
    with connect(server.target()) as connection:
        return int(query(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint")[0][0])


def _wait(condition: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the stream does not come that far")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
