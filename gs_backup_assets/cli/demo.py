"""`gs-backup demo`: an embedded production server with sample data, the daily job on it, and the verdict."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gs_backup_assets.cli.common import JsonOption, emit, finish, terminal_progress

DATABASE = "guitar_strategies"
URL_VARIABLE = "GS_BACKUP_DEMO_URL"
_UI = "127.0.0.1", 3000
_SETTINGS = {
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "synchronous_commit": "off",
    "timezone": "America/Chicago",  # where the application's teachers and students are
}

_DAGSTER = """\
telemetry: {enabled: false}
nux: {enabled: false} # a welcome dialog would cover the pages
"""
_WORKSPACE = """\
load_from:
  - python_module: {module_name: gs_backup_assets.definitions, location_name: gs_backup_assets}
"""

FolderOption = Annotated[Path, typer.Option("--dir", help="Where configuration, backups and reports are kept.")]
ScaleOption = Annotated[float, typer.Option(help="Size of the sample: 1 is about 40 MB, 70 about 2 GB.")]
SabotageOption = Annotated[
    str | None, typer.Option(help="Plant one defect in production first; an unknown kind lists them all.")
]
ServeOption = Annotated[bool, typer.Option("--serve", help="Then keep the database up and open the Dagster UI.")]


def demo(
    folder: FolderOption = Path("demo"),
    scale: ScaleOption = 1.0,
    sabotage: SabotageOption = None,
    serve: ServeOption = False,
    json: JsonOption = False,
) -> None:
    """Start a PostgreSQL server with the sample database and run today's partition of the whole daily job on it."""
    from gs_backup_assets.cli.run import run_daily_job
    from gs_backup_assets.config import load_config

    os.environ["DAGSTER_HOME"] = str(_dagster_home(folder))
    with _production(scale, sabotage) as url:
        os.environ[URL_VARIABLE] = url
        config_file = _configuration(folder)
        config = load_config(config_file)
        outcome = run_daily_job(config, config.database())
        emit(outcome.document(), json, outcome.show)
        _say(f"\nWhat to do next:\n  open {outcome.report} in a browser\n" if outcome.report else "\n")
        if serve:
            _serve(config_file)
        else:
            command = Path(sys.argv[0]).name if shutil.which("gs-backup") else sys.argv[0]
            _say(
                f"  {command} list --config {config_file}\n"
                f"  {command} verify latest --config {config_file}      proves it again, without the source\n"
                f"  {command} demo --serve --dir {folder}      the same, with the Dagster UI\n"
                f"  DATABASE_URL=... {command} init --force      your own database\n"
            )
    finish(outcome.status)


def _dagster_home(folder: Path) -> Path:
    """Where the demo's runs are recorded: `make dev` shows them, the runs of earlier demos included."""
    home = folder.resolve() / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(_DAGSTER, encoding="utf-8")
    return home


def _configuration(folder: Path) -> Path:
    """The demo's backup.yaml, written as `gs-backup init` does unless it is there from an earlier demo.

    It has all that a real one should have: a copy in another place (another folder here), and encryption.
    """
    from gs_backup_assets.recovery.initial import ask_server, write_first_config
    from gs_backup_assets.vault.keys import new_raw_key

    path, key = folder / "backup.yaml", folder / "demo.key"
    if not path.exists():
        key.touch(mode=0o600)
        key.write_text(f"{new_raw_key()}\n", encoding="ascii")
        settings = replace(
            ask_server(URL_VARIABLE, DATABASE),
            offsite="{kind: local, path: ./elsewhere}",
            encryption=f"{{kind: raw-aes-256, key_file: {key.name}}}",
        )
        write_first_config(path, settings)
    return path


@contextmanager
def _production(scale: float, sabotage: str | None) -> Iterator[str]:
    """A server with the sample database in it; yields the URL, and leaves nothing behind."""
    from gs_backup_assets.postgres.cluster import create_database, running_cluster
    from gs_backup_assets.postgres.connection import connect
    from gs_backup_assets.postgres.toolchain import embedded_server
    from gs_backup_assets.sample.generate import load_sample
    from gs_backup_assets.sample.sabotage import plant

    progress = terminal_progress()
    with ExitStack() as stack:
        with progress.stage("start server"):
            server = running_cluster(embedded_server(), purpose="demo", settings=_SETTINGS, superuser="postgres")
            cluster = stack.enter_context(server)
        with progress.stage("load sample"):
            with connect(cluster.target()) as connection:
                create_database(connection, DATABASE)
            with connect(cluster.target(DATABASE)) as connection:
                load_sample(connection, scale=scale)
        if sabotage is not None:
            with connect(cluster.target(DATABASE)) as connection:
                _say(f"  sabotaged: {plant(connection, sabotage).title}\n")
        target = cluster.target(DATABASE)
        port = target.parameters["port"]
        yield f"postgresql://{target.parameters['user']}@/{DATABASE}?host={target.host}&port={port}"


def _serve(config_file: Path) -> None:
    """Run the Dagster UI and its daemon until Ctrl-C."""
    from gs_backup_assets.config import FILE_VARIABLE
    from gs_backup_assets.system.programs import Program

    host, port = _UI
    workspace = Path(os.environ["DAGSTER_HOME"]) / "workspace.yaml"
    workspace.write_text(_WORKSPACE, encoding="utf-8")
    argv: list[str | Path] = [sys.executable, "-m", "dagster", "dev", "-h", host, "-p", str(port), "-w", workspace]
    environment = {**os.environ, FILE_VARIABLE: str(config_file.resolve())}
    with Program(argv, environment=environment, stop_signal=signal.SIGINT, on_line=_log_line) as dagster:
        _say(f"\nThe Dagster UI: http://{host}:{port}   Ctrl-C stops everything.\n")
        try:
            dagster.wait().require_success("Is another program using the port?")
        except KeyboardInterrupt:
            _say("\nStopping the UI, its daemon and the demo database.\n")


def _log_line(line: str) -> None:
    if " - ERROR - " in line or "Error" in line:
        _say(f"  {line}\n")


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
