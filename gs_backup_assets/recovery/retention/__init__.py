"""What is kept and what may go: holds, and the pruning of backups and write-ahead log."""
