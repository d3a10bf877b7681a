"""Whom a site tells of what: a file that is right as a whole, or says all that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom_base import settings as site
from cleanroom_base.errors import InputError
from cleanroom_base.settings import Settings
from cleanroom_master.notifications import endpoints
from cleanroom_master.notifications.endpoints import ForgeEndpoint


def settings(directory: Path, text: str) -> Settings:
    """A site whose endpoints stand in a file."""
    (directory / endpoints.FILE).write_text(text)
    return site.load({"CLEANROOM_STATE": str(directory), "CLEANROOM_SITE": str(directory)})


def test_a_site_without_the_file_tells_nobody(tmp_path: Path) -> None:
    found = site.load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)})
    assert endpoints.load(found) == {}


def test_every_kind_is_read(tmp_path: Path) -> None:
    text = """
    [program]
    kind = "webhook"
    url = "https://example.org/hook/"
    secret_file = "/secret"
    products = ["lib*"]
    channels = ["stable"]
    events = ["published"]
    [room]
    kind = "chat"
    url_file = "/room"
    [people]
    kind = "email"
    to = ["anna@example.org"]
    [hub]
    kind = "github"
    url = "https://github.com"
    token_file = "/token"
    [lab]
    kind = "gitlab"
    url = "https://lab.example.org"
    token_file = "/token"
    """
    found = endpoints.load(settings(tmp_path, text))
    assert list(found) == ["program", "room", "people", "hub", "lab"]
    program = found["program"]
    assert program.wants("libfoo", "stable", None)
    assert not program.wants("libfoo", "testing", None)
    assert not program.wants("hello", "stable", ["room"])
    assert program.wants("hello", "stable", ["program"])
    hub, lab = found["hub"], found["lab"]
    assert isinstance(hub, ForgeEndpoint)
    assert isinstance(lab, ForgeEndpoint)
    assert (hub.interface, lab.interface) == ("https://api.github.com", "https://lab.example.org/api/v4")
    assert hub.repository("git@github.com:Anna/Tool.git") == "Anna/Tool"
    assert hub.repository("https://github.com.evil.example/anna/tool.git") is None


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = """
    loose = 1
    ["Not a name"]
    kind = "email"
    to = ["a@example.org"]
    [one]
    kind = "webhook"
    url = "file:///etc/passwd"
    [two]
    kind = "pigeon"
    [three]
    kind = "email"
    to = ["not an address"]
    colour = "red"
    [four]
    kind = "chat"
    [five]
    kind = "email"
    to = ["a@example.org"]
    events = ["status"]
    name = "six"
    """
    with pytest.raises(InputError) as raised:
        endpoints.load(settings(tmp_path, text))
    said = str(raised.value)
    for part in (
        "loose: must be a table",
        "'Not a name': must be a name",
        "one.url:",
        "one.secret_file:",
        "two:",
        "three.to.0:",
        "three.colour:",
    ):
        assert part in said, (part, said)
    assert "has either url or url_file" in said
    assert "five.events.0:" in said
