"""A backup is restored with sha256sum, psql and pg_restore alone, by the very commands of the runbook."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from gs_backup_assets.catalogue.verdict import Status
from gs_backup_assets.postgres.cluster import Cluster
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.postgres.fingerprint import take_fingerprint
from gs_backup_assets.postgres.inventory import take_inventory
from gs_backup_assets.postgres.schema import read_schema
from gs_backup_assets.postgres.settings import read_settings
from gs_backup_assets.recovery.dumps import equality
from gs_backup_assets.recovery.stored.stored_bytes import write_sums
from gs_backup_assets_tests.chain import Chain, chain_in, throwaway_beside
from gs_backup_assets_tests.zoo import zoo

_PAGE = Path(__file__).parents[3] / "docs" / "restore-with-stock-programs.md"


def runbook() -> list[str]:
    """The commands of the page, block by block."""
    return re.findall(r"^```sh\n(.*?)^```$", _PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def _follow(block: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def _folder(chain: Chain) -> Path:
    return chain.store.root / chain.entry.folder


def test_the_page_restores_a_zoo(any_server: Cluster, tmp_path: Path) -> None:
    chain = chain_in(tmp_path)
    with zoo(any_server) as source:
        manifest = chain.take(source)
        write_sums(chain.store, chain.entry)
        with throwaway_beside(any_server) as server:
            environment = {
                "PATH": f"{server.toolchain.bin}{os.pathsep}{os.environ['PATH']}",
                "BACKUP": str(_folder(chain)),
                "DATABASE": "by_hand",
                "ENCODING": manifest.source.encoding,
                "LC_COLLATE": manifest.source.collate,
                "LC_CTYPE": manifest.source.ctype,
                "PGHOST": server.admin.host,
                "PGPORT": server.admin.parameters["port"],
                "PGUSER": server.admin.parameters["user"],
                "LC_ALL": "C",
            }
            for block in runbook():
                done = _follow(block, _folder(chain), environment)
                assert done.returncode == 0, f"{block}\n{done.stderr}"
            target = server.admin.with_database("by_hand")
            with connect(target) as connection:
                inventory = take_inventory(connection)
                settings = read_settings(connection)
                members = query(connection, "SELECT 1 FROM pg_roles WHERE rolname = 'zoo keeper'")
            restored = take_fingerprint(target, inventory, level=manifest.fingerprint.level, jobs=1)
            objects = read_schema(server.toolchain, target.write_service_file(tmp_path))
    assert members == [(1,)]
    assert {setting.role for setting in settings} == {"", "zoo_guest"}
    tables = equality.compare_tables(manifest.fingerprint, restored)
    checks = (
        equality.rows_equal(manifest.fingerprint, tables),
        equality.contents_equal(manifest.fingerprint, restored, tables),
        equality.sequences_equal(manifest.fingerprint, restored),
        equality.schema_equal(manifest.schema_objects, objects, manifest.source.settings, settings, owners=True),
    )
    assert {check.name: check.status for check in checks} == {check.name: Status.PASSED for check in checks}, checks


@pytest.mark.parametrize("damage", ["change", "cut", "remove"])
def test_the_first_step_finds_damage(server17: Cluster, tmp_path: Path, damage: str) -> None:
    chain = chain_in(tmp_path)
    chain.take(server17.target())
    write_sums(chain.store, chain.entry)
    folder = _folder(chain)
    environment = {"PATH": os.environ["PATH"], "BACKUP": str(folder), "LC_ALL": "C"}
    first = runbook()[0]
    assert "sha256sum" in first
    assert _follow(first, folder, environment).returncode == 0
    victim = folder / "dump" / "toc.dat"
    data = victim.read_bytes()
    if damage == "change":
        victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        victim.write_bytes(data[:-1])
    else:
        victim.unlink()
    done = _follow(first, folder, environment)
    assert done.returncode != 0
    assert "dump/toc.dat: FAILED" in done.stdout
