"""`cleanroom provenance`: how a package was built, and whether that is what was signed.

It needs no installation of Cleanroom: neither settings nor database are looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cleanroom_base.errors import InputError
from cleanroom_master.cli.frame import Commands, Context, printable
from cleanroom_master.provenance import checking
from cleanroom_master.provenance.checking import NoStatement
from cleanroom_master.publish import envelope
from cleanroom_master.publish.attachments import PROVENANCE

_KEY = "/etc/apt/keyrings/cleanroom.asc"


def register(commands: Commands) -> None:
    """Declare the verbs of `provenance`."""
    provenance = commands.noun("provenance", "where a published package comes from")
    check = provenance.verb(
        "verify",
        verify,
        "check that a package is what was signed, and say how it was built",
        "cleanroom provenance verify hello_2.10_amd64.deb --key cleanroom.asc"
        " --provenance https://packages.example.org/apt/pool/hello/0123456789abcdef/hello_2.10_amd64.deb.intoto.jsonl",
        about="Exit status 0: file, statement and signature belong together; 1: they do not; 2: there is no"
        " statement.\nNothing but the public key is needed; whose key it is, its fingerprint says.",
    )
    check.add_argument("file", type=Path, metavar="FILE", help="the package")
    check.add_argument("--key", default=_KEY, metavar="KEYFILE", help=f"public key of the repository (default {_KEY})")
    shown = provenance.verb(
        "show",
        show,
        "show a statement, without checking it",
        "cleanroom provenance show hello_2.10_amd64.deb --format json",
    )
    shown.add_argument("file", type=Path, metavar="FILE", help="the package, or the statement itself")
    for verb in (check, shown):
        verb.add_argument(
            "--provenance", metavar="FILE|URL", help=f"the signed statement (default: beside it, FILE{PROVENANCE})"
        )


def verify(context: Context, arguments: argparse.Namespace) -> None:
    """Check a package. Raises NotAuthentic (exit status 1)."""
    place = arguments.provenance or f"{arguments.file}{PROVENANCE}"
    key = _key(arguments.key)
    checking.digest(arguments.file)
    found = checking.verify(arguments.file, _statement(place), key)
    bill = checking.fetch_bill(place) if found.bill is not None else None
    if bill is not None:
        checking.check_bill(found, bill)
    told = checking.summary(found.statement)
    signatures = [{"fingerprint": one.fingerprint, "at": one.at} for one in found.signatures]
    data = {
        "file": found.file,
        "sha256": found.sha256,
        "verified": True,
        "signatures": signatures,
        **told,
        "phases": _phases(found.statement),
        "bill_of_materials": {"sha256": found.bill, "checked": bill is not None},
    }
    signed = [f"  signature holds  {one.fingerprint}, made {one.at:%Y-%m-%d %H:%M:%S} UTC" for one in found.signatures]
    lines = [
        f"{printable(found.file)} is what was signed",
        f"  digest holds     sha256 {found.sha256}",
        *signed,
        *_lines(told, found.statement),
        f"  contents         {_told(found.bill, checked=bill is not None)}",
    ]
    context.emit(data, "\n".join(lines))


def show(context: Context, arguments: argparse.Namespace) -> None:
    """Show a statement as it is."""
    if arguments.provenance is None and arguments.file.name.endswith(PROVENANCE):
        place = str(arguments.file)
    else:
        place = arguments.provenance or f"{arguments.file}{PROVENANCE}"
    statement = checking.parse(envelope.read(_statement(place)))
    names = ", ".join(printable(str(one.get("name"))) for one in statement["subject"])
    lines = [f"{names} (not verified)", *_lines(checking.summary(statement), statement)]
    context.emit(statement, "\n".join(lines))


def _statement(place: str) -> bytes:
    try:
        return checking.fetch(place)
    except NoStatement as error:
        raise NoStatement(
            f"there is no signed statement: {error.message}",
            hint=f"the package's address with {PROVENANCE} after it has it: give it with --provenance",
        ) from error


def _key(place: str) -> bytes:
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the key {place}: {error}",
            hint="--key names the public key of the repository, which it has at keys/cleanroom.asc",
        ) from error


def _phases(statement: Mapping[str, Any]) -> list[dict[str, Any]]:
    phases = envelope.fields(statement, "predicate.runDetails.cleanroom_phases")
    names = ("name", "replay", "outcome", "isolation")
    return [
        {**{name: one.get(name) for name in names}, "tests": one.get("tests")}
        for one in (phases if isinstance(phases, list) else ())
        if isinstance(one, dict)
    ]


def _lines(told: Mapping[str, Any], statement: Mapping[str, Any]) -> list[str]:
    known = {name: printable(str(value)) for name, value in told.items() if value is not None}
    lines = [
        f"  {words:<15}  {', '.join(known[name] for name in names if name in known)}"
        for words, names in (
            ("product", ("product", "ref", "target")),
            ("repository", ("repository",)),
            ("commit", ("commit",)),
            ("asked by", ("recorded_by",)),
            ("builder", ("builder",)),
            ("built", ("started_at", "finished_at")),
        )
        if any(name in known for name in names)
    ]
    for phase in _phases(statement):
        words = [printable(str(phase[name])) for name in ("name", "outcome", "isolation") if phase[name]]
        tests = phase["tests"]
        counts = (
            [f"{tests[word]} {word}" for word in ("passed", "failed", "skipped") if tests.get(word)] if tests else []
        )
        lines.append(f"  phase            {' '.join(words)}{f' ({printable(chr(44).join(counts))})' if counts else ''}")
    return lines


def _told(bill: str | None, *, checked: bool) -> str:
    if bill is None:
        return "the statement names no bill of materials"
    return f"bill of materials {'holds' if checked else 'was not there to be checked'}, sha256 {bill}"
