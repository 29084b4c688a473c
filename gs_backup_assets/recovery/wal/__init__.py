"""The write-ahead log: streamed, archived, handed out again, watched, and mirrored off-site."""
