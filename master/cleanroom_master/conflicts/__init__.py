"""Conflicts before consumers meet them: what packages hold and need, and what breaks where they come together."""
