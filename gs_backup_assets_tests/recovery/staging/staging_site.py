"""A staging site for tests: a database with old data, an application with its commands, and its health address."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from gs_backup_assets.catalogue.audit import Author
from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.config import DatabaseSettings
from gs_backup_assets.postgres.cluster import Cluster, drop_database
from gs_backup_assets.postgres.connection import Target, connect, query
from gs_backup_assets.progress import Progress
from gs_backup_assets.recovery.staging.staging_test import StagingTest, run_staging_test
from gs_backup_assets.vault.opening import open_vault
from gs_backup_assets_tests.chain import Chain, execute

URL_VARIABLE = "GS_BACKUP_TEST_STAGING_URL"


@dataclass
class Application:
    """Answers health questions as a test wants it to: status, text, and after how many seconds."""

    status: int = 200
    text: str = "all systems go"
    delay: float = 0.0
    asked: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/health"


@contextmanager
def application() -> Iterator[Application]:
    """A real HTTP server on 127.0.0.1."""
    app = Application()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            app.asked += 1
            time.sleep(app.delay)
            body = app.text.encode()
            self.send_response(app.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        app.port = server.server_address[1]
        Thread(target=server.serve_forever, daemon=True).start()
        yield app
        server.shutdown()


@dataclass
class Site:
    """The staging database `name` on a server, and what its application was told, in a file."""

    cluster: Cluster
    name: str
    folder: Path
    chain: Chain
    app: Application
    sections: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        return self.cluster.target(self.name)

    @property
    def url(self) -> str:
        p = self.target.parameters
        return f"postgresql://{p['user']}@/{p['dbname']}?host={p['host']}&port={p['port']}"

    @property
    def log(self) -> Path:
        return self.folder / "application.log"

    @property
    def told(self) -> list[str]:
        """What the application was told, in order."""
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    def command(self, word: str) -> dict[str, Any]:
        line = f'echo "{word} $GS_BACKUP_STAGING_DATABASE" >> {self.log}'
        return {"name": word, "command": ["sh", "-c", line], "timeout": "30s"}

    def settings(self, **staging: Any) -> DatabaseSettings:
        """Settings with a staging section; `staging` replaces keys of it."""
        section = {
            "url_env": URL_VARIABLE,
            "stop": [self.command("stop")],
            "start": [self.command("start")],
            "health": [{"url": self.app.url, "expect": "all systems go", "deadline": "20s"}],
            **staging,
        }
        base = self.chain.settings.model_dump(exclude_unset=True)
        return DatabaseSettings.model_validate({**base, "staging": section, **self.sections})

    def test(self, settings: DatabaseSettings | None = None) -> StagingTest:
        settings = settings or self.settings()
        return run_staging_test(
            settings,
            open_vault(settings),
            Progress(),
            by=Author("tester", "staging-test"),
            now=datetime.now(timezone.utc),
        )

    def databases(self) -> list[str]:
        """All databases of the site, the staging one and those beside it."""
        with connect(self.cluster.target()) as connection:
            rows = query(
                connection,
                "SELECT datname FROM pg_database WHERE starts_with(datname, %s) ORDER BY 1",
                (self.name,),
            )
        return [name for (name,) in rows]

    @property
    def is_old(self) -> bool:
        """Whether the staging database is the one from before the test."""
        with connect(self.target) as connection:
            return bool(query(connection, "SELECT to_regclass('public.old') IS NOT NULL")[0][0])

    def reset(self) -> None:
        """The old staging database and nothing else."""
        self.drop()
        execute(self.cluster.target(), f"CREATE DATABASE {self.name}")
        execute(self.target, "CREATE TABLE old (id int)", "INSERT INTO old VALUES (41), (42)")

    def drop(self) -> None:
        with connect(self.cluster.target()) as connection:
            for name in self.databases():
                drop_database(connection, name)


def keep_proof(chain: Chain) -> None:
    """Prove the newest backup, and store the proof."""
    record = chain.prove()
    Catalogue(chain.store, chain.settings.name).add_proof(record, b"<html></html>")
