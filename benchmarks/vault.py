"""The vault side by side with boto3's own transfer on the same bytes, and the catalogue with ten thousand backups.

One file of random bytes goes to SeaweedFS and comes back: with `upload_file` and `download_file`, and encrypted with
ours, in turns, several times; the best round of each counts. Then memory for a small and for a large backup, and how
long it takes to list and to plan ten thousand backups.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from benchmarks.floors import Floor, show, write
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import NAME, backup_id, encode
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.config_backups import Retention
from gs_backup_assets.recovery.retention.pruning import make_plan
from gs_backup_assets.recovery.stored.storing import store_files
from gs_backup_assets.system.workspace import workspace
from gs_backup_assets.vault.encryption import BackupCipher, Identity
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets.vault.pipeline import BLOCK, Counting, Hashing
from gs_backup_assets.vault.s3 import S3Store
from gs_backup_assets_tests.catalogue.manifests import made_up, proof_of
from gs_backup_assets_tests.s3_server import S3Server, credentials_in_environment, running

BACKUPS = 10_000
_SMALL, _LARGE = 100, 1000  # MB
NOW = datetime(2026, 11, 22, 8, 0, 3, tzinfo=timezone.utc)


def main() -> int:
    """Measure, print, write the results as JSON; 1 when a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=600, help="size of the file")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--results", type=Path, default=Path("bench-results"))
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with credentials_in_environment(), workspace("bench") as folder, running(S3Server) as server:
        if arguments.peak_of is not None:
            return _tell_peak(folder, server, arguments.peak_of)
        rates = _transfers(folder, server, arguments.megabytes, arguments.rounds)
        peaks = {size: _peak(size) for size in (_SMALL, _LARGE)}
        listing = _ten_thousand(folder)
    floors = (
        Floor("encrypted upload / boto3's upload", rates["ours up"] / rates["boto3 up"], 0.7, at_least=True),
        Floor("encrypted download / boto3's download", rates["ours down"] / rates["boto3 down"], 0.7, at_least=True),
        Floor(f"peak memory, {_LARGE} MB / {_SMALL} MB", peaks[_LARGE] / peaks[_SMALL], 1.25),
        Floor(f"listing {BACKUPS} backups, s", listing["listed again"], 2.0),
        Floor(f"listing and planning {BACKUPS} backups, s", listing["listed and planned"], 2.0),
    )
    print()
    for name, rate in rates.items():
        print(f"     {name:<44}{rate:9.0f} MB/s")
    for size, peak in peaks.items():
        print(f"     peak memory for {size} MB{'':<25}{peak:9.0f} MB")
    for name, seconds in listing.items():
        print(f"     {BACKUPS} backups, {name:<29}{seconds:9.2f} s")
    show(floors)
    write(arguments.results, "vault", {"rates": rates, "peaks": peaks, "listing": listing}, floors)
    return 0 if all(floor.kept for floor in floors) else 1


def _transfers(folder: Path, server: S3Server, megabytes: int, rounds: int) -> dict[str, float]:
    """Best rates in MB/s of each way, in turns on the same bytes."""
    source, back = folder / "source", folder / "back"
    size = _random_file(source, megabytes)
    bucket = server.bucket()
    client, store = server.client(), server.store(bucket)
    cipher = BackupCipher.new(Identity("bench", "20261122T080003Z"))
    ways: dict[str, Callable[[int], Any]] = {
        "boto3 up": lambda n: client.upload_file(str(source), bucket, f"theirs/{n}"),
        "ours up": lambda n: store_files(store, [("file", source)], f"ours/{n}", cipher, lambda _: None),
        "boto3 down": lambda n: client.download_file(bucket, f"theirs/{n}", str(back)),
        "ours down": lambda n: _fetch(store, f"ours/{n}/file.enc", cipher, back),
    }
    best = dict.fromkeys(ways, 0.0)
    for number in range(rounds):
        for name, way in ways.items():
            back.unlink(missing_ok=True)  # a fetch writes new files; to free an old one is nobody's work here
            started = time.monotonic()
            way(number)
            best[name] = max(best[name], size / 1e6 / (time.monotonic() - started))
        for key in (f"theirs/{number}", f"ours/{number}/file.enc"):
            client.delete_object(Bucket=bucket, Key=key)
    if _sha256(back) != _sha256(source):
        raise SystemExit("what came back is not what was stored")
    source.unlink()
    back.unlink()
    return best


def _fetch(store: S3Store, key: str, cipher: BackupCipher, into: Path) -> None:
    """As a proof does: read, decrypt what is authenticated, hash what comes out, write."""
    with store.open(key) as stream, open(into, "wb") as sink:
        plain = Hashing(cipher.decrypting(Counting(stream), "file"))
        while block := plain.read(BLOCK):
            sink.write(block)


def _random_file(path: Path, megabytes: int) -> int:
    with open(path, "wb") as sink:
        for _ in range(megabytes):
            sink.write(os.urandom(1_000_000))
    return path.stat().st_size


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _peak(megabytes: int) -> float:
    """Peak memory in MB of a process of its own that stores and fetches a file of this size."""
    argv = [sys.executable, "-m", "benchmarks.vault", "--peak-of", str(megabytes)]
    return float(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()[-1])


def _tell_peak(folder: Path, server: S3Server, megabytes: int) -> int:
    source = folder / "source"
    _random_file(source, megabytes)
    store = server.store(server.bucket())
    cipher = BackupCipher.new(Identity("bench", "20261122T080003Z"))
    store_files(store, [("file", source)], "ours", cipher, lambda _: None)
    _fetch(store, "ours/file.enc", cipher, folder / "back")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
    return 0


def _ten_thousand(folder: Path) -> dict[str, float]:
    """Seconds to list ten thousand proven backups, the first time and again, and to plan their retention."""
    store = LocalStore(folder / "many")
    template = made_up(NOW)
    for number in range(BACKUPS):
        taken = NOW - timedelta(hours=number)
        made = template.model_copy(
            update={"id": backup_id(taken), "partition": taken.date().isoformat(), "snapshot_at": taken}
        )
        place = store.root / made.folder
        (place / "proofs").mkdir(parents=True)
        (place / "dump").mkdir()
        data = encode(made)
        (place / NAME).write_bytes(data)
        record = proof_of(made, hashlib.sha256(data).hexdigest(), Verdict.PROVEN, taken + timedelta(minutes=5))
        Catalogue(store, "shop").add_proof(record, b"")
    seconds = {}
    for name in ("listed for the first time", "listed again"):
        started = time.monotonic()
        summaries = Catalogue(store, "shop").summaries()
        seconds[name] = time.monotonic() - started
    assert len(summaries) == BACKUPS and all(summary.verdict is Verdict.PROVEN for summary in summaries)
    settings = DatabaseSettings(
        name="shop", url_env="NONE", timezone="UTC", folder=folder, retention=Retention(daily=30, weekly=8, monthly=12)
    )
    started = time.monotonic()
    decisions = make_plan(store, settings, NOW).decisions
    seconds["listed and planned"] = time.monotonic() - started
    assert len(decisions) == BACKUPS and 30 <= sum(decision.keep for decision in decisions) <= 60
    return seconds


if __name__ == "__main__":
    sys.exit(main())
