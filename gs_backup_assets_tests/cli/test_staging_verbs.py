"""`gs-backup staging-test` and `gs-backup anonymise`, run as people run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gs_backup_assets.postgres.cluster import Cluster, drop_database
from gs_backup_assets.postgres.connection import connect, query
from gs_backup_assets.sample.generate import load_sample
from gs_backup_assets.system.programs import run
from gs_backup_assets_tests.chain import chain_in
from gs_backup_assets_tests.conftest import fresh_database
from gs_backup_assets_tests.recovery.staging.staging_site import URL_VARIABLE, Site, application, keep_proof

CONFIG = """
databases: {{shop: {{url_env: NOT_SET}}}}
staging:
  url_env: {variable}
  health: [{{url: "{url}", expect: go, deadline: 5s}}]
anonymise:
  tables:
    User: {{email: {{fake: email}}, name: {{fake: name}}, password: {{constant: x}}}}
"""


@dataclass
class Scene:
    folder: Path
    site: Site
    backup: str

    def call(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from gs_backup_assets.cli.main import main; main()", *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def scene(server17: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("verbs")
    chain = chain_in(folder)
    with fresh_database(server17) as target:
        with connect(target) as connection:
            load_sample(connection, scale=0.05)
        backup = chain.take(target).id
    keep_proof(chain)
    with application() as app:
        site = Site(server17, "verbstage", folder, chain, app)
        site.reset()
        (folder / "backup.yaml").write_text(CONFIG.format(variable=URL_VARIABLE, url=app.url), encoding="utf-8")
        yield Scene(folder, site, backup)
        site.drop()


def test_the_staging_test_and_its_exit_status(scene: Scene) -> None:
    environment = {URL_VARIABLE: scene.site.url}
    done = scene.call("staging-test", "--json", **environment)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "PROVEN" and document["backup_id"] == scene.backup
    assert "nobody was told" in document["warnings"][0]
    assert not scene.site.is_old
    scene.site.reset()
    scene.site.app.text = "broken"
    failed = scene.call("staging-test", **environment)
    scene.site.app.text = "all systems go"
    assert failed.returncode == 1 and "HEALTH_NOT_REACHED" in failed.stdout
    assert scene.site.is_old
    back = scene.call("staging-test", "--put-back", **environment)
    assert back.returncode == 0 and "nothing of an earlier test was left" in back.stdout
    assert scene.call("staging-test").returncode == 2, "the variable is not set"


def test_a_masked_dump_for_developers(scene: Scene, server17: Cluster) -> None:
    file = scene.folder / "masked.dump"
    done = scene.call("anonymise", "latest", "--into", str(file), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stored_bytes"] == file.stat().st_size
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in scene.folder.iterdir() if "masked" in path.name] == ["masked.dump"]
    with fresh_database(server17) as target:
        environment = target.write_service_file(scene.folder)
        pg_restore = server17.toolchain.program("pg_restore")
        restored = run([pg_restore, "--dbname=", "--no-owner", "--exit-on-error", file], environment=environment)
        assert restored.status == 0, restored.stderr
        with connect(target) as connection:
            users = query(connection, 'SELECT email, password FROM public."User"')
            assert query(connection, "SELECT to_regnamespace('gs_backup_masking')") == [(None,)]
    assert len(users) > 20
    assert all(email.endswith("@example.com") and password == "x" for email, password in users)
    again = scene.call("anonymise", "latest", "--into", str(file))
    assert again.returncode == 2 and "FILE_EXISTS" in again.stderr


def test_a_masked_database_for_developers(scene: Scene, server17: Cluster) -> None:
    url = scene.site.url.replace("verbstage", "verbdevelopers")
    try:
        done = scene.call("anonymise", scene.backup, "--into", "DEVELOPERS_URL", DEVELOPERS_URL=url)
        assert done.returncode == 0, done.stderr
        with connect(server17.target("verbdevelopers")) as connection:
            (emails,) = query(connection, "SELECT count(*) FROM public.\"User\" WHERE email !~ '@example.com$'")[0]
        assert emails == 0
        again = scene.call("anonymise", scene.backup, "--into", "DEVELOPERS_URL", DEVELOPERS_URL=url)
        assert again.returncode == 2 and "DATABASE_EXISTS" in again.stderr
    finally:
        with connect(server17.target()) as connection:
            drop_database(connection, "verbdevelopers")
            assert query(connection, "SELECT count(*) FROM pg_database WHERE datname LIKE '%masked%'") == [(0,)]


def test_an_address_is_not_repeated(scene: Scene) -> None:
    done = scene.call("anonymise", "latest", "--into", "postgresql://u:hunter2@h/d")
    assert done.returncode == 2 and "hunter2" not in done.stderr + done.stdout
