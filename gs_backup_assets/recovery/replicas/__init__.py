"""Streaming standbys: observed, created and promoted."""
