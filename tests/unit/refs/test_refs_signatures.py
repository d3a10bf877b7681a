"""What gpgv says, and what it means for a tag. Real keys are used in the mirror's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cleanroom_base.errors import InfrastructureError
from cleanroom_db.states import SignatureState
from cleanroom_master.refs import signatures

TAG = b"object 1\ntype commit\ntag v1\ntagger A <a@example.org> 1 +0000\n\nOne\n"
PGP = b"-----BEGIN PGP SIGNATURE-----\n\nxyz\n-----END PGP SIGNATURE-----\n"
SSH = b"-----BEGIN SSH SIGNATURE-----\nxyz\n-----END SSH SIGNATURE-----\n"


@pytest.fixture
def keyring(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_bytes(b"binary")
    return file


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("GOODSIG 1 Anna", SignatureState.GOOD),
        ("BADSIG 1 Anna", SignatureState.BAD),
        ("KEYEXPIRED 1\n[GNUPG:] EXPKEYSIG 1 Anna", SignatureState.EXPIRED),
        ("EXPSIG 1 Anna", SignatureState.EXPIRED),
        ("REVKEYSIG 1 Anna", SignatureState.BAD),
        ("ERRSIG 1 22 8 00 1 9\n[GNUPG:] NO_PUBKEY 1", SignatureState.UNKNOWN_KEY),
        ("ERRSIG 1 22 8 00 1 4", SignatureState.BAD),
        ("GOODSIG 1 Anna\n[GNUPG:] BADSIG 2 Eve", SignatureState.BAD),
        ("NODATA 4", SignatureState.BAD),
    ],
)
def test_the_worst_that_gpgv_says_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keyring: Path, said: str, state: SignatureState
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "gpgv").write_text(f"#!/bin/sh\ncat <<'END'\n[GNUPG:] NEWSIG\n[GNUPG:] {said}\nEND\n")
    (programs / "gpgv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert signatures.check(TAG + PGP, "v1", keyring) is state


def test_a_tag_without_a_signature_has_none(keyring: Path) -> None:
    assert signatures.check(TAG, "v1", keyring) is SignatureState.NONE


def test_a_signature_of_another_kind_is_of_no_known_key(keyring: Path) -> None:
    assert signatures.check(TAG + SSH, "v1", keyring) is SignatureState.UNKNOWN_KEY


def test_a_keyring_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="cannot be read: No such file"):
        signatures.check(TAG + PGP, "v1", tmp_path / "none")


def test_a_message_is_shown_without_its_signature() -> None:
    assert signatures.unsigned("One\n\nmore\n" + PGP.decode()) == "One\n\nmore\n"
