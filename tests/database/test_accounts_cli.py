"""Accounts, tokens and the audit log on the command line; what scripts read of them is frozen."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from database_server import add_product

from cleanroom_db import accounts, audit
from cleanroom_db.connection import Database
from cleanroom_db.states import AccountRole
from cleanroom_master import cli, passwords

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def administered(owner: Database, site: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A site with a product, whose administrator is root."""
    add_product(owner)
    monkeypatch.setenv("LOGNAME", "root")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    """Say something on the command line; returns the status, and what it answers a script or says is wrong."""

    def ask(*words: str) -> tuple[int, Any]:
        status = cli.run([*words, "--format", "json"])
        told = capsys.readouterr()
        return status, json.loads(told.out) if told.out else told.err

    return ask


def test_accounts(ask: Any, owner: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ("--password-file", str(tmp_path / "password"))
    assert ask("account", "list") == (0, [])
    status, anna = ask("account", "add", "anna", "--role", "manager", "--product", "hello", *file)
    assert status == 0
    assert list(anna) == ["name", "grants", "signs_in_by", "openid_subject", "created_at", "created_by"]
    assert anna["grants"] == [{"role": "manager", "product": "hello"}]
    assert (anna["signs_in_by"], anna["created_by"]) == (["password"], "root")
    kept = accounts.get(owner, "anna").password
    assert passwords.matches(PASSWORD, kept)
    assert ask("account", "grant", "anna", "developer")[1]["grants"] == [
        {"role": "developer", "product": None},
        {"role": "manager", "product": "hello"},
    ]
    assert ask("account", "grant", "anna", "developer")[0] == 0
    assert cli.run(["account", "list"]) == 0
    assert "developer, manager (hello)" in capsys.readouterr().out
    assert ask("account", "revoke", "anna", "developer")[1]["grants"] == [{"role": "manager", "product": "hello"}]
    (tmp_path / "password").write_text("another long password")
    assert ask("account", "password", "anna", *file) == (0, {"changed": "anna"})
    assert not passwords.matches(PASSWORD, accounts.get(owner, "anna").password)
    assert ask("account", "remove", "anna") == (0, {"removed": "anna"})
    assert ask("account", "list") == (0, [])
    status, trail = ask("audit", "list", "--subject", "anna")
    assert [one["action"] for one in reversed(trail)] == [
        *("account add", "account grant", "account grant", "account revoke", "account password", "account remove")
    ]
    assert list(trail[0]) == ["at", "actor", "action", "subject", "allowed", "reason", "written_by", "detail"]


def test_an_account_of_a_provider_has_no_password(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "openid.issuer" in ask("account", "add", "anna", "--openid", "24")[1]
    monkeypatch.setenv("CLEANROOM_OPENID_ISSUER", "https://login.example")
    status, anna = ask("account", "add", "anna", "--openid", "24")
    assert (status, anna["signs_in_by"], anna["openid_subject"]) == (0, ["openid"], "24")
    status, told = ask("account", "add", "bob", "--openid", "24")
    assert (status, "has the account 'anna'" in told) == (2, True)


def test_tokens(ask: Any, owner: Database) -> None:
    accounts.add(owner, "anna", actor="root")
    status, made = ask("token", "add", "anna", "ci", "--role", "developer", "--product", "hello", "--days", "30")
    assert (status, list(made)) == (0, ["account", "name", "role", "product", "expires_at", "token"])
    assert made["token"].startswith("cleanroom_")
    status, [listed] = ask("token", "list", "anna")
    assert list(listed) == [
        *("account", "name", "role", "product", "expires_at", "used_at", "created_at", "created_by")
    ]
    assert made["token"] not in json.dumps(listed)
    assert ask("token", "revoke", "anna", "ci") == (0, {"revoked": "ci", "account": "anna"})
    assert ask("token", "list") == (0, [])
    assert [one.action for one in audit.list_latest(owner, "anna ci")] == ["token revoke", "token add"]
    assert made["token"] not in json.dumps(ask("audit", "list")[1])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("account add Anna --password-file FILE", "cannot be an account's name"),
        ("account add bob --password-file FILE", "there is an account 'bob' already"),
        ("account add anna --password-file SHORT", "from 10 to 1024 characters"),
        ("account add anna --password-file /nowhere", "cannot read"),
        ("account add anna", "--password-file"),
        ("account add anna --product hello --password-file FILE", "--role"),
        ("account add anna --role reader --product nothing --password-file FILE", "there is no product"),
        ("account remove anna", "there is no account"),
        ("account password anna --password-file FILE", "there is no account"),
        ("account grant anna reader", "there is no account"),
        ("account grant bob reader --product nothing", "there is no product"),
        ("account revoke bob reader", "has no grant"),
        ("token add anna ci", "there is no account"),
        ("token add bob CI!", "cannot be a token's name"),
        ("token add bob ci --days 0", "1 to 3660 days"),
        ("token add bob ci --product nothing", "there is no product"),
        ("token revoke bob ci", "has no token"),
        ("token list anna", "there is no account"),
    ],
)
def test_bad_input_changes_nothing(
    ask: Any, owner: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    accounts.add(owner, "bob", actor="root")
    (tmp_path / "short").write_text("short\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    before = len(audit.list_latest(owner))
    places = {"FILE": str(tmp_path / "password"), "SHORT": str(tmp_path / "short")}
    status, said = ask(*(places.get(word, word) for word in words.split()))
    assert status == 2
    assert told in said
    assert [holder.name for holder in accounts.list_all(owner)] == ["bob"]
    assert len(audit.list_latest(owner)) == before


def test_a_password_is_read_from_standard_input(ask: Any, owner: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\r\n"))
    assert ask("account", "add", "anna", "--role", "administrator", "--password-file", "-")[0] == 0
    assert passwords.matches(PASSWORD, accounts.get(owner, "anna").password)
    [holder] = accounts.list_all(owner)
    assert holder.may(AccountRole.READER, "hello")
