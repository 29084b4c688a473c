"""Breaks copies of sound backups in every way that is known, and counts what the proof catches."""
