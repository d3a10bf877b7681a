"""Provenance: what is signed about each published package, and how its consumers check that."""
