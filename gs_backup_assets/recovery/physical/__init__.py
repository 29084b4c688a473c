"""Base backups: taken as a chain of a full one and increments, and unpacked into a data directory."""
