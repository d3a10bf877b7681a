"""People who sign in to the web status, as their browsers do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from fastapi import FastAPI
from httpx2 import Response
from reading import Document
from starlette.testclient import TestClient

from cleanroom_base import settings as site_settings
from cleanroom_base.settings import Settings
from cleanroom_db import accounts, audit
from cleanroom_db.connection import Database
from cleanroom_db.states import AccountRole

# Their passwords.
PASSWORD = "correct horse battery"
# As little work as possible: how much it is in earnest is a test of its own.
KEPT = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


def settings_of(place: Path, **variables: str) -> Settings:
    """The settings of a site that has none but these."""
    given = {"CLEANROOM_STATE": str(place), "CLEANROOM_SITE": str(place), "CLEANROOM_WEB_URL": "http://testserver"}
    return site_settings.load({**given, **variables})


def join(owner: Database, name: str, role: AccountRole | None = None, product: str | None = None) -> None:
    """An account, with a role."""
    accounts.add(owner, name, actor="root", password=KEPT)
    if role is not None:
        accounts.grant(owner, name, role, product, actor="root")


class Person:
    """Somebody with a browser of his own."""

    def __init__(self, application: FastAPI) -> None:
        self.web = TestClient(application, follow_redirects=False)

    def page(self, address: str, status: int = 200) -> Document:
        """A page, taken apart."""
        answer = self.web.get(address)
        assert answer.status_code == status, (answer.status_code, answer.text[-2000:], answer.headers)
        return Document(answer.text)

    def page_with(self, address: str, headers: dict[str, str]) -> Document:
        """A page, as a program gets it that says who it is."""
        answer = self.web.get(address, headers=headers)
        assert answer.status_code == 200, answer.text[-2000:]
        return Document(answer.text)

    def fields(self, address: str, action: str) -> dict[str, str]:
        """What the form of a page that is sent to `action` says before somebody types."""
        page = self.page(address)
        assert action in [one.get("action") for one in page.all("form")], page.all("form")
        return {one["name"] or "": one.get("value") or "" for one in page.all("input") if one.get("name")}

    def send(self, action: str, fields: dict[str, str], **headers: str) -> Response:
        """Send a form as a browser does that shows a page of ours."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.web.post(action, data=fields, headers={"Origin": "http://testserver", **named})

    def sign_in(self, name: str, password: str = PASSWORD, then: str = "/") -> Response:
        """Fill in the form, and send it."""
        fields = self.fields(f"/sign-in?next={then}", "/sign-in")
        return self.send("/sign-in", {**fields, "name": name, "password": password})

    def act(self, address: str, **typed: str) -> Response:
        """Fill in the form of an action, and send it."""
        return self.send(address, {**self.fields(address, address), **typed})


def entries(owner: Database, **wanted: Any) -> list[Any]:
    """What the audit log has of some kind, oldest first."""
    return [
        one
        for one in reversed(audit.list_latest(owner))
        if all(getattr(one, name) == value for name, value in wanted.items())
    ]
