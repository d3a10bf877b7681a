"""Writes manual pages and shell completion from what the command line itself declares.

`python -m cleanroom_master.cli.manual DIRECTORY` lays them out as a prefix's `share`. Whoever packages Cleanroom runs
it (or `make manual`); shtab, which writes the completion, is no part of an installation.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import shtab

from cleanroom_base.errors import InputError
from cleanroom_master import cli
from cleanroom_workers import command as worker

# Where each shell looks below `share`. Sources: bash-completion's README, Debian's zsh and fish.
COMPLETIONS = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/vendor-completions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}
_PAGES = "man/man1/{}.1"

# What an argument is called where its value is a file here.
_FILES = ("FILE", "FILE|URL", "KEYFILE", "PRODUCT.toml", "REQUEST.json", "SOURCE", "TARGET")
# man(7): what would be an escape, a hyphen where a minus is meant, or a typographic quote.
_ESCAPES = str.maketrans(
    {
        "\\": r"\e",
        "-": r"\-",
        "'": r"\(aq",
        "`": r"\(ga",
        "~": r"\(ti",
        "^": r"\(ha",
        '"': r"\(dq",
        "\N{EM DASH}": r"\(em",
    }
)
_EXIT_STATUS = {
    "0": "done, or passed",
    "1": "the product failed, or what was asked about does not hold",
    "2": "usage or bad input",
    "3": "infrastructure",
    "4": "it took longer than it may",
}
_FILES_READ = {
    "/etc/cleanroom/cleanroom.toml": "the site's settings, which 'cleanroom config show' lists with their meaning;"
    " each is also an environment variable CLEANROOM_SECTION_KEY. CLEANROOM_SITE names another directory;"
    " for others than root it is ~/.config/cleanroom.",
    "/var/lib/cleanroom": "all that Cleanroom writes. CLEANROOM_STATE names another directory; for others than root"
    " it is ~/.local/state/cleanroom.",
}


def write(directory: Path) -> list[Path]:
    """Write all pages and completions below `directory`; returns the files."""
    parsers = (cli.parser(), worker.parser())
    written = []
    for parser in parsers:
        others = [page for other in parsers for page in _with_pages(other)]
        for of_page in _with_pages(parser):
            see_also = [_title(other) for other in others if other is not of_page]
            written.append(_put(directory / _PAGES.format(_title(of_page)), page(of_page, see_also)))
        _complete_files(parser)
        for shell, place in COMPLETIONS.items():
            written.append(_put(directory / place.format(parser.prog), shtab.complete(parser, shell=shell)))
    return written


def page(parser: argparse.ArgumentParser, see_also: Sequence[str]) -> str:
    """The manual page of a command, or of one of its nouns, for man(7)."""
    whole = not parser.prog.partition(" ")[2]
    version = metadata.version("cleanroom")
    lines = [
        f'.TH "{_escaped(_title(parser).upper())}" "1" "{_date()}" "cleanroom {version}" "Cleanroom"',
        ".SH NAME",
        f"{_escaped(_title(parser))} \\- {_escaped(_summary(parser).rstrip('.'))}",
        ".SH SYNOPSIS",
        *_usage(parser),
        ".SH COMMANDS",
    ]
    for command in commands(parser):
        if whole and _with_own_page(command, parser):
            continue
        lines += [f'.SS "{_escaped(command.prog)}"', *_usage(command), *_body(command)]
    if whole and (nouns := _with_pages(parser)[1:]):
        lines += [".SH FURTHER COMMANDS", "Each has a page of its own."]
        lines += _listed({noun.prog: f"{_summary(noun)}; see {_title(noun)}(1)" for noun in nouns})
    lines += [".SH EXIT STATUS", *_listed(_EXIT_STATUS)]
    lines += [".SH FILES", *_listed(_FILES_READ)]
    lines += [".SH SEE ALSO", *(f".BR {_escaped(name)} (1)," for name in sorted(see_also)[:-1])]
    lines.append(f".BR {_escaped(max(see_also))} (1)")
    return "\n".join(lines) + "\n"


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """What can be said right after the parser's own words. (argparse has no public way to ask.)"""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """All complete commands below `parser`."""
    for each in verbs(parser).values():
        if verbs(each):
            yield from commands(each)
        else:
            yield each


def _with_pages(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The command itself, and its nouns."""
    return [parser, *(noun for noun in verbs(parser).values() if verbs(noun))]


def _with_own_page(command: argparse.ArgumentParser, whole: argparse.ArgumentParser) -> bool:
    return any(command.prog.startswith(f"{noun.prog} ") for noun in _with_pages(whole)[1:])


def _title(parser: argparse.ArgumentParser) -> str:
    return parser.prog.replace(" ", "-")


def _summary(parser: argparse.ArgumentParser) -> str:
    return (parser.description or "").partition("\n")[0]


def _usage(parser: argparse.ArgumentParser) -> list[str]:
    words = " ".join(parser.format_usage().removeprefix("usage:").split())
    arguments = words.removeprefix(parser.prog).strip()
    # Neither hyphenated nor stretched: a person copies it.
    return [".nh", ".na", f"\\fB{_escaped(parser.prog)}\\fR {_escaped(arguments)}", ".ad", ".hy"]


def _body(command: argparse.ArgumentParser) -> list[str]:
    lines = [".PP", *_paragraphs(command.description or "")]
    formatter = command._get_formatter()
    for action in sorted(command._actions, key=lambda action: bool(action.option_strings)):
        if "--help" in action.option_strings or action.help == argparse.SUPPRESS:
            continue
        lines += [".TP", f"\\fB{_escaped(_invocation(action))}\\fR"]
        text = formatter._expand_help(action) if action.help else ""
        lines.append(_escaped(" ".join(text.split())) or "\\&")
    if command.epilog:
        lines += [".PP", ".EX", *(_escaped(line) for line in command.epilog.strip().splitlines()), ".EE"]
    return lines


def _invocation(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ", ".join(action.option_strings)
    choices = "{" + ",".join(str(each) for each in action.choices) + "}" if action.choices else None
    named = action.metavar or choices or (action.dest.upper() if action.option_strings else action.dest)
    value = " ".join(named) if isinstance(named, tuple) else named
    return f"{', '.join(action.option_strings)} {value}".strip()


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        lines += [".PP"] * bool(lines)
        lines.append(_escaped(" ".join(paragraph.split())))
    return lines


def _listed(meanings: dict[str, str]) -> list[str]:
    return [line for name, meaning in meanings.items() for line in (".TP", f".B {_escaped(name)}", _escaped(meaning))]


def _escaped(text: str) -> str:
    """Text for man(7); a line that begins like a request of its is none."""
    escaped = text.translate(_ESCAPES)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _date() -> str:
    """The day of the page: that of the source, where who builds a package says it."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return _escaped(f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}")


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Have shells offer files where a file is meant."""
    for command in [parser, *commands(parser)]:
        for action in command._actions:
            if action.metavar in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined] # as shtab wants it


def _put(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def main(arguments: Sequence[str] | None = None) -> int:
    """Write below the directory that is named."""
    parser = argparse.ArgumentParser(description="Write manual pages and completion for bash, zsh and fish.")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="is made; laid out as /usr/share")
    directory = parser.parse_args(arguments).directory
    try:
        write(directory)
    except OSError as error:
        sys.stderr.write(f"manual: cannot write {directory}: {error}\n")
        return InputError.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
