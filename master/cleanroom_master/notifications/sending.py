"""One message is sent, once. It was delivered only where the other side says so.

Sources: the Standard Webhooks specification (identity, time and HMAC-SHA256 over both and the body); RFC 5322 and 3834
for e-mail; the interfaces for commit statuses of GitHub, GitLab and Gitea.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import smtplib
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import requests

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_db.notifications import Notification, Subject
from cleanroom_db.states import Forge, ReleaseState
from cleanroom_master.notifications import wording
from cleanroom_master.notifications.endpoints import (
    ChatEndpoint,
    Endpoint,
    ForgeEndpoint,
    MailEndpoint,
    WebhookEndpoint,
    secret,
)
from cleanroom_master.notifications.telling import release_url

_AGENT = "Cleanroom"
_DESCRIPTION = 140
_LONGEST_PAUSE = 3600.0
_EXCERPT = 300

_STATES: Mapping[Forge, Mapping[ReleaseState, str]] = {
    Forge.GITHUB: {
        ReleaseState.WAITING: "pending",
        ReleaseState.BUILDING: "pending",
        ReleaseState.PASSED: "success",
        ReleaseState.PUBLISHED: "success",
        ReleaseState.FAILED: "failure",
        ReleaseState.HELD: "pending",
        ReleaseState.CANCELLED: "error",
        ReleaseState.WITHDRAWN: "error",
    },
    Forge.GITLAB: {
        ReleaseState.WAITING: "pending",
        ReleaseState.BUILDING: "running",
        ReleaseState.PASSED: "success",
        ReleaseState.PUBLISHED: "success",
        ReleaseState.FAILED: "failed",
        ReleaseState.HELD: "pending",
        ReleaseState.CANCELLED: "canceled",
        ReleaseState.WITHDRAWN: "failed",
    },
}


class NotDelivered(InfrastructureError):
    """A message was not taken. `pause`: how many seconds the other side asks to be left alone; None: it does not."""

    def __init__(self, message: str, *, pause: float | None = None) -> None:
        self.pause = pause
        super().__init__(message)


@dataclass(frozen=True)
class Sender:
    """What sends messages for one site."""

    settings: Settings

    def send(self, endpoint: Endpoint, one: Notification, subject: Subject | None = None) -> None:
        """Send a message; `subject`: the release whose status is told. Raises NotDelivered and InfrastructureError."""
        match endpoint:
            case WebhookEndpoint():
                self._webhook(endpoint, one)
            case ChatEndpoint():
                text = f"{wording.sentence(one.content)}\n{one.content['url']}"
                self._post(endpoint.address(), json.dumps({"text": text}).encode(), {})
            case MailEndpoint():
                self._mail(endpoint, one)
            case ForgeEndpoint():
                assert subject is not None
                self._status(endpoint, subject)

    def _webhook(self, endpoint: WebhookEndpoint, one: Notification) -> None:
        body = json.dumps({"id": one.key, **one.content}, ensure_ascii=False, sort_keys=True).encode()
        now = str(int(time.time()))
        headers = {
            "Webhook-Id": one.key,
            "Webhook-Timestamp": now,
            "Webhook-Signature": sign(secret(endpoint.secret_file), one.key, now, body),
        }
        self._post(endpoint.url, body, headers)

    def _status(self, endpoint: ForgeEndpoint, subject: Subject) -> None:
        repository = endpoint.repository(subject.url)
        if repository is None:
            return
        token = secret(endpoint.token_file)
        path, headers = quote(repository), {"Authorization": f"Bearer {token}"}
        state = _STATES.get(endpoint.kind, _STATES[Forge.GITHUB])[subject.state]
        about = {
            "state": state,
            "target_url": release_url(self.settings.web_url, subject.product, subject.ref),
            "description": _cut(wording.harmless(f"{subject.state}: {subject.why}" if subject.why else subject.state)),
        }
        name = f"cleanroom/{wording.harmless(subject.ref, 60)}"
        match endpoint.kind:
            case Forge.GITHUB:
                headers |= {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
                place, about = f"repos/{path}/statuses/{subject.commit}", {**about, "context": name}
            case Forge.GITLAB:
                headers = {"PRIVATE-TOKEN": token}
                place = f"projects/{quote(repository, safe='')}/statuses/{subject.commit}"
                about = {**about, "name": name}
            case Forge.GITEA:
                headers = {"Authorization": f"token {token}"}
                place, about = f"repos/{path}/statuses/{subject.commit}", {**about, "context": name}
        try:
            self._post(f"{endpoint.interface}/{place}", json.dumps(about).encode(), headers)
        except NotDelivered as error:
            # GitLab does not let a status become what it is.
            if endpoint.kind is not Forge.GITLAB or "Cannot transition status" not in error.message:
                raise

    def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """POST, and raise NotDelivered unless the answer is one of success. What it says otherwise is not read."""
        timeout = self.settings.number("notifications.timeout")
        headers = {"Content-Type": "application/json", "User-Agent": _AGENT, **headers}
        try:
            # What is signed for one place is not sent on to another.
            with requests.post(
                url, body, headers=headers, timeout=timeout, allow_redirects=False, stream=True
            ) as answer:
                if not 200 <= answer.status_code < 300:
                    said = answer.raw.read(_EXCERPT, decode_content=False).decode(errors="replace")
                    raise NotDelivered(f"answered {answer.status_code}: {wording.harmless(said)}", pause=_pause(answer))
        except (requests.RequestException, OSError) as error:
            # Addresses of chat rooms are secrets, and stand in what the library says.
            raise NotDelivered(f"not reached: {type(error).__name__}") from error

    def _mail(self, endpoint: MailEndpoint, one: Notification) -> None:
        settings = self.settings
        host = socket.getfqdn()
        message = EmailMessage()
        message["Subject"] = wording.sentence(one.content)[:200]
        message["From"] = settings.optional("mail.sender") or f"cleanroom@{host}"
        message["To"] = ", ".join(endpoint.to)
        message["Date"] = format_datetime(one.created_at)
        # The same with every try, so that a mailbox which has it knows it again.
        message["Message-ID"] = f"<{one.key}@{host}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(wording.text(one.content))
        try:
            with self._mail_server() as server:
                user, password = settings.optional("mail.user"), settings.optional("mail.password")
                if user is not None:
                    server.login(user, password or "")
                refused = server.send_message(message)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise NotDelivered(wording.harmless(f"not taken by the mail server: {error}")) from error
        if refused:
            raise NotDelivered(wording.harmless(f"not taken for {', '.join(refused)}"))

    def _mail_server(self) -> smtplib.SMTP:
        settings = self.settings
        timeout, security = settings.number("notifications.timeout"), settings.text("mail.security")
        address: tuple[str, int] = (settings.text("mail.server"), settings.whole("mail.port"))
        if security == "tls":
            return smtplib.SMTP_SSL(*address, timeout=timeout, context=ssl.create_default_context())
        server = smtplib.SMTP(*address, timeout=timeout)
        if security == "starttls":
            server.starttls(context=ssl.create_default_context())
        return server


def sign(key: str, identity: str, timestamp: str, body: bytes) -> str:
    """A signature over identity, time and body, as the Standard Webhooks specification has it."""
    # A key that begins so is encoded; any other is taken as it is.
    raw = base64.b64decode(key.removeprefix("whsec_")) if key.startswith("whsec_") else key.encode()
    signed = hmac.new(raw, f"{identity}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def _pause(answer: requests.Response) -> float | None:
    asked: Any = answer.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_PAUSE) if asked.isdecimal() else None


def _cut(text: str) -> str:
    return text if len(text) <= _DESCRIPTION else f"{text[: _DESCRIPTION - 3]}..."
