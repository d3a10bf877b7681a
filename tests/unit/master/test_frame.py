"""The frame of the command line: what people and scripts are shown, and how a command line is read."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from cleanroom_master import cli
from cleanroom_master.cli.frame import harmless, plain, printable, table
from cleanroom_recipes.model import Outcome

NOUNS = {
    "config": {"check", "show"},
    "host": {"list", "drain", "resume"},
    "product": {"add", "list", "show", "remove"},
    "ref": {"record", "list"},
    "release": {
        "list",
        "show",
        "wait",
        "watch",
        "retry",
        "approve",
        "hold",
        "compare",
        "waive",
        "conflicts",
        "promote",
        "withdraw",
    },
    "image": {"build", "import", "list", "show", "verify", "refresh", "remove"},
    "guest": {
        *("list", "reset", "exec", "shell", "console", "copy"),
        *("snapshot", "rollback", "verify", "destroy"),
    },
    "repository": {"show", "history", "diff", "rollback", "verify", "gc", "push", "key"},
    "repository key": {"list", "rotate", "retire", "extend"},
    "provenance": {"verify", "show"},
    "test": {"history"},
    "channel": {"test", "history"},
    "bisection": {"list", "show", "wait", "log", "cancel"},
    "account": {"add", "list", "remove", "password", "grant", "revoke"},
    "token": {"add", "list", "revoke"},
    "audit": {"list"},
    "webhook": {"list"},
    "notification": {"list", "retry", "endpoints"},
}
ALONE = {"up", "down", "status", "doctor", "demo", "bisect", "queue", "web"}
COMMANDS = [
    *([one] for one in sorted(ALONE)),
    *([*noun.split(), verb] for noun in sorted(NOUNS) for verb in sorted(NOUNS[noun]) if f"{noun} {verb}" not in NOUNS),
]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site that has nothing."""
    for name in [name for name in os.environ if name.startswith("CLEANROOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLEANROOM_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("CLEANROOM_SITE", str(tmp_path))
    return tmp_path


def _help(*words: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        cli.run([*words, "--help"])
    assert ended.value.code == 0
    return printed.getvalue()


# -- help --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(words: list[str]) -> None:
    text = _help(*words)
    example = text.partition("Example: ")[2]
    assert example.startswith((f"cleanroom {' '.join(words)}", "make ")), text
    assert "--format {table,json}" in text
    if example.startswith("cleanroom"):
        _parses(shlex.split(example)[1:])


def _parses(words: list[str]) -> None:
    arguments = cli._commands().parse(words)
    assert arguments.handler is not None


def test_the_commands_are_those_that_are_known_here() -> None:
    known = {line.split()[0] for line in _help().splitlines() if line.startswith("    ") and line[4] != " "}
    assert known == ALONE | {noun for noun in NOUNS if " " not in noun}
    for noun, verbs in NOUNS.items():
        assert {
            line.split()[0] for line in _help(*noun.split()).splitlines() if line.startswith("    ") and line[4] != " "
        } == verbs


@pytest.mark.parametrize("words", [[], ["nonsense"], ["release"], ["release", "show"], ["status", "--format", "xml"]])
def test_bad_usage_ends_with_2_and_a_hint(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.run(words)
    assert ended.value.code == 2
    assert "hint: cleanroom" in capsys.readouterr().err


# -- errors ------------------------------------------------------------------------------------------------------


def test_bad_input_ends_with_2(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["product", "add", "Not A Name", "https://example.org/x.git"]) == 2
    assert "cannot be a product's name" in capsys.readouterr().err


def test_bad_settings_end_with_2_and_every_problem(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLEANROOM_TYPO", "1")
    (site / "cleanroom.toml").write_text("[refs]\npoll = 0\n")
    assert cli.run(["config", "check"]) == 2
    error = capsys.readouterr().err
    assert "CLEANROOM_TYPO: unknown setting" in error
    assert "refs.poll: must be from" in error


def test_a_database_that_is_away_ends_with_3_and_what_to_do(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", f"postgresql://nobody@/none?host={site}")
    monkeypatch.setenv("CLEANROOM_DATABASE_WAIT", "0.1")
    assert cli.run(["release", "list"]) == 3
    error = capsys.readouterr().err
    assert error.startswith("cleanroom: ")
    assert "Traceback" not in error


def test_a_reader_that_goes_away_is_no_error(site: Path) -> None:
    program = "from cleanroom_master.cli import main; main(['config', 'show', '--format', 'json'])"
    first, second = os.pipe()
    os.close(first)
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=second, stderr=subprocess.PIPE, timeout=60, check=False, text=True
    )
    os.close(second)
    assert (done.returncode, done.stderr) == (0, "")


# -- what is shown -----------------------------------------------------------------------------------------------


def test_scripts_get_json(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "check", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"valid": True, "site": str(site), "state": str(site / "state")}


def test_no_secret_is_shown(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", "postgresql://cleanroom:swordfish@localhost/cleanroom")
    assert cli.run(["config", "show", "--format", "json"]) == 0
    out = capsys.readouterr().out
    assert "swordfish" not in out
    [row] = [row for row in json.loads(out) if row["key"] == "database.url"]
    assert row == {
        "key": "database.url",
        "value": "(set)",
        "variable": "CLEANROOM_DATABASE_URL",
        "meaning": row["meaning"],
    }


def test_a_table_is_aligned_under_its_column_names() -> None:
    rows = [
        {"name": "a", "reset_seconds": 1.234, "built": True},
        {"name": "longer", "reset_seconds": None, "built": False},
    ]
    assert table(rows, ["name", "reset_seconds", "built"]).splitlines() == [
        "NAME    RESET SECONDS  BUILT",
        "a       1.23           yes",
        "longer  -              no",
    ]


@pytest.mark.parametrize(
    "hostile", ["\x1b[2Jgone", "two\nlines", "back\rwards", "bell\x07", "\u202eright to left", "\x9b31m", "\x00"]
)
def test_nothing_steers_the_terminal(hostile: str) -> None:
    assert all(character.isprintable() for character in printable(hostile))
    assert len(table([{"why": hostile}], ["why"]).splitlines()) == 2
    assert printable("grün → 漢字 ok") == "grün → 漢字 ok"


def test_what_was_printed_stays_lines_and_steers_nothing() -> None:
    printed = "one\r\r\ntwo\t\x1b[2J [\x1b[0;32m OK \x1b[0m] grün\rback\x9b31m\r\n".encode() + b"\xff\n\x1b["
    expected = "one\ntwo\t\\x1b[2J [ OK ] grün\\rback\\x9b31m\n\ufffd\n\\x1b["
    assert "".join(harmless([printed])) == expected
    # However it was cut into pieces.
    assert "".join(harmless(bytes([byte]) for byte in printed)) == expected


def test_json_knows_our_values() -> None:
    moment = datetime(2030, 1, 31, 13, tzinfo=timezone(timedelta(hours=1)))
    assert plain({"at": moment, "outcome": Outcome.PASSED, "path": Path("/x"), "all": (1, {2})}) == {
        "at": "2030-01-31T12:00:00Z",
        "outcome": "passed",
        "path": "/x",
        "all": [1, [2]],
    }
    assert plain(datetime(2030, 1, 31, 12, tzinfo=UTC)) == "2030-01-31T12:00:00Z"
