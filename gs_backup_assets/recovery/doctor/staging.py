"""The doctor's checks of what copies outside of production need: the staging server, and the secret of the masking."""

from __future__ import annotations

from gs_backup_assets.config_masking import Anonymise
from gs_backup_assets.config_recovery import Staging
from gs_backup_assets.errors import BackupError
from gs_backup_assets.postgres.connection import connect, query, target_from_environment
from gs_backup_assets.recovery.doctor.diagnosis import Diagnosis, failed, passed
from gs_backup_assets.recovery.dumps.restore import admin_of
from gs_backup_assets.recovery.staging.masking import masking_secret
from gs_backup_assets.recovery.staging.server import require_ours


def staging_server(staging: Staging) -> Diagnosis:
    """Whether the staging server is there, and lets the role make a database for a backup, and rename the old one."""
    try:
        target = target_from_environment(staging.url_env)
        with connect(admin_of(target), application="gs_backup doctor") as connection:
            sql = "SELECT rolsuper OR rolcreatedb, quote_ident(rolname) FROM pg_roles WHERE rolname = current_user"
            ((may_create, role),) = query(connection, sql)
            if may_create:
                require_ours(connection, target.database)
    except BackupError as error:
        return failed("staging", f"{error.code}: {error.message}", hint=error.hint)
    if not may_create:
        # Not in `sql`, which is for the server that is backed up.
        hint = f"Have a superuser of the staging server run: ALTER ROLE {role} CREATEDB;"
        return failed("staging", f"The role {role} may not make databases on the staging server.", hint=hint)
    return passed("staging", f"{target.redacted()} can be reached, and the role {role} may make databases there.")


def masking_key(rules: Anonymise) -> Diagnosis:
    """Whether the secret is there by which values are masked."""
    try:
        masking_secret(rules)
    except BackupError as error:
        return failed("masking_key", f"{error.code}: {error.message}", hint=error.hint)
    if rules.key_env is None:
        return passed("masking_key", "Each masked copy has a secret of its own.")
    return passed("masking_key", f"{rules.key_env} has the secret by which values are masked.")
