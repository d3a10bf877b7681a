"""What every part stands on: errors, settings, and the one module that runs subprocesses.

Nothing here knows about products, guests or databases; nothing here imports another part.
"""
