"""The daily chain against the strategy document's own way, side by side on one server: ratios, stages, memory.

The document's way: `pg_dump -Fc -Z9`, `sha256sum`, `pg_restore --clean` with one job into the same server, and three
counts. Ours: the whole daily job with all its proofs, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.floors import Floor, show, write
from gs_backup_assets.catalogue import manifest, proof
from gs_backup_assets.postgres.cluster import Cluster, create_database, drop_database, running_cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.toolchain import embedded_server
from gs_backup_assets.recovery.initial import ask_server, write_first_config
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.system.workspace import workspace

URL_VARIABLE = "GS_BACKUP_BENCH_URL"
DATABASE = "guitar_strategies"
# A production server as the manual's chapter on tuning would have it on a machine of this size, and durable.
PRODUCTION = {"shared_buffers": "512MB", "max_wal_size": "4GB", "maintenance_work_mem": "128MB"}


@dataclass(frozen=True)
class Baseline:
    """The document's way, in seconds and bytes."""

    dump_seconds: float
    checksum_seconds: float
    restore_seconds: float
    counts_seconds: float
    stored_bytes: int

    @property
    def total_seconds(self) -> float:
        return self.dump_seconds + self.checksum_seconds + self.restore_seconds + self.counts_seconds


@dataclass(frozen=True)
class Ours:
    """One run of the daily job. `process_bytes` is the peak of the run's own process, `programs_bytes` that of what it
    started (pg_dump, pg_restore, the throwaway server) by proportional set size."""

    wall_seconds: float
    stages: tuple[tuple[str, float], ...]
    stored_bytes: int
    process_bytes: int
    programs_bytes: int
    verdict: str

    def seconds(self, *names: str) -> float:
        return sum(seconds for name, seconds in self.stages if name in names)


def main() -> int:
    """Measure, print, write the results as JSON; 1 when a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=72.0, help="72 is a little more than 2 GB")
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    arguments = parser.parse_args()
    with workspace("bench") as folder, _production(arguments.scale) as server:
        size = _size(server)
        print(f"PostgreSQL {server.toolchain.release}, sample of {size / 1e9:.2f} GB, {os.cpu_count()} processors")
        baseline = _baseline(server, folder)
        lean = _ours(server, folder, "off")
        full = _ours(server, folder, "full")
    ratios = (
        Floor("dump time, no fingerprint", lean.seconds("dump", "store") / baseline.dump_seconds, 0.17),
        Floor("dump time, full fingerprint", _dump_seconds(full) / baseline.dump_seconds, 0.25),
        Floor("stored bytes", full.stored_bytes / baseline.stored_bytes, 1.05),
        Floor("whole chain with all proofs", full.wall_seconds / baseline.total_seconds, 0.60),
        Floor("run minus its stages, seconds", full.wall_seconds - _staged_seconds(full), 10.0),
        Floor("peak memory of the run, MB", full.process_bytes / 1e6, 600.0),
    )
    _show(baseline, full, ratios)
    document = {
        "sample_bytes": size,
        "baseline": asdict(baseline),
        "fingerprint_off": asdict(lean),
        "fingerprint_full": asdict(full),
    }
    write(arguments.results, "daily_chain", document, ratios)
    return 0 if all(ratio.kept for ratio in ratios) and full.verdict == "PROVEN" else 1


@contextmanager
def _production(scale: float) -> Iterator[Cluster]:
    with running_cluster(embedded_server(), purpose="bench", settings=PRODUCTION, superuser="postgres") as server:
        with connect(server.target()) as connection:
            create_database(connection, DATABASE)
        started = time.monotonic()
        with connect(server.target(DATABASE)) as connection:
            load_sample(connection, scale=scale)
            query(connection, "VACUUM ANALYZE")
            query(connection, "CHECKPOINT")
        print(f"sample loaded in {time.monotonic() - started:.0f} s")
        yield server


def _size(server: Cluster) -> int:
    with connect(server.target(DATABASE)) as connection:
        return int(query(connection, "SELECT pg_database_size(current_database())")[0][0])


def _baseline(server: Cluster, folder: Path) -> Baseline:
    target = server.target(DATABASE)
    address = ["--host", target.host, "--port", target.parameters["port"], "--username", target.parameters["user"]]
    dump = folder / "document.dump"

    def program(name: str, *arguments: str | Path) -> float:
        started = time.monotonic()
        argv = [server.toolchain.program(name), *address, *arguments]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - started

    dump_seconds = program("pg_dump", "-Fc", "-Z9", f"--file={dump}", DATABASE)
    started = time.monotonic()
    subprocess.run(["sha256sum", dump], check=True, stdout=subprocess.DEVNULL)
    checksum_seconds = time.monotonic() - started
    with connect(server.target()) as connection:
        create_database(connection, "test_restore")
    restore_seconds = program("pg_restore", "--clean", "--if-exists", "--dbname=test_restore", dump)
    counts = [f'--command=SELECT count(*) FROM "{table}"' for table in ("User", "Lesson", "Invoice")]
    counts_seconds = program("psql", "--dbname=test_restore", *counts)
    with connect(server.target()) as connection:
        drop_database(connection, "test_restore")
    size = dump.stat().st_size
    dump.unlink()
    return Baseline(dump_seconds, checksum_seconds, restore_seconds, counts_seconds, size)


def _ours(server: Cluster, folder: Path, fingerprint: str) -> Ours:
    target = server.target(DATABASE)
    p = target.parameters
    os.environ[URL_VARIABLE] = f"postgresql://{p['user']}@/{DATABASE}?host={p['host']}&port={p['port']}"
    home = folder / f"project-{fingerprint}"
    (home / "dagster_home").mkdir(parents=True)
    (home / "dagster_home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    config = home / "backup.yaml"
    write_first_config(config, ask_server(URL_VARIABLE, DATABASE))
    config.write_text(config.read_text(encoding="utf-8").replace("fingerprint: full", f'fingerprint: "{fingerprint}"'))
    environment = {**os.environ, "DAGSTER_HOME": str(home / "dagster_home")}
    argv = [Path(sys.executable).with_name("gs-backup"), "run", "--json", "--config", config]
    started = time.monotonic()
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peak = _Peak(process.pid)
    while process.poll() is None:
        peak.look()
        time.sleep(0.2)
    wall = time.monotonic() - started
    assert process.stdout is not None
    backup = json.loads(process.stdout.read())["backup"]
    seconds = {**backup["manifest"]["stage_seconds"], **backup["proof"]["stage_seconds"]}
    stages = [(name, seconds[name]) for name in (*manifest.STAGES, *proof.STAGES) if name in seconds]
    return Ours(wall, tuple(stages), backup["stored_bytes"], peak.process, peak.programs, backup["verdict"])


class _Peak:
    """Peak memory of a process, and of the programs below it, in bytes (Linux's /proc)."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.process = 0
        self.programs = 0

    def look(self) -> None:
        try:
            self.process = max(self.process, _kilobytes(Path(f"/proc/{self._pid}/status"), "VmHWM") * 1000)
            below = sum(_kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss") for pid in _descendants(self._pid))
        except (FileNotFoundError, ProcessLookupError):
            return
        self.programs = max(self.programs, below * 1000)


def _kilobytes(path: Path, field: str) -> int:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="utf-8").split():
            found += [int(child), *_descendants(int(child))]
    return found


def _dump_seconds(ours: Ours) -> float:
    """Dump and fingerprint run side by side: the longer of the two counts, and the copy into the store."""
    return max(ours.seconds("dump"), ours.seconds("fingerprint")) + ours.seconds("store")


def _staged_seconds(ours: Ours) -> float:
    beside = min(ours.seconds("dump"), ours.seconds("fingerprint"))
    checksum = ours.seconds("fetch")  # the checksum asset reads the same bytes once more; its stage is on its page
    return sum(seconds for _, seconds in ours.stages) - beside + checksum


def _show(baseline: Baseline, ours: Ours, ratios: tuple[Floor, ...]) -> None:
    print(f"\n{'the document':<28}{baseline.total_seconds:8.1f} s")
    for name in ("dump", "checksum", "restore", "counts"):
        print(f"  {name:<26}{getattr(baseline, f'{name}_seconds'):8.1f} s")
    print(f"{'ours, verdict ' + ours.verdict:<28}{ours.wall_seconds:8.1f} s")
    for name, seconds in ours.stages:
        print(f"  {name:<26}{seconds:8.1f} s")
    print(f"  programs and servers at most {ours.programs_bytes / 1e6:.0f} MB\n")
    show(ratios)


if __name__ == "__main__":
    sys.exit(main())
