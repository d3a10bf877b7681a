"""Signatures on tags, checked against the site's keyring and nothing else.

gpgv(1) is made for this: it trusts exactly the keys of one file, asks nobody, and keeps no state.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.run import run
from cleanroom_db.states import SignatureState

_SECONDS = 30.0
_PGP = b"-----BEGIN PGP SIGNATURE-----"
_BEGIN = r"^-----BEGIN (?:PGP SIGNATURE|PGP MESSAGE|SSH SIGNATURE|SIGNED MESSAGE)-----$"
_ANY = re.compile(_BEGIN.encode(), re.MULTILINE)
_ANY_TEXT = re.compile(_BEGIN, re.MULTILINE)
_ARMOR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"

# Source: GnuPG's doc/DETAILS, "General status codes". The worst that gpgv says counts, so this is the order.
_VERDICTS = (
    ("BADSIG", SignatureState.BAD),
    ("REVKEYSIG", SignatureState.BAD),
    ("NO_PUBKEY", SignatureState.UNKNOWN_KEY),
    ("ERRSIG", SignatureState.BAD),
    ("EXPSIG", SignatureState.EXPIRED),
    ("EXPKEYSIG", SignatureState.EXPIRED),
    ("GOODSIG", SignatureState.GOOD),
)


def check(tag: bytes, name: str, keyring: Path | None) -> SignatureState:
    """What the signature of a tag object (its raw content) is worth for a tag of this name.

    `unchecked` without a keyring. A good signature of another tag, published again under this name, is bad.
    Raises InfrastructureError if the keyring cannot be read.
    """
    begin = _ANY.search(tag)
    if begin is None:
        return SignatureState.NONE
    if keyring is None:
        return SignatureState.UNCHECKED
    if not tag.startswith(_PGP, begin.start()):
        return SignatureState.UNKNOWN_KEY
    state = _verify(tag[: begin.start()], tag[begin.start() :], keyring)
    if state is SignatureState.GOOD and _own_name(tag) != name.encode():
        return SignatureState.BAD
    return state


def unsigned(message: str) -> str:
    """A tag's message without its signature."""
    return _ANY_TEXT.split(message, maxsplit=1)[0]


def _verify(content: bytes, signature: bytes, keyring: Path) -> SignatureState:
    with tempfile.TemporaryDirectory(prefix="cleanroom-") as name:
        home = Path(name)
        keys = home / "keys"
        (home / "signature").write_bytes(signature)
        (home / "content").write_bytes(content)
        keys.write_bytes(_binary(keyring, home))
        verified = run(
            ["gpgv", "--homedir", home, "--keyring", keys, "--status-fd", "1", home / "signature", home / "content"],
            timeout=_SECONDS,
            check=False,
        )
    said = {line.split()[1] for line in verified.text.splitlines() if line.startswith("[GNUPG:] ")}
    return next((state for word, state in _VERDICTS if word in said), SignatureState.BAD)


def _binary(keyring: Path, home: Path) -> bytes:
    """Keys in the form that gpgv reads; people keep them in ASCII. Raises InfrastructureError."""
    try:
        keys = keyring.read_bytes()
    except OSError as error:
        raise InfrastructureError(
            f"the keyring {keyring} cannot be read: {error.strerror}", hint="see the setting refs.keyring"
        ) from error
    if _ARMOR not in keys:
        return keys
    return run(["gpg", "--homedir", home, "--dearmor"], stdin=keys, timeout=_SECONDS).stdout


def _own_name(tag: bytes) -> bytes:
    """The name that stands in a tag object."""
    header = tag.partition(b"\n\n")[0]
    return next((line[4:] for line in header.split(b"\n") if line.startswith(b"tag ")), b"")
