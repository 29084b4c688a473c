"""Secrets in a database's settings do not get into what Dagster keeps: metadata, checks, observations, logs."""

from __future__ import annotations

import dagster as dg

from gs_backup_assets_tests.assets.conftest import Project
from gs_backup_assets_tests.chain import execute


def test_no_event_of_a_run_holds_a_setting(project: Project, instance: dg.DagsterInstance) -> None:
    name = project.source.database
    execute(
        project.source,
        "CREATE ROLE settled",
        f"ALTER DATABASE {name} SET app.jwt_secret TO 's3cret one'",
        "ALTER ROLE settled SET app.jwt_secret TO 's3cret two'",
        f"ALTER ROLE settled IN DATABASE {name} SET app.jwt_secret TO 's3cret three'",
    )
    try:
        result = project.run(instance)
        assert result.success
        told = "".join(
            dg.serialize_value(entry.event_log_entry) for entry in instance.get_records_for_run(result.run_id).records
        )
        manifest = project.catalogue.latest()
        assert manifest is not None and manifest.id in told
        assert "s3cret" not in told
        assert len(manifest.require_manifest().source.settings) == 2
    finally:
        execute(project.source, f"ALTER ROLE settled IN DATABASE {name} RESET ALL", "DROP ROLE settled")
