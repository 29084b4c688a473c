"""Two hundred databases in one configuration: how long status, watch, code location and sensors take.

Each has a month of proven backups in two stores, made up but for the dumps. What counts is the processor's time in
imports of dagster, measured beside it: one takes half a second on a quick machine, and four times that on a busy one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from benchmarks.floors import Floor, show, write
from gs_backup_assets.catalogue import proof as proofs
from gs_backup_assets.catalogue.catalogue import proof_id
from gs_backup_assets.catalogue.manifest import NAME, encode
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.manifests import made_up, proof_of

DATABASES, DAYS = 200, 30
# What an import takes where the promised seconds hold: 5 for the code location, 2 for all else.
_IMPORT_SECONDS = 0.5
# `-X importtime` would slow it; the child tells its own processor seconds.
_LOAD = """
import time
started = time.process_time()
import dagster
imported = time.process_time()
from gs_backup_assets.definitions import defs
defs.get_repository_def()
print(time.process_time() - started, imported - started)
"""
_SENSORS = """
import time, json
from gs_backup_assets.definitions import defs
import dagster as dg
repository = defs.get_repository_def()
seconds = {}
with dg.instance_for_test() as instance:
    for name in ("stale_backups", "failed_checks", "failed_runs"):
        sensor = repository.get_sensor_def(name)
        with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
            started = time.process_time()
            sensor.evaluate_tick(context)
            seconds[name] = time.process_time() - started
print(json.dumps(seconds))
"""


def main() -> int:
    """Measure, print, write the results as JSON; 1 when a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    arguments = parser.parse_args()
    with workspace("bench") as folder:
        config = _house(folder)
        environment = {**os.environ, "GS_BACKUP_CONFIG": str(config), "GS_BACKUP_CACHE": str(folder / "cache")}
        verb = [Path(sys.executable).with_name("gs-backup")]
        measured = {
            "status, for the first time": _run([*verb, "status", "--json"], environment),
            "status": _best(lambda: _run([*verb, "status", "--json"], environment)),
            "watch": _best(lambda: _run([*verb, "watch", "--quiet", "--state", folder / "state"], environment)),
        }
        endpoint = _endpoint([*verb, "serve", "--port", "0", "--json"], environment)
        loads = [[float(word) for word in _child(_LOAD, environment).split()] for _ in range(3)]
        load, imported = (min(numbers) for numbers in zip(*loads, strict=True))
        ticks = [json.loads(_child(_SENSORS, environment).splitlines()[-1]) for _ in range(3)]
        sensors = {name: min(tick[name] for tick in ticks) for name in ticks[0]}
    for name, (processor, wall) in measured.items():
        print(f"     {name:<44}{processor:9.2f} s of processor, {wall:6.2f} s by the clock")
    print(f"     {'import of dagster alone':<44}{imported:9.2f} s of processor")
    seconds = (
        ("status", measured["status"][0], 2.0),
        ("watch", measured["watch"][0], 2.0),
        ("status endpoint", endpoint["first"], 2.0),
        ("status endpoint again", endpoint["again"], 0.2),
        ("code location", load, 5.0),
        *((f"sensor {name}", taken, 2.0) for name, taken in sensors.items()),
    )
    floors = [Floor(f"{name}, imports", taken / imported, most / _IMPORT_SECONDS) for name, taken, most in seconds]
    show(floors)
    document: dict[str, Any] = {"databases": DATABASES, "days": DAYS, "measured": measured, "dagster_import": imported}
    write(arguments.results, "two_hundred", document, floors)
    return 0 if all(floor.kept for floor in floors) else 1


def _house(folder: Path) -> Path:
    """Configuration and stores; returns the configuration's path."""
    names = [f"db{number:03d}" for number in range(DATABASES)]
    lines = [
        "databases:",
        *(f"  {name}: {{url_env: {name.upper()}_URL}}" for name in names),
        "timezone: America/Chicago",
        "stores: {primary: {kind: local, path: ./backups}, offsite: {kind: local, path: ./elsewhere}}",
        "rules: guitar_strategies",
        "retention: {daily: 30}",
    ]
    config = folder / "backup.yaml"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    now = datetime.now(timezone.utc)
    for store in (LocalStore(folder / "backups"), LocalStore(folder / "elsewhere")):
        for name in names:
            for day in range(DAYS):
                _shelve(store, name, now - timedelta(days=day, hours=1))
    return config


def _shelve(store: LocalStore, database: str, taken: datetime) -> None:
    """A proven backup, written without the care (and the time) that a real one takes."""
    manifest = made_up(taken, database=database)
    place = store.root / manifest.folder
    (place / "proofs").mkdir(parents=True)
    (place / "dump").mkdir()
    data = encode(manifest)
    (place / NAME).write_bytes(data)
    proof = proof_of(manifest, hashlib.sha256(data).hexdigest(), Verdict.PROVEN, taken + timedelta(minutes=5))
    (place / "proofs" / f"{proof_id(proof)}.json").write_bytes(proofs.encode(proof))


def _run(argv: list[str | Path], environment: dict[str, str]) -> tuple[float, float]:
    """Processor and wall-clock seconds of a command that ends well."""
    before, started = _children_seconds(), time.monotonic()
    subprocess.run(argv, env=environment, check=True, stdout=subprocess.DEVNULL)
    return _children_seconds() - before, time.monotonic() - started


def _best(measure: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    return min(measure() for _ in range(3))


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _child(code: str, environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def _endpoint(argv: list[str | Path], environment: dict[str, str]) -> dict[str, float]:
    """Processor seconds that the server takes for its first answer, and for one from what it has kept."""
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        document = b""
        while not document.endswith(b"}\n"):
            document += server.stdout.readline()
        address = f"{json.loads(document)['url']}api/admin/backup-status"
        seconds = {}
        for name in ("first", "again"):
            before = _seconds_of(server.pid)
            with urlopen(address) as answer:
                assert answer.status == 200
                answer.read()
            seconds[name] = _seconds_of(server.pid) - before
        with suppress(ProcessLookupError):
            server.terminate()
    return seconds


def _seconds_of(pid: int) -> float:
    """Processor seconds that a process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
