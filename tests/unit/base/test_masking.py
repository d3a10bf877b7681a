"""What is secret does not stay in text, however a program wrote it."""

from __future__ import annotations

import base64
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_base.masking import MASK, Secrets, in_address, masked

SECRET = "s3cr3t/+&v@lue"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://anna:{quote_plus(SECRET)}@db/cleanroom",
        "https://ghp_ABCDEFsecretvalue@example.org/x.git",
        "GET /hook?x=1&access_token=secretvalue HTTP/1.1",
        "password=secretvalue dbname=x",
        'CLEANROOM_MAIL_PASSWORD="secretvalue and more"',
        "{'openid.secret': 'secretvalue'}",
        "Authorization: Basic secretvalue1=",
        "sent Bearer secretvalue123",
        "Cookie: cleanroom_session=secretvalue; x=y",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nsecretvalue\n-----END PGP PRIVATE KEY BLOCK-----",
        "-----BEGIN RSA PRIVATE KEY-----\nsecretvalue",
        f"the token is cleanroom_secretvalue{'x' * 40}",
        "pin: secretvalue",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str) -> None:
    shown = masked(text)
    assert "secretvalue" not in shown and quote_plus(SECRET) not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/hello.git at v1.0",
        "ssh://git@example.org/hello.git",
        "the signature is good; basic understanding of tokens",
        "10.231.0.1:3142 answers",
        "user@example.org",
        "cleanroom_master.notifications.sending",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("before", ["", "a", "ab", "anna:"])
def test_known_secrets_are_found_as_programs_write_them(before: str) -> None:
    known = Secrets([SECRET, ""])
    whole = base64.b64encode(f"{before}{SECRET}".encode()).decode()
    for written in (SECRET, quote(SECRET, safe=""), quote_plus(SECRET), whole, SECRET.encode().hex(), repr(SECRET)):
        assert known.among(f"x {written} y")
        shown = known.masked(f"x {written} y")
        assert not known.among(shown) and written not in shown


@given(st.text(min_size=9, max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_no_known_secret_stays(secret: str, before: str, after: str) -> None:
    known = Secrets([secret])
    text = f"{before}{base64.b64encode(secret.encode(errors='surrogateescape')).decode()}{secret}{after}"
    assert secret not in known.masked(text).replace(MASK, "")


@given(st.text())
def test_any_text_can_be_masked(text: str) -> None:
    assert isinstance(masked(text), str)
    assert isinstance(in_address(text), list)


def test_what_is_secret_in_addresses() -> None:
    assert in_address("postgresql://anna:p%40ss@db/x") == ["p%40ss", "p@ss"]
    assert in_address("https://token@example.org/a.git?key=two") == ["token", "two"]
    assert in_address("ssh://git@example.org/a.git") == []
    assert in_address("file:///srv/a.git") == []
