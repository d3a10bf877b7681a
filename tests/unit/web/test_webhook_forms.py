"""Webhooks as forges send them: who signed, what it is about, and nothing that breaks on hostile content."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from cleanroom_db.states import Forge
from cleanroom_master.web.webhooks import forges
from cleanroom_master.web.webhooks.forges import NotSigned, NotUnderstood

SECRET = b"agreed on"
REPOSITORY = {
    "clone_url": "https://forge.example/anna/tool.git",
    "git_http_url": "https://forge.example/anna/tool.git",
    "pushed_at": 1893456000,
    "updated_at": "2030-01-01T00:00:00Z",
}
BODY = json.dumps({"ref": "refs/tags/v1", "repository": REPOSITORY, "project": REPOSITORY}).encode()


def headers(forge: Forge, body: bytes = BODY, secret: bytes = SECRET, delivery: str = "one") -> dict[str, str]:
    """What a forge sends beside the body."""
    signed = hmac.new(secret, body, hashlib.sha256).hexdigest()
    return {
        Forge.GITHUB: {
            "x-github-event": "push",
            "x-github-delivery": delivery,
            "x-hub-signature-256": f"sha256={signed}",
        },
        Forge.GITEA: {"x-gitea-event": "push", "x-gitea-delivery": delivery, "x-gitea-signature": signed},
        Forge.GITLAB: {
            "x-gitlab-event": "Tag Push Hook",
            "x-gitlab-event-uuid": delivery,
            "x-gitlab-token": secret.decode(),
        },
    }[forge]


@pytest.mark.parametrize("forge", list(Forge))
def test_who_has_the_secret_is_understood(forge: Forge) -> None:
    forges.verify(forge, headers(forge), BODY, SECRET)
    found = forges.read(forge, headers(forge), BODY)
    assert found.about_refs
    assert "https://forge.example/anna/tool.git" in found.addresses
    assert (found.sent_at is None) is (forge is Forge.GITLAB)


@pytest.mark.parametrize("forge", list(Forge))
@pytest.mark.parametrize("wrong", ["nothing", "other secret", "other body", "not ASCII"])
def test_who_has_not_is_refused(forge: Forge, wrong: str) -> None:
    sent, body = headers(forge), BODY
    if wrong == "nothing":
        sent = {name: value for name, value in sent.items() if "signature" not in name and "token" not in name}
    elif wrong == "other secret":
        sent = headers(forge, secret=b"guessed")
    elif wrong == "not ASCII":
        sent = dict.fromkeys(sent, "é")
    elif forge is Forge.GITLAB:
        # It signs nothing: its token says who it is, not what was sent.
        sent = headers(forge, secret=b"")
    else:
        body = BODY + b" "
    with pytest.raises(NotSigned):
        forges.verify(forge, sent, body, SECRET)


def test_a_signature_of_another_forge_is_none() -> None:
    with pytest.raises(NotSigned):
        forges.verify(Forge.GITHUB, headers(Forge.GITEA), BODY, SECRET)


def test_the_same_signed_body_has_the_same_digest_whatever_it_is_called() -> None:
    one, two = (forges.read(Forge.GITHUB, headers(Forge.GITHUB, delivery=name), BODY) for name in ("one", "two"))
    assert one.digest == two.digest
    one, two = (forges.read(Forge.GITLAB, headers(Forge.GITLAB, delivery=name), BODY) for name in ("one", "two"))
    assert one.digest != two.digest


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}",
        b'{"repository": []}',
        b'{"repository": {"clone_url": 7}}',
        b'{"repository": {"clone_url": "' + b"x" * 5000 + b'"}}',
        b"payload=%7B%7D",
    ],
)
def test_what_is_signed_and_no_webhook_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(NotUnderstood):
        forges.read(Forge.GITHUB, headers(Forge.GITHUB, body), body)


@pytest.mark.parametrize("at", ["", "yesterday", 10**400, -(10**18), True, None, [], 1.5])
def test_a_time_that_is_none_is_no_time(at: object) -> None:
    body = json.dumps({"repository": REPOSITORY | {"pushed_at": at}}).encode()
    assert forges.read(Forge.GITHUB, headers(Forge.GITHUB, body), body).sent_at is None


@pytest.mark.parametrize("missing", ["x-github-event", "x-github-delivery"])
def test_headers_that_are_missing_are_named(missing: str) -> None:
    sent = {name: value for name, value in headers(Forge.GITHUB).items() if name != missing}
    with pytest.raises(NotUnderstood, match=missing):
        forges.read(Forge.GITHUB, sent, BODY)


def test_other_events_are_of_nothing_that_is_released() -> None:
    sent = headers(Forge.GITHUB) | {"x-github-event": "issues"}
    assert not forges.read(Forge.GITHUB, sent, b'{"zen": "x"}').about_refs
