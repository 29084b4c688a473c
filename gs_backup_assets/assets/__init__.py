"""The Dagster assets: thin callers of the plain functions."""
