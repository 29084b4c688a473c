"""PostgreSQL backups you can prove, as Dagster assets and as a command line."""

__version__ = "0.1.0"
