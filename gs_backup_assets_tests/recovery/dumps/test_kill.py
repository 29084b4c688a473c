"""Kills runs at every stage, in every way: nothing is left that runs, locks, or looks like a backup."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.postgres.cluster import Cluster, drop_database
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.vault.opening import open_store
from gs_backup_assets.vault.store import keys
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.processes import open_folder, processes_with, wait_until
from gs_backup_assets_tests.recovery.dumps.runner import settings_of

ROOT = Path(__file__).parents[3]

# A stage is reached when the line is printed: `advanced` means that it is in the middle of its work.
TAKE = (
    "started dump",
    "advanced dump",
    "started fingerprint",
    "advanced fingerprint",
    "started store",
    "advanced store",
)
PROVE = (
    "started fetch",
    "advanced fetch",
    "started cluster",
    "ended cluster",
    "started restore",
    "started analyze",
    "started equality",
    "started schema",
    "started amcheck",
    "started foreign keys",
    "started rules",
)


def url_of(target: Target) -> str:
    return " ".join(f"{key}={value}" for key, value in target.parameters.items())


@pytest.fixture(scope="module")
def source(server17: Cluster) -> Iterator[Target]:
    """The sample, about 10 MB: large enough that every stage takes a while, small enough for many runs."""
    with fresh_database(server17) as target:
        with connect(target) as connection:
            load_sample(connection, scale=0.25)
        yield target


@dataclass
class Scene:
    """One store, a temporary folder that belongs to the runs alone, and the server."""

    folder: Path
    source: Target
    into: Target

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def start(self, what: str, rules: str = "none") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "gs_backup_assets_tests.recovery.dumps.runner", what, self.folder, rules],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "TMPDIR": str(self.temporary),
                "TEST_DATABASE_URL": url_of(self.source),
                "TEST_INTO_URL": url_of(self.into),
            },
            start_new_session=True,
        )

    def run(self, what: str) -> str:
        """Run to the end; returns the last line."""
        process = self.start(what)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        return output.splitlines()[-1]

    def kill_at(self, what: str, line: str, number: signal.Signals, *, after: float = 0.0, rules: str = "none") -> None:
        """Start a run, kill it and its process group when it prints `line`, and check what is left."""
        process = self.start(what, rules)
        assert process.stdout is not None
        with process.stdout as stdout:
            seen = []
            for printed in stdout:
                seen.append(printed.strip())
                if printed.startswith(line):
                    break
            else:
                pytest.fail(f"{what} never came to {line!r}: {seen}")
            time.sleep(after)  # only moves the blow into the stage; nothing is asserted about it
            os.killpg(process.pid, number)
            process.wait(timeout=60)
        assert process.returncode != 0, f"{line}: the run was over before the signal; make the stage longer"
        self.assert_nothing_left(f"{signal.Signals(number).name} at {line!r}")

    def assert_nothing_left(self, when: str) -> None:
        wait_until(lambda: not processes_with(str(self.temporary)), what=f"{when}: no process of the run is left")
        wait_until(lambda: list(self.temporary.glob("*")) == [], what=f"{when}: no spool and no cluster is left")
        wait_until(lambda: not self.locks_and_sessions(), what=f"{when}: no lock and no session is left")

    def locks_and_sessions(self) -> list[tuple[object, ...]]:
        with connect(self.source.with_database("postgres")) as connection:
            return query(
                connection,
                "SELECT 'lock', pid::text FROM pg_locks WHERE locktype = 'advisory' UNION ALL"
                " SELECT application_name, query FROM pg_stat_activity WHERE datname = %s"
                " AND backend_type = 'client backend'",
                (self.source.database,),
            )

    def catalogue(self) -> Catalogue:
        settings = settings_of(self.folder)
        return Catalogue(open_store(settings), settings.name)


@pytest.fixture
def scene(source: Target) -> Iterator[Scene]:
    with open_folder() as folder:
        (folder / "tmp").mkdir()
        yield Scene(folder, source, source.with_database("wanted"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_backup_killed_at_every_stage(scene: Scene, number: signal.Signals) -> None:
    """Every next run is itself the proof that the one before left nothing in its way."""
    for line in TAKE:
        scene.kill_at("take", line, number)
        assert scene.catalogue().entries() == [], line
    scene.run("take")
    (good,) = scene.catalogue().entries()
    assert good.manifest is not None
    for line in ("advanced dump", "advanced store"):
        scene.kill_at("take", line, number)
        latest = scene.catalogue().latest()
        assert latest is not None and latest.id == good.id, "the good backup is still the newest"
    assert scene.run("checksum") == "passed"
    if number != signal.SIGKILL:  # what could clean up has; what could not is swept after a day
        folders = scene.catalogue().store.folders(f"shop/logical/{good.partition}")
        assert folders == [good.id]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_proof_killed_at_every_stage(scene: Scene, number: signal.Signals) -> None:
    scene.run("take")
    scene.kill_at("checksum", "started checksum", number)
    for line in PROVE:
        scene.kill_at("prove", line, number, rules="guitar_strategies" if "rules" in line else "none")
        (entry,) = scene.catalogue().entries()
        assert entry.verdict is Verdict.NOT_VERIFIED, f"{line}: a proof that was cut short proves nothing"
        assert not any(key.endswith(".json") for key in keys(scene.catalogue().store, f"{entry.folder}/proofs"))
    assert scene.run("prove") == "PROVEN"
    (entry,) = scene.catalogue().entries()
    assert entry.verdict is Verdict.PROVEN


def test_a_proof_killed_in_the_middle_of_a_stage(scene: Scene) -> None:
    """A little after the stage began: while initdb, pg_restore with its workers, or pg_amcheck is at work."""
    scene.run("take")
    for line, after in (("started cluster", 0.15), ("started restore", 0.3), ("started amcheck", 0.05)):
        scene.kill_at("prove", line, signal.SIGKILL, after=after)
    assert scene.run("prove") == "PROVEN"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_restore_killed_leaves_nothing_under_the_wanted_name(scene: Scene, number: signal.Signals) -> None:
    """A database that is not whole must never stand under the name that the application connects to."""
    scene.run("take")

    def databases() -> list[str]:
        with connect(scene.source.with_database("postgres")) as connection:
            return [name for (name,) in query(connection, "SELECT datname FROM pg_database WHERE datname ~ '^wanted'")]

    try:
        for line in ("started fetch", "started restore", "started analyze", "started equality"):
            scene.kill_at("restore", line, number, after=0.1)
            assert "wanted" not in databases(), line
            if number != signal.SIGKILL:
                assert databases() == [], f"{line}: an interrupted restore drops what it made"
        half = databases()
        assert all(name.startswith("wanted_restoring_") for name in half)
        assert scene.run("restore") == "PROVEN"
        assert sorted(databases()) == sorted(["wanted", *half])
    finally:
        with connect(scene.source.with_database("postgres")) as connection:
            for name in databases():
                drop_database(connection, name)


def test_the_lock_goes_with_the_run_that_held_it(scene: Scene) -> None:
    """While one backup runs, a second is told so; killed with SIGKILL, it no longer stands in the way."""
    process = scene.start("take")
    assert process.stdout is not None
    with process.stdout as stdout:
        assert stdout.readline().startswith("started")
        os.kill(process.pid, signal.SIGSTOP)
        try:
            second = subprocess.run(
                [sys.executable, "-m", "gs_backup_assets_tests.recovery.dumps.runner", "take", scene.folder],
                capture_output=True,
                text=True,
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(scene.temporary), "TEST_DATABASE_URL": url_of(scene.source)},
                check=False,
                timeout=120,
            )
            assert "BACKUP_RUNNING" in second.stderr
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    scene.assert_nothing_left("SIGKILL while stopped")
    scene.run("take")
    assert len(scene.catalogue().entries()) == 1


DAGSTER_YAML = "telemetry: {enabled: false}\nnux: {enabled: false}\n"
CLI = [sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()"]
RUNS = """
import dagster as dg
with dg.DagsterInstance.get() as instance:
    print(*(run.status.value for run in instance.get_runs()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_dagster_run_that_is_interrupted_ends(scene: Scene, server17: Cluster, number: signal.Signals) -> None:
    """`gs-backup run` with a persistent instance: it does not hang, and says of its run that it has ended."""
    home = scene.folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    (scene.folder / "backup.yaml").write_text("databases: {shop: {url_env: TEST_DATABASE_URL}}\n")
    environment = {
        **os.environ,
        "TMPDIR": str(scene.temporary),
        "DAGSTER_HOME": str(home),
        "TEST_DATABASE_URL": url_of(scene.source),
    }
    process = subprocess.Popen(
        [*CLI, "run", "--config", str(scene.folder / "backup.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        wait_until(lambda: processes_with(f"{scene.temporary}/gs-backup-spool"), what="pg_dump is at work", seconds=120)
        os.killpg(process.pid, number)
        words = stdout.read()
        process.wait(timeout=60)
    scene.assert_nothing_left(f"{number.name} of gs-backup run")
    assert scene.catalogue().entries() == []
    told = subprocess.run(
        [sys.executable, "-c", RUNS], capture_output=True, text=True, cwd=ROOT, env=environment, check=True, timeout=120
    )
    statuses = told.stdout.split()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert statuses == ["STARTED"], "nobody was left to say so; run monitoring of the daemon does"
    else:
        # Dagster makes one interruption of both signals.
        assert process.returncode == 128 + signal.SIGINT and "Interrupted" in words, words
        assert statuses[0] in ("CANCELED", "FAILURE"), (statuses, words)
