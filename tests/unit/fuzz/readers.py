"""Everything that reads what a guest, a forge or a person can write, each in one form: bytes in, nothing bad out."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleanroom_base import log_records, masking, settings
from cleanroom_base.errors import CleanroomError, InputError, ProductError
from cleanroom_base.run import Completed
from cleanroom_db import ref_events
from cleanroom_db.states import Forge
from cleanroom_master import log_lines, needs, repository_addresses, security
from cleanroom_master.cli.frame import harmless
from cleanroom_master.conflicts import contents
from cleanroom_master.notifications import endpoints
from cleanroom_master.provenance import checking
from cleanroom_master.publish import control, envelope, inspect
from cleanroom_master.refs import address, signatures
from cleanroom_master.refs import names as git_names
from cleanroom_master.web.terminal import rendered
from cleanroom_master.web.webhooks import forges
from cleanroom_recipes import events, loader, names, request
from cleanroom_workers import artifacts, declarations, failure_reason, installed, transfer
from cleanroom_workers.results import autopkgtest, files, junit, subunit, tap
from cleanroom_workers.results.case import BrokenResults
from cleanroom_workers.results.log import HARNESSES, LogReport
from cleanroom_workers.step_output import StepOutput

_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"


@dataclass(frozen=True)
class Reader:
    """`read` is given bytes and raises one of `refuses` for what it does not take; `pieces` are words of its format.

    `costs`: how many ordinary readers it takes as long as, where it starts programs.
    """

    read: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...] = (InputError,)
    pieces: tuple[bytes, ...] = ()
    costs: int = 1


READERS: dict[str, Reader] = {}


def reader(name: str, **more: Any) -> Callable[[Callable[[bytes], object]], Callable[[bytes], object]]:
    """Note a reader by its name, which is that of its part of the corpus."""

    def note(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
        READERS[name] = Reader(read, **more)
        return read

    return note


def text(content: bytes) -> str:
    """What a program gets that reads text: some of it cannot be UTF-8."""
    return content.decode(errors="surrogateescape")


def plain(content: bytes) -> str:
    """Text as it comes out of a file that was decoded with replacements."""
    return content.decode(errors="replace")


# -- what a worker says, and what it is told -------------------------------------------------------------------------


@reader(
    "event",
    pieces=(b'{"event":', b'"tests"', b'"cases":[', b"NaN", b"1e999", b'"at":"2030-01-01T00:00:00Z"', b"null", b"}"),
)
def read_event(content: bytes) -> None:
    found = events.decode(content)
    assert events.decode(events.encode(found)) == found


@reader("request", pieces=(b'"phase":', b'"steps":[', b'"inputs"', b"-1", b"1e400", b"[[", b'"\\ud800"'))
def read_request(content: bytes) -> None:
    found = request.decode(content)
    assert request.decode(request.encode(found)) == found


# -- what programs print ---------------------------------------------------------------------------------------------

_SEQUENCES = (b"\x1b[31m", b"\x1b[38;5;196m", b"\x1b]0;title\x07", b"\x1b[2J", b"\r", b"\x9b31m", b"<script>", b"\xc3")


@reader("ansi-page", pieces=_SEQUENCES)
def read_ansi_for_a_page(content: bytes) -> None:
    html = str(rendered(content.replace(b"\n", b"")))
    rest = re.sub(r'<span class="[a-z0-9 -]+">|</span>', "", html)
    assert not re.search(r'[<>"]', rest)
    assert html.count("<span") == html.count("</span>")
    assert not re.search(_CONTROL, html)


@reader("ansi-terminal", pieces=_SEQUENCES)
def read_ansi_for_a_terminal(content: bytes) -> None:
    half = len(content) // 2
    shown = "".join(harmless([content[:half], content[half:]]))
    assert all(c in "\n\t" or c.isprintable() for c in shown)


@reader("log-lines", pieces=(b"error:", b"\n", b"\x00", b"FAILED", b"Traceback", b"\xff"))
def read_log_lines(content: bytes) -> None:
    parts = [content[at : at + 7] for at in range(0, len(content), 7)]
    found = log_lines.errors(log_lines.blocks(parts))
    assert found.count >= len(found.lines)
    shown = log_lines.page(log_lines.blocks(parts), 1, 20)
    assert [line.number for line in shown] == list(range(1, len(shown) + 1))


@reader("step-output", pieces=(*_SEQUENCES, b"E: ", b"error: ", b"\n", b"\x00"))
def read_step_output(content: bytes) -> None:
    told: list[events.Event] = []
    output = StepOutput("step", told.append)
    for at in range(0, len(content), 11):
        output.feed(content[at : at + 11])
    output.close()
    assert all(events.decode(events.encode(one)) == one for one in told)
    for why in (failure_reason.why(output.tail, status=1, step="step"), failure_reason.skip_reason(output.tail)):
        # It is made harmless where it is shown, as all such text.
        assert len(why) <= events.WHY_LIMIT and len(why.splitlines()) <= 1 and log_records.printable(why).isprintable()
    failure_reason.source_is_away(output.tail, 100)
    failure_reason.repository_is_away(output.tail)
    failure_reason.mirror_is_down(output.tail)


@reader(
    "log-record", refuses=(), pieces=(b'{"time":', b'"level"', b'"2030-01-01T00:00:00Z"', b'"correlation"', b"9" * 20)
)
def read_log_record(content: bytes) -> None:
    found = log_records.read(plain(content))
    if found is not None:
        assert all(line.isprintable() for line in log_records.readable(found).split("\n"))
    assert isinstance(masking.masked(plain(content)), str)


# -- control files and packages --------------------------------------------------------------------------------------

_FIELDS = (
    b"Package: x\n",
    b"Source:",
    b"Version: 1:1\n",
    b" .\n",
    b"\n\n",
    b"\t",
    b"#",
    b"Checksums-Sha256:\n",
    b"%s ",
)


@reader("control", pieces=_FIELDS)
def read_control_data(content: bytes) -> None:
    fields = control.parse(content)
    assert control.parse(control.write(fields).encode()) == fields


@reader("changes", pieces=(*_FIELDS, b"Files:\n", b" 0 0 ../x\n", b"Architecture: source\n"))
def read_changes(content: bytes) -> None:
    fields = artifacts._fields(plain(content))
    assert all(name == name.lower() for name in fields)
    artifacts._listed(fields)
    security.evidence(plain(content), plain(content))


@reader("buildinfo", pieces=(*_FIELDS, b"Installed-Build-Depends:\n", b" libc6 (= 2), \n", b" x:amd64 (=1)"))
def read_buildinfo(content: bytes) -> None:
    assert all(names.is_name(names.DEBIAN_PACKAGE, name) for name in needs.used(plain(content)))
    assert all(names.is_name(names.DEBIAN_PACKAGE, name) for name in needs.named(plain(content)))


@reader(
    "declaration", pieces=(*_FIELDS, b"Build-Depends: a (>= 1) [amd64] <!x> | b,\n", b"Build-Conflicts:", b"Testsuite:")
)
def read_declaration(content: bytes) -> None:
    found = declarations.declared_in(plain(content))
    assert found is None or all("\n" not in value and value.isprintable() for value in found.values())


@reader("source-tar", refuses=(), pieces=(b"debian/control\0", b"ustar\x0000", b"\0" * 512, b"0000644\0"))
def read_source_tar(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        declarations.suites(Path(file.name), ("autopkgtest",))


@reader("guest-files", refuses=(CleanroomError,), pieces=(b"output/../x\0", b"/etc\0", b"ustar\x0000", b"\0" * 512))
def read_files_of_a_guest(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        inside = Path(place, "inside")
        for path in transfer.unpack(io.BytesIO(content), inside, top="output", limit=1 << 16):
            assert path.resolve().is_relative_to(inside.resolve()) and not path.is_symlink()
        assert [one.name for one in Path(place).iterdir()] in ([], ["inside"])


class _Guest:
    def __init__(self, printed: bytes) -> None:
        self._printed = printed

    def run(self, command: Any, *, timeout: float, output_limit: int | None = None) -> Completed:
        return Completed(tuple(command), 0, self._printed, b"", 0.0)


@reader("installed", refuses=(), pieces=(b"installed a 1\n", b"installed ", b"\n", b"rpm:", b"\x1b", b" " * 3))
def read_installed(content: bytes) -> None:
    found = installed.packages(_Guest(content), rpm=True)
    if found:
        event = events.Installed(events.now(), found)
        assert events.decode(events.encode(event)) == event


def _package(name: str, read: Callable[[Path], object], content: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, name)
        file.write_bytes(content)
        read(file)


@reader(
    "deb", refuses=(CleanroomError,), pieces=(b"!<arch>\n", b"debian-binary   ", b"control.tar.xz", b"`\n"), costs=30
)
def read_deb(content: bytes) -> None:
    _package("tiny_1.0_amd64.deb", inspect.inspect, content)


@reader("deb-contents", refuses=(CleanroomError,), pieces=(b"!<arch>\n", b"data.tar", b"`\n", b"\0" * 9), costs=30)
def read_deb_contents(content: bytes) -> None:
    _package("tiny_1.0_amd64.deb", lambda file: contents.read(file, "deb"), content)


@reader("dsc", refuses=(CleanroomError,), pieces=(*_FIELDS, b"Files:\n d41d8cd98f00b204e9800998ecf8427e 0 a\n"))
def read_source_package(content: bytes) -> None:
    _package("tiny_1.0.dsc", inspect.inspect, content)


@reader("rpm", refuses=(CleanroomError,), pieces=(b"\xed\xab\xee\xdb", b"\x8e\xad\xe8\x01", b"\0\0\0\x3e"), costs=30)
def read_rpm(content: bytes) -> None:
    _package("tiny-1.0-1.noarch.rpm", lambda file: inspect.check_rpm(file, file.name), content)


@reader(
    "rpm-contents", refuses=(CleanroomError,), pieces=(b"\xed\xab\xee\xdb", b"\x8e\xad\xe8\x01", b"\0" * 9), costs=60
)
def read_rpm_contents(content: bytes) -> None:
    _package("tiny-1.0-1.noarch.rpm", lambda file: contents.read(file, "rpm"), content)


# -- results of tests ------------------------------------------------------------------------------------------------


def _cases(cases: Any) -> None:
    found = list(cases)
    for one in found:
        assert 0 < len(one.name) <= events.NAME_LIMIT and one.name.isprintable()
        assert one.message is None or 0 < len(one.message) <= events.MESSAGE_LIMIT
    for event in events.in_events(events.now(), "step", found):
        assert events.decode(events.encode(event)) == event


_XML = (
    b"<testsuite>",
    b"<testcase name='a'>",
    b"<failure message='m'>",
    b"<skipped/>",
    b"<!DOCTYPE a>",
    b"&x;",
    b"]]>",
)
for _name, _form, _pieces in (
    ("junit", junit, (*_XML, b"<?xml version='1.0' encoding='utf-16'?>", b"</testsuite>", b"time='-1e99'")),
    ("tap", tap, (b"ok 1 - a\n", b"not ok", b"# SKIP", b"1..9\n", b"  ---\n", b"Bail out!", b"99999999999999999999")),
    ("subunit", subunit, (b"\xb3\x28\x03", b"\x20", b"\xff\xff\xff", b"\0\0\0\0")),
    ("autopkgtest-summary", autopkgtest, (b"a PASS\n", b"* SKIP x\n", b"FAIL non-zero exit status 1\n", b" ")),
):
    READERS[_name] = Reader(
        lambda content, form=_form: _cases(form.read(io.BytesIO(content))), (BrokenResults,), _pieces
    )


@reader(
    "harness-log",
    refuses=(),
    pieces=(
        b"PASS: a\n",
        b"--- FAIL: T (0.1s)\n",
        b"test a ... ok\n",
        b"FAILED a.py::b - x\n",
        b"1/2 Test #1: a",
        b"ok 1\n",
    ),
)
def read_harness_log(content: bytes) -> None:
    report = LogReport((*HARNESSES, autopkgtest.Autopkgtest))
    for line in plain(content).split("\n"):
        report.take(line)
    _cases(case for group in report.groups() for case in group)


@reader("result-files", refuses=(), pieces=(b"report.xml\0", b"ustar\x0000", b"\0" * 512, b"<testsuite>", b"0000644\0"))
def read_result_files(content: bytes) -> None:
    _cases(files.Files().read(io.BytesIO(content)))


# -- what people and forges write ------------------------------------------------------------------------------------


@reader(
    "recipe", pieces=(b'builder = "deb"\n', b"[phases.build]\n", b"targets = [", b"[" * 50, b"nan", b"'''", b"\xff")
)
def read_recipe(content: bytes) -> None:
    found = loader.load(content, source="the recipe", name="tiny", url="https://example.org/tiny.git")
    assert loader.from_json(loader.to_json(found)) == found


@reader("ref", refuses=(), pieces=(b"refs/tags/", b"v1.0", b"..", b"\n", b"-", b"\xff", b"%2e", b"debian/1%1"))
def read_ref(content: bytes) -> None:
    shown = git_names.readable(content)
    assert 1 <= len(shown) <= git_names.LIMIT and shown.isascii() and shown.isprintable()
    assert (git_names.problem(content) is None) <= (ref_events.name_problem(shown) is None)
    version = names.version_of_tag(shown, name="tiny")
    assert version is None or re.fullmatch(names.VERSION, version)
    if version is not None:
        names.version_agrees(version, shown)


@reader("repository-address", pieces=(b"https://", b"ssh://git@", b"ext::", b"[::1", b"-oProxy", b":x", b"@", b"%00"))
def read_repository_address(content: bytes) -> None:
    repository_addresses.parts(text(content))
    repository_addresses.same(text(content), ["https://example.org/a.git"])
    masking.in_address(text(content))
    assert address.check(text(content), ("https", "ssh", "file")) in ("https", "ssh", "file")


@reader(
    "signed-tag", refuses=(), pieces=(b"-----BEGIN PGP SIGNATURE-----\n", b"-----BEGIN SSH SIGNATURE-----", b"tag v1\n")
)
def read_signed_tag(content: bytes) -> None:
    signatures.check(content, "v1", None)
    assert not re.search(r"^-----BEGIN PGP SIGNATURE-----$", signatures.unsigned(plain(content)), re.MULTILINE)


_HEADERS: Mapping[Forge, Mapping[str, str]] = {
    Forge.GITHUB: {"x-github-event": "push", "x-github-delivery": "1", "x-hub-signature-256": "sha256=é"},
    Forge.GITLAB: {"x-gitlab-event": "Push Hook", "x-gitlab-event-uuid": "1", "x-gitlab-token": "\udcff"},
    Forge.GITEA: {"x-gitea-event": "push", "x-gitea-delivery": "1", "x-gitea-signature": ""},
}


@reader("webhook", pieces=(b'"repository":', b'"pushed_at":', b"1e400", b"-1", b"[" * 30, b'"clone_url"', b"9" * 30))
def read_webhook(content: bytes) -> None:
    refused: list[InputError] = []
    for forge, headers in _HEADERS.items():
        signed = {**headers, next(reversed(headers)): text(content)}
        try:
            forges.verify(forge, signed, content, b"secret")
            raise AssertionError("an invented signature is none")
        except forges.NotSigned:
            pass
        try:
            forges.read(forge, headers, content)
        except InputError as error:
            refused.append(error)
    if len(refused) == len(_HEADERS):
        raise refused[0]


def _in_site(name: str, content: bytes, read: Callable[[settings.Settings], object]) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place, name).write_bytes(content)
        read(settings.load({"CLEANROOM_SITE": place, "CLEANROOM_STATE": place}))


@reader(
    "notifications", pieces=(b"[a]\n", b'kind = "chat"\n', b'url = "https://x"\n', b"events = [", b"[" * 50, b"\xff")
)
def read_notifications(content: bytes) -> None:
    _in_site(endpoints.FILE, content, endpoints.load)


@reader("settings", pieces=(b"[web]\n", b"port = ", b"99999999999999999999", b"nan", b'["a"]', b"[" * 50, b"gates.all"))
def read_settings(content: bytes) -> None:
    _in_site("cleanroom.toml", content, lambda found: found.web_url)


@reader("variable", pieces=(b"CLEANROOM_WEB_PORT=", b"\n", b"1e400", b"nan", b"9" * 30, b",", b"\xff", b"02:30"))
def read_variables(content: bytes) -> None:
    pairs = (line.partition("=") for line in text(content).split("\n"))
    settings.load({name: value for name, _, value in pairs})


@reader(
    "provenance",
    refuses=(InputError, ProductError),
    pieces=(b'{"payload":', b'"signatures":[{"sig":"YQ=="}]', b"[" * 30),
)
def read_provenance(content: bytes) -> None:
    opened = envelope.read(content)
    checking.summary(checking.parse(opened))


@reader("statement", pieces=(b'"subject":[{"digest":{"sha256":', b'"predicateType":', b'"_type":', b"null", b"[" * 30))
def read_statement(content: bytes) -> None:
    statement = checking.parse(envelope.Envelope(envelope.STATEMENT, content, (("", b""),)))
    checking.summary(statement)
    for subject in statement["subject"]:
        checking._bill(statement, subject)


@reader(
    "public-key", pieces=(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", b"\n\n", b"-----END", b"=AAAA\n", b"\xff", b"a")
)
def read_public_key(content: bytes) -> None:
    assert envelope.dearmored(content)
