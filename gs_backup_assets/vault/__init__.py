"""Where the bytes of backups rest."""
