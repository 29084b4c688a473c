"""A site for the tests of the write-ahead log: a project folder, a production server, and `gs-backup wal` processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gs_backup_assets.catalogue.wal_archive import WalArchive
from gs_backup_assets.config import DatabaseSettings, load_config
from gs_backup_assets.postgres.wal import Lsn, Segment, is_segment
from gs_backup_assets.recovery.wal.access import open_archive
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.vault.store import Store
from gs_backup_assets_tests.processes import processes_with, wait_until
from gs_backup_assets_tests.production import Production

ROOT = Path(__file__).parents[3]
CLI = [sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()"]
NAME = "studio"


class Site:
    """A project folder with backup.yaml, for one server."""

    def __init__(self, folder: Path, server: Production, **settings: Any) -> None:
        self.folder = folder
        self.server = server
        self.environment = {**os.environ, "TEST_DATABASE_URL": server.url, "PYTHONPATH": str(ROOT)}
        document = {"databases": {NAME: {"url_env": "TEST_DATABASE_URL"}}, "wal": {"partial_every": "1s"}, **settings}
        (folder / "backup.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")

    @property
    def settings(self) -> DatabaseSettings:
        return load_config(self.folder / "backup.yaml").database()

    @property
    def store(self) -> Store:
        return open_store(self.settings)

    @property
    def archive(self) -> WalArchive:
        """The archive of the server's cluster."""
        system = str(self.server.sql("SELECT system_identifier FROM pg_control_system()", database="postgres")[0][0])
        return open_archive(self.settings, self.store, system)

    def run(self, *arguments: str, check: int | None = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """`gs-backup ...` to its end."""
        result = subprocess.run(
            [*CLI, *arguments, "--config", str(self.folder / "backup.yaml")],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=cwd or self.folder,
            timeout=120,
            check=False,
        )
        assert check is None or result.returncode == check, (result.returncode, result.stdout, result.stderr)
        return result

    @contextmanager
    def streaming(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Stream]:
        """`gs-backup wal stream` in the background until the end of the block."""
        stream = Stream(self, arguments, environment or {})
        try:
            yield stream
        finally:
            stream.end()

    def flushed(self) -> Lsn:
        """Up to where the server has flushed its log."""
        return Lsn.parse(str(self.server.sql("SELECT pg_current_wal_flush_lsn()::text", database="postgres")[0][0]))

    def archived(self, timeline: int = 1) -> list[Segment]:
        """Whole segments in the archive."""
        return [found.segment for found in self.archive.segments(timeline) if not found.partial]

    def archived_end(self, timeline: int = 1) -> Lsn:
        """Up to where the newest thing in the archive goes."""
        return max((found.end for found in self.archive.segments(timeline)), default=Lsn(0))

    def wait_for(self, lsn: Lsn, timeline: int = 1, *, seconds: float = 60.0) -> None:
        """Until the archive has the log up to a position."""
        wait_until(
            lambda: self.archived_end(timeline) >= lsn,
            what=f"the archive has {lsn}; it has {self.archived_end(timeline)}",
            seconds=seconds,
        )

    def require_no_gap(self, timeline: int = 1) -> list[Segment]:
        """The sequence has no hole; and what the server has of it is there byte for byte."""
        found = self.archive.segments(timeline)
        numbers = [archived.segment.number for archived in found]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
        for archived in found:
            path = self.server.data / "pg_wal" / archived.segment.name
            if path.exists() and not archived.partial:
                assert self.archive.read(archived) == path.read_bytes(), archived
        return [archived.segment for archived in found if not archived.partial]

    def require_all_of_server(self, timeline: int = 1) -> None:
        """Every finished segment that is in the server's pg_wal, from the first archived on, is in the archive."""
        there = set(self.archived(timeline))
        flushed = self.flushed()
        for path in (self.server.data / "pg_wal").iterdir():
            if is_segment(path.name):
                segment = Segment.parse(path.name)
                if segment.timeline == timeline and segment.end <= flushed and segment >= min(there):
                    assert segment in there, segment.name


class Stream:
    """One process of `gs-backup wal stream`, its lines on standard error collected in a file."""

    def __init__(self, site: Site, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._log = site.folder / f"stream-{time.monotonic_ns()}.log"
        self._out = site.folder / f"stream-{time.monotonic_ns()}.out"
        argv = [*CLI, "wal", "stream", "--json", "--config", str(site.folder / "backup.yaml"), *arguments]
        with open(self._log, "wb") as log, open(self._out, "wb") as out:
            self.process = subprocess.Popen(
                argv, stderr=log, stdout=out, env={**site.environment, **environment}, cwd=site.folder
            )
        self._site = site

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self._log.read_text().splitlines():
            if line.startswith("{"):
                found.append(json.loads(line))
        return found

    @property
    def text(self) -> str:
        return self._log.read_text()

    def codes(self) -> list[str]:
        return [str(line["code"]) for line in self.lines()]

    def wait_said(self, code: str, times: int = 1, *, seconds: float = 60.0) -> dict[str, Any]:
        """Until it has said a code so often; the newest such line."""
        wait_until(
            lambda: self.codes().count(code) >= times or self.process.poll() is not None,
            what=f"{code}: {self.text[-3000:]}",
            seconds=seconds,
        )
        found = [line for line in self.lines() if line["code"] == code]
        assert len(found) >= times, self.text[-3000:]
        return found[-1]

    def receivers(self) -> list[int]:
        """Process numbers of its pg_receivewal."""
        return [pid for pid, line in processes_with(f"{self._site.settings.spool_path}") if "pg_receivewal" in line]

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()

    def end(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 30.0) -> int:
        """End it kindly; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            wait_until(lambda: not self.receivers(), what="pg_receivewal ends with it")

    def document(self) -> dict[str, Any]:
        return dict(json.loads(self._out.read_text()))


def drop_slot(server: Production) -> None:
    server.sql(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'gs_backup'",
        database="postgres",
    )


def write(server: Production, megabytes: int = 20) -> None:
    """Some log that cannot be compressed."""
    server.sql("CREATE TABLE IF NOT EXISTS noise (bytes bytea)")
    for _ in range(megabytes):
        server.sql(
            "INSERT INTO noise SELECT decode(string_agg(md5(random()::text), ''), 'hex')"
            " FROM generate_series(1, 65536) i"
        )


def switch(server: Production) -> None:
    server.sql("SELECT pg_switch_wal()", database="postgres")


def everything_arrives(site: Site, timeline: int = 1) -> None:
    """What is flushed now gets into the archive, and it has no hole and nothing else than the server."""
    site.wait_for(site.flushed(), timeline)
    wait_until(lambda: not behind(site, timeline), what="the whole segments are there")
    site.require_no_gap(timeline)
    site.require_all_of_server(timeline)


def behind(site: Site, timeline: int) -> bool:
    try:
        site.require_all_of_server(timeline)
    except (AssertionError, ValueError):
        return True
    return False
