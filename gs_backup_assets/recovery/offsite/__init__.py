"""The copy of backups in another place, and its comparison with the primary one."""
