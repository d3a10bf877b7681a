"""Manual pages and completion say all that the command line says, and their readers find nothing wrong with them."""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest
from surroundings import variables

from cleanroom_master import cli
from cleanroom_master.cli import manual
from cleanroom_workers import command as worker

SHELLS = {
    "bash": "bash-completion/completions/",
    "zsh": "zsh/vendor-completions/_",
    "fish": "fish/vendor_completions.d/",
}


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("share")
    assert manual.main([str(directory)]) == 0
    return directory


@pytest.fixture(scope="module")
def pages(share: Path) -> dict[str, str]:
    return {page.stem: read(page) for page in (share / "man/man1").iterdir()}


def words(command: argparse.ArgumentParser) -> list[str]:
    return [word for action in command._actions for word in action.option_strings if word not in ("-h", "--help")]


def read(page: Path) -> str:
    """A page as man shows it, in one line a paragraph; what man warns of is an error."""
    shown = subprocess.run(
        ["man", "--warnings", "--local-file", page],
        capture_output=True,
        timeout=60,
        check=True,
        env={**variables(), "MANWIDTH": "4000", "LC_ALL": "C.UTF-8"},
    )
    assert shown.stderr == b"", page
    return re.sub(r".\x08", "", shown.stdout.decode())


def test_every_command_and_option_stands_in_its_manual_page(pages: dict[str, str]) -> None:
    checked = 0
    for parser in (cli.parser(), worker.parser()):
        for command in manual.commands(parser):
            noun = "-".join(command.prog.split()[:2])
            text = pages.get(noun, pages[parser.prog])
            section = text.split(f"\n   {command.prog}\n")[1].split("\n   c")[0]
            summary = (command.description or "").partition("\n")[0]
            assert summary, command.prog
            assert summary in section, command.prog
            for word in words(command):
                assert re.search(rf"^ {{7}}(-\S+.*, )?{word}\b", section, re.M), f"{command.prog} {word}"
            if command.epilog:
                assert command.epilog.splitlines()[0] in section
            checked += 1
    assert checked > 60


def test_pages_lead_to_each_other_and_say_what_an_exit_status_means(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        assert re.search(r"^ {7}3 +infrastructure$", text, re.M), name
        see_also = text.split("SEE ALSO")[1]
        assert set(re.findall(r"(\S+)\(1\)", see_also.rpartition("\n\n")[0])) == set(pages) - {name}
    assert "releases on their way; see cleanroom-release(1)" in pages["cleanroom"]


def test_a_page_has_the_date_of_its_source(share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    manual.write(tmp_path)
    assert '"1970\\-01\\-02"' in (tmp_path / "man/man1/cleanroom.1").read_text()


def test_what_would_be_a_request_to_the_typesetter_is_text() -> None:
    parser = argparse.ArgumentParser(prog="tool")
    verb = parser.add_subparsers().add_parser("go", description=".so /etc/passwd")
    verb.add_argument("--odd", help="'quoted' \\n back\\slash and `ticks` at 100 %%")
    text = manual.page(parser, ["other"])
    assert "\n\\&.so" in text
    assert "\\(aqquoted\\(aq \\en back\\eslash and \\(gaticks\\(ga at 100 %" in text


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_the_completion(share: Path, shell: str) -> None:
    for parser in (cli.parser(), worker.parser()):
        [file] = [file for file in share.glob(f"{SHELLS[shell]}{parser.prog}*") if file.stem.strip("_") == parser.prog]
        text = file.read_text()
        for command in manual.commands(parser):
            for word in [command.prog.split()[-1], *words(command)]:
                # fish has a long option without its dashes.
                assert re.search(rf"(?<![\w-]){word.lstrip('-') if shell == 'fish' else word}(?![\w-])", text), word


def test_bash_completes_commands_options_choices_and_files(share: Path, tmp_path: Path) -> None:
    completion = share / "bash-completion/completions/cleanroom"
    subprocess.run(["bash", "-n", completion], check=True, timeout=60)
    (tmp_path / "hello_2.10_amd64.deb").touch()
    with Shell(completion, tmp_path) as shell:
        assert shell.complete("cleanroom relea") == "cleanroom release "
        assert shell.complete("cleanroom release waiv") == "cleanroom release waive "
        assert shell.complete("cleanroom release waive --rea") == "cleanroom release waive --reason "
        assert shell.complete("cleanroom status --format js") == "cleanroom status --format json "
        assert shell.complete("cleanroom repository key rot") == "cleanroom repository key rotate "
        assert shell.complete("cleanroom provenance verify hel") == "cleanroom provenance verify hello_2.10_amd64.deb "


class Shell:
    """bash at a terminal."""

    def __init__(self, completion: Path, directory: Path) -> None:
        self._terminal, theirs = pty.openpty()
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=directory,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "PS1": "", "TERM": "dumb", "INPUTRC": "/dev/null"},
        )
        os.close(theirs)
        self._say("stty columns 500; bind 'set enable-bracketed-paste off'\n")
        self._say(f"source {completion}; echo rea''dy\n", until=r"\nready\r")

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(timeout=30)
        os.close(self._terminal)

    def complete(self, typed: str) -> str:
        """What a line becomes by the tabulator key."""
        # Then the line, whatever it is, becomes the text that `echo` prints.
        begin, end = "\x01", "\x05"
        return self._say(f"{typed}\t{begin}echo '<{end}>'\n", until=r"\n<(.*)>\r")

    def _say(self, keys: str, until: str = "") -> str:
        os.write(self._terminal, keys.encode())
        shown, ends = "", time.monotonic() + 30
        while until:
            if found := re.search(until, shown):
                return found[1] if found.groups() else found[0]
            assert time.monotonic() < ends, shown
            if select.select([self._terminal], [], [], 1)[0]:
                shown += os.read(self._terminal, 4096).decode(errors="replace")
        return ""
