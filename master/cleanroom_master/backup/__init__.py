"""Backup and restore: one file that has the record and all files that it names (see `making` for why they fit)."""
