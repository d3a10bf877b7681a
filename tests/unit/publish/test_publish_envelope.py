"""Signed statements: what is signed, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from cleanroom_base.errors import InputError
from cleanroom_master.publish import envelope
from cleanroom_master.publish.signing import Signer

STATEMENT = b'{"_type":"https://in-toto.io/Statement/v1"}'


def test_what_is_signed_is_what_the_specification_says() -> None:
    """Source of the example: DSSE's protocol.md."""
    encoded = envelope.encode("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_an_envelope_has_the_form_that_the_specification_demands(signer: Signer) -> None:
    sealed = envelope.seal(STATEMENT, signer)
    assert sealed.count(b"\n") == 1
    value = json.loads(sealed)
    assert set(value) == {"payloadType", "payload", "signatures"}
    assert value["payloadType"] == "application/vnd.in-toto+json"
    assert base64.b64decode(value["payload"], validate=True) == STATEMENT
    [signature] = value["signatures"]
    assert signature["keyid"] == signer.key.fingerprint


def test_its_signature_is_good_and_names_the_key(signer: Signer) -> None:
    opened = envelope.read(envelope.seal(STATEMENT, signer))
    assert opened.payload == STATEMENT
    [good] = envelope.good_signatures(opened, envelope.dearmored(signer.public_key()))
    assert good.fingerprint == signer.key.fingerprint


def changed(sealed: bytes, change: Callable[[dict[str, object]], object]) -> bytes:
    value = json.loads(sealed)
    change(value)
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(payload=base64.b64encode(STATEMENT + b" ").decode()),
        lambda value: value.update(payloadType="text/plain"),
        lambda value: value["signatures"][0].update(sig=base64.b64encode(b"no signature").decode()),
    ],
    ids=["payload", "type", "signature"],
)
def test_what_was_changed_has_no_good_signature(signer: Signer, change: Callable[[dict[str, object]], object]) -> None:
    opened = envelope.read(changed(envelope.seal(STATEMENT, signer), change))
    assert envelope.good_signatures(opened, signer.keyring()) == []


def test_the_signature_of_another_key_is_not_good(signer: Signer, two_keys: Signer) -> None:
    opened = envelope.read(envelope.seal(STATEMENT, two_keys))
    assert envelope.good_signatures(opened, signer.keyring()) == []


def test_while_two_keys_sign_either_is_enough(two_keys: Signer) -> None:
    first, second = two_keys.known
    two_keys.use([first.fingerprint, second.fingerprint], {})
    opened = envelope.read(envelope.seal(STATEMENT, two_keys))
    for key in (first, second):
        keyring = envelope.dearmored(two_keys.exported(key.fingerprint))
        assert [one.fingerprint for one in envelope.good_signatures(opened, keyring)] == [key.fingerprint]
    assert len(envelope.good_signatures(opened, two_keys.keyring())) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no JSON",
        b"[]",
        b'{"payload": "", "payloadType": "", "signatures": []}',
        b'{"payload": "%%%", "payloadType": "", "signatures": [{"sig": ""}]}',
        b'{"payload": "", "payloadType": "", "signatures": [{}]}',
        b"[" * 100_000,
        b" " * (envelope.LIMIT + 1),
    ],
    ids=["empty", "text", "list", "unsigned", "no base64", "no signature", "deep", "large"],
)
def test_what_is_no_envelope_is_refused(content: bytes) -> None:
    with pytest.raises(InputError):
        envelope.read(content)


def test_several_blocks_of_keys_are_read_as_one_keyring(two_keys: Signer) -> None:
    armoured = [two_keys.exported(key.fingerprint) for key in two_keys.known]
    expected = b"".join(envelope.dearmored(one) for one in armoured)
    assert envelope.dearmored(b"\n".join(armoured)) == expected
    assert envelope.dearmored(expected) == expected


@pytest.mark.parametrize(
    "keys", [b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END", b"-----BEGIN CERTIFICATE-----\n"]
)
def test_what_is_no_key_is_refused(keys: bytes) -> None:
    with pytest.raises(InputError, match="no OpenPGP public key"):
        envelope.dearmored(keys)
