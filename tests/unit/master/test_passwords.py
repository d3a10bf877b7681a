"""Passwords are kept as Argon2id, and compared by nothing else."""

from __future__ import annotations

import pytest

from cleanroom_base.errors import InputError
from cleanroom_master import passwords

LONG_ENOUGH = "correct horse battery"


def test_a_password_is_known_again_and_another_is_not() -> None:
    kept = passwords.hashed(LONG_ENOUGH)
    # RFC 9106, second recommendation: 64 MiB, three passes.
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert passwords.matches(LONG_ENOUGH, kept)
    assert not passwords.matches(LONG_ENOUGH + " ", kept)
    assert passwords.hashed(LONG_ENOUGH) != kept


@pytest.mark.parametrize("kept", [None, "", "x", "$argon2id$broken"])
def test_nobody_s_password_matches_nothing(kept: str | None) -> None:
    assert not passwords.matches(LONG_ENOUGH, kept)


def test_nobody_s_password_takes_as_long_as_somebody_s() -> None:
    from argon2 import extract_parameters

    assert extract_parameters(passwords._NOBODY) == extract_parameters(passwords.hashed(LONG_ENOUGH))


@pytest.mark.parametrize("password", ["", "x" * 9, "x" * 1025])
def test_too_short_and_too_long_passwords_are_refused(password: str) -> None:
    with pytest.raises(InputError, match="from 10 to 1024"):
        passwords.hashed(password)
    assert not passwords.matches(password, None)
