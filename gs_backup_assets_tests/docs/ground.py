"""A project on real servers in which the commands of a page are typed, one block after the other, in one shell."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gs_backup_assets.config import load_config
from gs_backup_assets.postgres.connection import connect
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.vault.opening import open_vault
from gs_backup_assets_tests.production import SUPERUSER, Production
from gs_backup_assets_tests.recovery.point_in_time.recover_site import Site

ROOT = Path(__file__).parents[2]
NAME = "studio"
_BLOCK = re.compile(r"^```sh(?: exit=(any|\d+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOTHING_LISTENS = "postgresql://studio_owner@127.0.0.1:1/studio"


@dataclass(frozen=True)
class Block:
    """Commands of a page. `status` is how they end, None where the page leaves it open; `heading` is above them."""

    heading: str
    commands: str
    status: int | None


def blocks_of(page: str) -> list[Block]:
    """The command blocks of a page, in order."""
    found = []
    for match in _BLOCK.finditer(page):
        headings = re.findall(r"^#+ (.*)$", page[: match.start()], re.MULTILINE)
        status = {"any": None, None: 0}.get(match[1], match[1])
        found.append(Block(headings[-1], match[2], None if status is None else int(status)))
    return found


@dataclass
class Ground:
    """A folder with backup.yaml and the shell's environment. `said` holds what each block printed."""

    server: Production
    folder: Path
    environment: dict[str, str]
    said: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "backup.yaml"

    @property
    def site(self) -> Site:
        """The same stores, for functions of this process."""
        settings = load_config(self.file).database()
        return Site(self.server, settings, open_vault(settings), self.folder)

    def archive(self) -> None:
        """Bring all that the server has written of its log to both stores, as the stream would."""
        self.site.archive()
        self.do("gs-backup copy")

    def do(self, commands: str) -> None:
        """Prepare something, in a shell of its own."""
        self.type(Block("before the page", commands, 0))
        (self.folder / ".shell").unlink()

    def database(self, name: str) -> str:
        """The address of a database on the server, whether or not it is there."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.server.port}/{name}"

    def configure(self, **changes: Any) -> None:
        """Replace sections of backup.yaml; None takes one away."""
        document = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        document.update(changes)
        kept = {key: value for key, value in document.items() if value is not None}
        self.file.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")

    def type(self, block: Block) -> str:
        """Run a block in the shell that the blocks before it have left; what it printed."""
        state = self.folder / ".shell"
        keep = f"export -p > {state}"
        before = f"[ ! -e {state} ] || . {state}\nset -a\n"
        if block.status == 0:
            script = f"{before}set -eu -o pipefail\n{block.commands}\n{keep}\n"
        else:
            script = f"{before}set -u -o pipefail\n{block.commands}\n"
        done = subprocess.run(
            ["bash", "-c", script],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        self.said.append(done.stdout)
        wanted = done.returncode if block.status is None else block.status
        assert done.returncode == wanted, f"{block.heading}: {done.returncode}\n{block.commands}\n{done.stdout}"
        return done.stdout


def environment_of(server: Production, folder: Path, cache: Path) -> dict[str, str]:
    """What is at hand on every page."""
    here = {key: value for key, value in os.environ.items() if not key.startswith(("GS_BACKUP", "DAGSTER", "PG"))}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    tools = [Path(sys.executable).parent, server.toolchain.bin, ROOT / ".venv" / "coldstart" / "bin"]
    return {
        **here,
        "PATH": os.pathsep.join([*map(str, tools), os.environ["PATH"]]),
        "GS_BACKUP_CONFIG": str(folder / "backup.yaml"),
        "GS_BACKUP_CACHE": str(cache),
        "DAGSTER_HOME": str(home),
        "DATABASE_URL": server.url,
        "AS_SERVER": "runuser -u postgres --" if os.getuid() == 0 else "",
        "LC_ALL": "C.UTF-8",
        "PGCONNECT_TIMEOUT": "5",
        "NO_PROXY": "127.0.0.1",
    }


def write_config(folder: Path, **sections: Any) -> None:
    """backup.yaml of a project that uses everything, its two stores in folders."""
    document = {
        "databases": {NAME: {"url_env": "DATABASE_URL"}},
        "timezone": "UTC",
        "stores": {"primary": {"kind": "local", "path": "backups"}, "offsite": {"kind": "local", "path": "offsite"}},
        "encryption": {"kind": "raw-aes-256", "key_env": "GS_BACKUP_KEY"},
        "physical": {},
        "wal": {"partial_every": "1s"},
        "retention": {},
        "rules": "guitar_strategies",
        "data_classes": {
            "critical": {"rpo": "15m", "rto": "1h", "tables": ["User", "Lesson", "Invoice"]},
            "important": {"rpo": "1h", "rto": "4h"},
        },
        **sections,
    }
    (folder / "backup.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def load_production(server: Production) -> None:
    """A small sample in the server's database."""
    with connect(server.target()) as connection:
        load_sample(connection, scale=0.02)


def copy_of(template: Ground, folder: Path) -> Ground:
    """A project of a page's own, with all that the template's stores hold."""
    shutil.copytree(template.folder, folder, dirs_exist_ok=True)
    environment = environment_of(template.server, folder, Path(template.environment["GS_BACKUP_CACHE"]))
    return Ground(template.server, folder, {**environment, "GS_BACKUP_KEY": template.environment["GS_BACKUP_KEY"]})


def a_name(prefix: str) -> str:
    """A name that nothing has yet, for databases and buckets."""
    return f"{prefix}-{secrets.token_hex(3)}" if prefix.endswith("bucket") else f"{prefix}_{secrets.token_hex(3)}"


def nowhere() -> str:
    """The address of a database that is gone: nobody listens there."""
    return _NOTHING_LISTENS
