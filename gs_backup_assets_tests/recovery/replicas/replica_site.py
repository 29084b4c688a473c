"""A primary, and a replica of it that the verb builds: for the tests of replicas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gs_backup_assets.catalogue.verdict import CheckResult
from gs_backup_assets.config import DatabaseSettings, load_config
from gs_backup_assets.postgres.connection import connect, query, target_from_url
from gs_backup_assets.recovery.replicas.replicas import observe_replicas
from gs_backup_assets.system.account import server_account
from gs_backup_assets.system.programs import run
from gs_backup_assets_tests.production import Production

PASSWORD = "pa:ss'w\\ord 7"
ROLE = "replicator"


@dataclass
class Site:
    """A primary, a folder with backup.yaml, and the replica `spare` that the verb builds."""

    primary: Production
    folder: Path
    port: int
    environment: dict[str, str]

    @property
    def data(self) -> Path:
        return self.folder / "spare"

    def configure(self, **replica: str) -> None:
        limits = "".join(f", {key}: {value}" for key, value in replica.items())
        text = f"databases: {{studio: {{url_env: PRIMARY}}}}\nreplicas: {{spare: {{url_env: SPARE{limits}}}}}\n"
        (self.folder / "backup.yaml").write_text(text, encoding="utf-8")

    @property
    def settings(self) -> DatabaseSettings:
        return load_config(self.folder / "backup.yaml").database()

    def argv(self, *arguments: str) -> list[str]:
        program = [sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()"]
        return [*program, "replica", *arguments, "--json", "--config", str(self.folder / "backup.yaml")]

    def verb(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        """`gs-backup replica ... --json` in a process of its own."""
        argv = self.argv(*arguments)
        done = subprocess.run(argv, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert PASSWORD not in done.stdout + done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def create(self) -> dict[str, Any]:
        return self.verb("create", "--into", str(self.data), "--port", str(self.port), "--start")

    def spare(self, sql: str) -> list[tuple[Any, ...]]:
        with connect(target_from_url(self.environment["SPARE_ADMIN"])) as connection:
            return query(connection, sql)

    def check(self) -> CheckResult:
        return observe_replicas(self.settings, datetime.now(timezone.utc)).check

    def codes(self) -> set[str]:
        return {finding.code for finding in self.check().findings}

    def stop_spare(self) -> None:
        argv = [self.primary.toolchain.program("pg_ctl"), "-D", self.data, "-m", "fast", "-w", "stop"]
        run(argv, account=server_account(), timeout=60)


def least_rights(server: Production) -> None:
    """What docs/replicas.md tells to run; and the server asks for the password."""
    page = (Path(__file__).parents[3] / "docs" / "replicas.md").read_text(encoding="utf-8")
    statements = page.split("```sql\n", 1)[1].split("```", 1)[0]
    server.sql(f"DROP OWNED BY {ROLE}" if server.sql(f"SELECT 1 FROM pg_roles WHERE rolname='{ROLE}'") else "SELECT 1")
    server.sql(f"DROP ROLE IF EXISTS {ROLE}")
    quoted = PASSWORD.replace("'", "''")
    for statement in statements.replace("'...'", f"'{quoted}'").split(";"):
        if statement.strip():
            server.sql(statement)
    hba = server.data / "pg_hba.conf"
    line = f"host all,replication {ROLE} 127.0.0.1/32 scram-sha-256\n"
    if line not in (text := hba.read_text(encoding="utf-8")):
        hba.write_text(line + text, encoding="utf-8")
        server.sql("SELECT pg_reload_conf()")
