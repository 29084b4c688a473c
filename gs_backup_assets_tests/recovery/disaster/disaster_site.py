"""A database that is lost, and what is left of it: for the tests of disaster recovery, in this process or in another.

    python -m gs_backup_assets_tests.recovery.disaster.disaster_site FOLDER STAGE

recovers in a process of its own, prints each stage as it begins, and waits for its end in STAGE.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.config import load_config
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.progress import Progress, Silent
from gs_backup_assets.recovery.disaster.disaster import Recovered, Request, recover_from_disaster
from gs_backup_assets.recovery.disaster.steps import target_folder
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.programs import run
from gs_backup_assets.vault.opening import open_vault
from gs_backup_assets_tests.conftest import free_port
from gs_backup_assets_tests.processes import open_folder
from gs_backup_assets_tests.production import DATABASE, SUPERUSER, Production
from gs_backup_assets_tests.recovery.point_in_time.recover_site import Site, site

TEN = [(number,) for number in range(1, 11)]


def hook(name: str, script: str, **more: Any) -> dict[str, Any]:
    """A hook that is a small program."""
    return {"name": name, "command": [sys.executable, "-c", script], **more}


@dataclass
class Disaster:
    """A site whose server can be lost, and the machine on which it comes back."""

    site: Site
    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def into(self) -> Path:
        return self.folder / "new"

    def configure(self, *, server_url_env: str | None = None, **sections: Any) -> None:
        """Write disaster_recovery into the settings; `sections` are its hooks and its health."""
        own: dict[str, Any] = {"into": str(self.into), "port": self.port, "listen_addresses": "127.0.0.1", **sections}
        if server_url_env is not None:
            own["server_url_env"] = server_url_env
        document = self.site.settings.model_dump(mode="json", exclude={"name", "timezone", "folder", "url_env"})
        document["disaster_recovery"] = own
        import yaml

        head = {"databases": {self.site.settings.name: {"url_env": self.site.settings.url_env}}, "timezone": "UTC"}
        (self.folder / "backup.yaml").write_text(yaml.safe_dump({**head, **document}), encoding="utf-8")
        self.site.settings = load_config(self.folder / "backup.yaml").database()
        self.site.vault = open_vault(self.site.settings)

    def recover(self, told: list[str] | None = None, **request: Any) -> Recovered:
        lines = [] if told is None else told
        return recover_from_disaster(
            self.site.settings,
            self.site.vault,
            Request(**request),
            Progress(),
            by=Author("tester", "disaster-recover"),
            tell=lines.append,
        )

    def ask(self, statement: str, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """Ask the recovered server, as the application would reach it."""
        place = {"host": "127.0.0.1", "port": str(self.port), "user": SUPERUSER, "dbname": database}
        with connect(Target(place), settings={"search_path": "public"}) as connection:
            return query(connection, statement)

    def stop(self) -> None:
        """Stop the recovered server, if there is one."""
        if (self.into / "data" / "postmaster.pid").exists():
            argv = [self.site.server.toolchain.program("pg_ctl"), "-D", self.into / "data", "-m", "immediate", "stop"]
            run(argv, account=server_account(), timeout=60)


@contextmanager
def disaster(major: int = 17, **overrides: Any) -> Iterator[Disaster]:
    """A running server that has a base backup, ten rows behind it, and its log in the archive."""
    with open_folder() as folder, site(folder, major, **overrides) as place:
        place.server.configure(unix_socket_directories=str(place.server.folder / "s"))
        place.base_backup()
        insert(place.server, 1, 10)
        place.archive()
        made = Disaster(place, folder)
        made.configure()
        try:
            yield made
        finally:
            made.stop()


def insert(server: Production, first: int, last: int) -> None:
    """Rows, each in a transaction of its own."""
    for number in range(first, last + 1):
        server.sql(f"INSERT INTO t VALUES ({number})")


class Application:
    """An application's health address, with whatever answer a test wants: status, text, seconds that it takes."""

    def __init__(self) -> None:
        self.status, self.text, self.seconds, self.asked = 200, "ok", 0.0, 0
        application = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                application.asked += 1
                time.sleep(application.seconds)
                body = application.text.encode()
                self.send_response(application.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/health"


@contextmanager
def application() -> Iterator[Application]:
    made = Application()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


class _Stopping(Silent):
    """Tells stages, and waits for its end in one of them."""

    def __init__(self, stop_in: str) -> None:
        self._stop_in = stop_in

    def stage_started(self, stage: str) -> None:
        os.write(1, f"{stage}\n".encode())
        if stage == self._stop_in:
            time.sleep(600)


def main() -> None:
    settings = load_config(Path(sys.argv[1]) / "backup.yaml").database()

    def tell(words: str) -> None:
        _Stopping(sys.argv[2]).stage_started(" ".join(words.split(" ")[1:]))

    progress, by = Progress(_Stopping(sys.argv[2])), Author("tester", "disaster-recover")
    recover_from_disaster(settings, open_vault(settings), Request(), progress, by=by, tell=tell)
    os.write(1, f"through {target_folder(settings)}\n".encode())


if __name__ == "__main__":
    main()
