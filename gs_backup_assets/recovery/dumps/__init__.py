"""Logical backups: taken, restored, and proved by a restore that is compared with production."""
