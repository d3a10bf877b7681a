"""Signed statements: DSSE envelopes, signed with OpenPGP by the keys that sign the repository.

Sources of the formats: the DSSE specification 1.0.2 (github.com/secure-systems-lab/dsse: protocol.md, envelope.md) and
the in-toto attestation framework 1.0. DSSE leaves the kind of signature open; here each is a detached OpenPGP signature
over DSSE's encoding of type and payload, so whoever trusts the repository's key needs nothing but gpgv.
"""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cleanroom_base.errors import InputError
from cleanroom_base.run import run
from cleanroom_master.publish.signing import Signer

STATEMENT = "application/vnd.in-toto+json"
# A build environment of 5,000 packages takes 1 MiB; this much is read of what somebody calls an envelope.
LIMIT = 16 << 20
_SIGNATURES = 16
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Signature:
    """A good signature: the fingerprint of the key that made it, and when."""

    fingerprint: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with its type, and signatures by the name of a key. Nothing of it is checked yet."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]


def encode(payload_type: str, payload: bytes) -> bytes:
    """What is signed: DSSE's "pre-authentication encoding" of a payload and its type."""
    name = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def seal(payload: bytes, signer: Signer, *, payload_type: str = STATEMENT) -> bytes:
    """An envelope with a signature of each key that signs, as one line of JSON."""
    signatures = signer.signatures(encode(payload_type, payload))
    value = {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": fingerprint, "sig": base64.b64encode(signature).decode()}
            for fingerprint, signature in signatures.items()
        ],
    }
    return json.dumps(value).encode() + b"\n"


def read(content: bytes) -> Envelope:
    """Take an envelope apart. Raises InputError for what is none."""
    if len(content) > LIMIT:
        raise InputError(f"the signed statement is larger than {LIMIT} bytes")
    try:
        value = json.loads(content)
        signatures = tuple((str(one.get("keyid", "")), _decoded(one["sig"])) for one in value["signatures"])
        found = Envelope(str(value["payloadType"]), _decoded(value["payload"]), signatures)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"this is no signed statement (a DSSE envelope in JSON): {error!r:.200}") from error
    if not 1 <= len(signatures) <= _SIGNATURES:
        raise InputError(f"the signed statement has {len(signatures)} signatures")
    return found


def good_signatures(envelope: Envelope, keyring: bytes) -> list[Signature]:
    """The signatures of an envelope that are good, and made by a key of this keyring (public keys in binary form)."""
    with tempfile.TemporaryDirectory() as scratch:
        ring, signed = Path(scratch, "keyring.gpg"), Path(scratch, "signed")
        ring.write_bytes(keyring)
        signed.write_bytes(encode(envelope.payload_type, envelope.payload))
        found = []
        for number, (_, signature) in enumerate(envelope.signatures):
            file = Path(scratch, f"{number}.sig")
            file.write_bytes(signature)
            found += verified(ring, file, signed)
    return found


def verified(keyring: Path, signature: Path, content: Path | None = None) -> list[Signature]:
    """The good signatures in a file over `content`, or in a text that is signed itself, by keys of a keyring.

    Source of the format: GnuPG's doc/DETAILS, VALIDSIG.
    """
    files = [signature, *([content] if content else [])]
    done = run(["gpgv", "--status-fd", "1", "--keyring", keyring.absolute(), *files], timeout=_TIMEOUT, check=False)
    lines = [line.split() for line in done.text.splitlines() if line.startswith("[GNUPG:] VALIDSIG ")]
    # The last word is the primary key, of which the signing key may be a part.
    return [Signature(line[-1], datetime.fromtimestamp(int(line[4]), UTC)) for line in lines]


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError("no text where there must be base64")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        # DSSE lets a producer choose between both alphabets.
        return base64.b64decode(text, altchars=b"-_", validate=True)


def dearmored(keys: bytes) -> bytes:
    """Public keys in binary form, from ASCII armour (RFC 9580, 6.2) or as they are. Raises InputError."""
    # A packet begins with a byte whose highest bit is set (RFC 9580, 4.2); text does not.
    if keys[:1] >= b"\x80":
        return keys
    inside, header = False, False
    lines: list[str] = []
    found = b""
    for line in keys.decode("ascii", errors="replace").splitlines():
        if line.startswith("-----BEGIN PGP PUBLIC KEY BLOCK"):
            inside, header, lines = True, True, []
        elif line.startswith("-----END") and inside:
            try:
                found += base64.b64decode("".join(lines), validate=True)
            except ValueError as error:
                raise InputError(f"the key's armour is damaged: {error}") from error
            inside = False
        elif inside and header:
            header = bool(line.strip())
        elif inside and not line.startswith("="):
            lines.append(line.strip())
    if not found:
        raise InputError("there is no OpenPGP public key in it")
    return found


def fields(statement: object, path: str) -> object:
    """What stands in a statement at `a.b.c`; None where it is not there."""
    for name in path.split("."):
        if not isinstance(statement, Mapping):
            return None
        statement = statement.get(name)
    return statement
