"""`gs-backup serve` as a process of its own, on a free port, and stores of made-up backups behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.message import Message
from pathlib import Path
from typing import Any

from gs_backup_assets.catalogue.catalogue import Catalogue
from gs_backup_assets.catalogue.manifest import backup_id
from gs_backup_assets.catalogue.verdict import Verdict
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.catalogue.manifests import made_up, proof_of, put

TOKEN = "7c1d9a52e8b04f63-token"
TOKEN_VARIABLE = "GS_BACKUP_TEST_TOKEN"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    text: str
    headers: Message

    def json(self) -> Any:
        return json.loads(self.text)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    log: Path

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        token: str | None = None,
        cookie: str | None = None,
        form: str | None = None,
        host: str | None = None,
    ) -> Answer:
        """Ask as `curl` would: no redirects, no proxy, no state."""
        headers = {
            **({"Authorization": f"Bearer {token}"} if token else {}),
            **({"Cookie": cookie} if cookie else {}),
            **({"Host": host} if host else {}),
        }
        body = form.encode() if form is not None else None
        request = urllib.request.Request(self.url + path.lstrip("/"), data=body, headers=headers, method=method)
        opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return Answer(answer.status, answer.read().decode(), answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode(), error.headers)


@contextmanager
def serving(
    config: Path, *options: str, token: str | None = TOKEN, environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """The server, until the block ends."""
    argv = [Path(sys.executable).with_name("gs-backup"), "serve", "--config", config, "--port", "0", "--json"]
    surroundings = {
        **os.environ,
        "GS_BACKUP_CACHE": str(config.parent / "cache"),
        TOKEN_VARIABLE: token or "",
        **(environment or {}),
    }
    log = config.parent / "serve.log"
    with open(log, "wb") as sink:
        process = subprocess.Popen(
            [*argv, "--token-env", TOKEN_VARIABLE, *options], env=surroundings, stdout=subprocess.PIPE, stderr=sink
        )
        assert process.stdout is not None
        try:
            document = b""
            while not document.endswith(b"}\n"):
                line = process.stdout.readline()
                assert line, f"the server ended: {log.read_text(encoding='utf-8')}"
                document += line
            yield Served(json.loads(document)["url"], log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(30) == 128 + signal.SIGTERM, log.read_text(encoding="utf-8")
            finally:
                process.kill()
                process.stdout.close()


def fill(
    store: LocalStore,
    database: str,
    *,
    days: int = 3,
    age: timedelta = timedelta(hours=1),
    verdict: Verdict = Verdict.PROVEN,
    recovery_seconds: float = 42.0,
) -> None:
    """Put a backup for each of the last days, and its proof."""
    for back in range(days):
        taken = datetime.now(timezone.utc) - age - timedelta(days=back)
        manifest = made_up(taken, database=database).model_copy(update={"id": backup_id(taken)})
        digest = put(store, manifest)
        record = proof_of(manifest, digest, verdict, manifest.finished_at + timedelta(minutes=1)).model_copy(
            update={
                "rto_seconds": recovery_seconds + back if verdict is Verdict.PROVEN else None,
                "stage_seconds": {"fetch": 1.5, "restore": 30.25},
            }
        )
        Catalogue(store, database).add_proof(record, b"<html></html>")
