"""docs/base-backups.md: its role has the rights that it needs, and its commands bring a cluster back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gs_backup_assets.config import load_config
from gs_backup_assets.postgres.connection import Target
from gs_backup_assets.recovery.stored.stored_bytes import write_sums
from gs_backup_assets.system.account import current_account, server_account
from gs_backup_assets.vault.keys import new_raw_key
from gs_backup_assets.vault.local import LocalStore
from gs_backup_assets_tests.processes import open_folder
from gs_backup_assets_tests.production import SUPERUSER, new_folder, production
from gs_backup_assets_tests.recovery.physical.base_backups import Shelf, shelf_in

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "base-backups.md").read_text(encoding="utf-8")


def blocks(kind: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def _sh(block: str, environment: dict[str, str], cwd: Path, *, as_server: bool = True) -> str:
    account = server_account() if as_server else current_account()
    drop = {} if account == current_account() else {"user": account.uid, "group": account.gid, "extra_groups": []}
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        **drop,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def _fetched(shelf: Shelf, backup_id: str, into: Path, *, key: str | None) -> list[Path]:
    """The folders of a chain as somebody would bring them from the store, decrypted, for the account of servers."""
    assert isinstance(shelf.store, LocalStore)
    folders = []
    for entry in shelf.chain(backup_id):
        write_sums(shelf.store, entry)
        folder = into / entry.id
        shutil.copytree(shelf.store.root / entry.folder, folder)
        if key is not None:
            _sh(blocks("sh")[0], {**os.environ, "CHAIN": str(folder)}, folder, as_server=False)
            program = next(
                block for block in blocks("sh", (DOCS / "cold-start.md").read_text()) if "decrypt.py" in block
            )
            _sh(
                program,
                {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "GS_BACKUP_KEY": key},
                folder,
                as_server=False,
            )
        folders.append(folder)
    return folders


@pytest.mark.parametrize(("major", "encrypted"), [(15, False), (17, True)], ids=["a full one", "an encrypted chain"])
def test_the_page_brings_a_cluster_back(
    tmp_path: Path, major: int, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_raw_key() if encrypted else None
    monkeypatch.setenv("TEST_KEY", key or "")
    encryption = {"encryption": {"kind": "raw-aes-256", "key_env": "TEST_KEY"}} if encrypted else {}
    shelf = shelf_in(tmp_path, **encryption)
    with production(major, settings={"summarize_wal": "on"} if major >= 17 else {}) as server:
        for statement in blocks("sql")[0].split(";\n"):
            if statement.strip():
                server.sql(statement)
        role = Target({**server.target().parameters, "user": "gs_base_backup"})
        server.sql(f"CREATE TABLESPACE elsewhere LOCATION '{new_folder(server)}'")
        server.sql("CREATE TABLE far TABLESPACE elsewhere AS SELECT generate_series(1, 1000) AS n")
        taken = [shelf.take(role)]
        if major >= 17:
            server.sql("INSERT INTO far VALUES (1001)")
            taken.append(shelf.take(role))
        programs = server.toolchain.bin
    assert [manifest.warnings for manifest in taken] == [()] * len(taken), "the role's rights are enough for all of it"
    assert [manifest.base is None for manifest in taken] == [True, False][: len(taken)]
    account = server_account()
    with open_folder() as folder:
        fetched = _fetched(shelf, taken[-1].id, folder, key=key)
        work = folder / "work"
        work.mkdir()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
        environment = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "CHAIN": " ".join(map(str, fetched)),
            "WORK": str(work),
            "PGUSER": SUPERUSER,
            "LC_ALL": "C",
        }
        steps = blocks("sh")[1:] if encrypted else blocks("sh")
        ask = 'psql --host="$WORK" --dbname=studio --tuples-only --no-align --command="SELECT count(*) FROM far"'
        try:
            told = _sh("\n".join([*steps, ask]), environment, work)
        finally:
            stop = f'for DATA in "{work}"/*/postmaster.pid; do pg_ctl -D "$(dirname "$DATA")" -m immediate stop; done'
            _sh(f"shopt -s nullglob; {stop}", environment, work)
    assert told.splitlines()[-1] == str(999 + len(taken))


def test_its_example_is_a_configuration(tmp_path: Path) -> None:
    (example,) = blocks("yaml")
    (tmp_path / "backup.yaml").write_text(f"databases: {{shop: {{url_env: X}}}}\n{example}", encoding="utf-8")
    physical = load_config(tmp_path / "backup.yaml").database().physical
    assert physical is not None and physical.chain_length == 7


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links and [link for link in links if not (DOCS / link).is_file()] == []


def test_every_code_is_raised_somewhere() -> None:
    source = "".join(path.read_text() for path in (DOCS.parent / "gs_backup_assets").rglob("*.py"))
    named = re.findall(r"`([A-Z]+_[A-Z_]+)`", PAGE)
    assert len(named) > 8
    assert [code for code in named if f'"{code}"' not in source and code != "TMPDIR"] == []
