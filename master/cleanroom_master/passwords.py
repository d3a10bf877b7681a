"""Passwords as Argon2id hashes. This is the one module that imports argon2."""

from __future__ import annotations

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from cleanroom_base.errors import InputError

# Length is what counts; no rule asks for digits or signs. Source: NIST SP 800-63B, 5.1.1.
LEAST = 10
MOST = 1024
# The library's defaults: RFC 9106, second recommendation (64 MiB a hash).
_HASHER = PasswordHasher()
# So many hashes are computed side by side: each needs its memory.
_FREE = threading.BoundedSemaphore(2)
# Of nobody's password: an unknown account takes as long as one with another password.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$MCYOUnfqZnnejqzLmxAXZA$ZrqLrYwRxgjQKowLNJ1f2nCas1X5KTcwIWF9t/TAeQY"


def hashed(password: str) -> str:
    """What is kept of a password. Raises InputError for one that is too short or too long."""
    if not LEAST <= len(password) <= MOST:
        raise InputError(f"a password has from {LEAST} to {MOST} characters, this one has {len(password)}")
    with _FREE:
        return _HASHER.hash(password)


def matches(password: str, kept: str | None) -> bool:
    """Whether a password is the one of which `kept` is kept; None: of nobody, which takes as long."""
    if len(password) > MOST:
        return False
    try:
        with _FREE:
            return _HASHER.verify(kept or _NOBODY, password) and kept is not None
    except (VerificationError, InvalidHashError):
        return False
