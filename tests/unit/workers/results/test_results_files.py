"""Result files: what real programs write, and what nobody should."""

from __future__ import annotations

import io
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_recipes.events import MESSAGE_LIMIT, NAME_LIMIT, TestCase
from cleanroom_recipes.model import Outcome
from cleanroom_workers.results import autopkgtest, files, junit, subunit, tap
from cleanroom_workers.results.case import BrokenResults, case

PASSED, FAILED, SKIPPED = Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED
SAMPLES = Path(__file__).parent / "samples"
FORMATS = [autopkgtest, junit, subunit, tap]


def found(form: object, content: bytes) -> tuple[list[TestCase], str]:
    """The cases of a file, and what is wrong with it."""
    cases: list[TestCase] = []
    try:
        for one in form.read(io.BytesIO(content)):
            cases.append(one)
    except BrokenResults as error:
        return cases, str(error)
    return cases, ""


def outcomes(form: object, content: bytes) -> dict[str, Outcome]:
    cases, wrong = found(form, content)
    assert not wrong
    return {one.name: one.outcome for one in cases}


def archive(members: Mapping[str, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


# -- formats -----------------------------------------------------------------------------------------------------


def test_junit_of_pytest() -> None:
    assert outcomes(junit, (SAMPLES / "pytest.junit.xml").read_bytes()) == {
        "tests.test_import": FAILED,
        "tests.test_sample.test_words[a b]": PASSED,
        "tests.test_sample.test_words[c[1] - x]": PASSED,
        "tests.test_sample.TestIt.test_bad": FAILED,
        "tests.test_sample.TestIt.test_net": SKIPPED,
        "tests.test_sample.test_later": PASSED,
        "tests.test_sample.test_surprise": PASSED,
        "tests.test_sample.test_setup": FAILED,
    }


def test_junit_of_surefire() -> None:
    cases, wrong = found(junit, (SAMPLES / "surefire.junit.xml").read_bytes())
    assert not wrong
    assert [(one.name, one.outcome, one.seconds, one.message) for one in cases] == [
        ("org.example.FirstTest.broken", FAILED, 0.141, "no disk"),
        ("org.example.FirstTest.bad", FAILED, 0.009, "expected: <1> but was: <2>"),
        ("org.example.FirstTest.off", SKIPPED, 0.0, "later"),
        ("org.example.FirstTest.good", PASSED, 0.002, None),
    ]


def test_junit_of_ctest_and_meson() -> None:
    of_ctest = outcomes(junit, (SAMPLES / "ctest.junit.xml").read_bytes())
    assert (of_ctest["good"], of_ctest["with space"], of_ctest["off"]) == (PASSED, FAILED, SKIPPED)
    of_meson = outcomes(junit, (SAMPLES / "meson.junit.xml").read_bytes())
    assert (of_meson["x.deep - x:bad one"], of_meson["x.x:tap.2 - b"], of_meson["x.x:skip"]) == (
        FAILED,
        FAILED,
        SKIPPED,
    )


def test_a_message_is_what_stands_in_the_element_where_no_attribute_says_it() -> None:
    content = (
        b"<testsuite><testcase name='a'><failure>  no &lt;b&gt;\n</failure><system-out>x</system-out></testcase>"
        b"</testsuite>"
    )
    assert [one.message for one in found(junit, content)[0]] == ["no <b>"]


def test_a_test_that_passed_when_it_was_run_again_is_flaky() -> None:
    content = b"<testsuite><testcase name='a'><flakyFailure message='no'/></testcase></testsuite>"
    assert outcomes(junit, content) == {"a": Outcome.FLAKY}


def test_subunit() -> None:
    cases, wrong = found(subunit, (SAMPLES / "sample.subunit").read_bytes())
    assert not wrong
    assert [(one.name, one.outcome, one.seconds, one.message) for one in cases] == [
        ("a.test_ok", PASSED, 1.5, None),
        ("a.test_bad", FAILED, 1.5, "AssertionError: boom"),
        ("a.test_skip", SKIPPED, 1.5, "no net"),
        ("a.test_xf", PASSED, 1.5, None),
        ("a.test_ux", FAILED, 1.5, None),
        ("a.test_hangs", FAILED, None, "began and did not end"),
    ]


def test_tap() -> None:
    content = b"TAP version 14\n1..3\nok - first\n    not ok 1 - inner\nnot ok 2 - second\n# why\nok 3 # skip no net\n"
    cases, wrong = found(tap, content)
    assert not wrong
    assert [(one.name, one.outcome, one.message, one.line) for one in cases] == [
        ("first", PASSED, None, None),
        ("second", FAILED, "why", None),
        ("test 3", SKIPPED, "no net", None),
    ]
    assert found(tap, b"1..3\nok 1 - a\n") == ([case("a", PASSED)], "planned 3 tests and has 1")


def test_autopkgtest_summary() -> None:
    content = (
        b"command PASS\nlib-x   FAIL stderr: warning\nbig SKIP needs a machine\nodd FLAKY x\n"
        b"* SKIP no tests\n\njunk\nx HUH"
    )
    assert [(one.name, one.outcome, one.message) for one in found(autopkgtest, content)[0]] == [
        ("command", PASSED, None),
        ("lib-x", FAILED, "stderr: warning"),
        ("big", SKIPPED, "needs a machine"),
        ("odd", SKIPPED, "x"),
    ]


# -- names -------------------------------------------------------------------------------------------------------


def test_names_stay_distinct_when_they_are_shortened() -> None:
    first, second = case("x" * 300 + "1", PASSED).name, case("x" * 300 + "2", PASSED).name
    assert first != second
    assert len(first) == len(second) == NAME_LIMIT
    assert case("x" * NAME_LIMIT, PASSED).name == "x" * NAME_LIMIT
    assert case(" ", PASSED).name == "(without a name)"


def test_what_could_deceive_a_reader_is_escaped() -> None:
    harmful = case("a\x1b[31mb\u202ec\nd é", PASSED, message="\x1b[31mred\x1b[0m\n\ttwo\u202e\x07")
    assert harmful.name == "a\\x1b[31mb\\u202ec\\x0ad é"
    assert harmful.message == "red\n\ttwo\\u202e\\x07"


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_time_that_cannot_be_is_none(seconds: float) -> None:
    assert case("a", PASSED, seconds=seconds).seconds is None


# -- hostile files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"<!DOCTYPE x [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><testsuite name='&b;'/>", "document type"),
        (b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'><testsuite/>", "document type"),
        (b"<project/>", "is no JUnit XML: it begins with 'project'"),
        (b"<testsuite>" + b"<a>" * 60, "more than 50 elements deep"),
        (b"<testsuite><testcase name='a'/><testcase name=", "not well-formed"),
        (b"<testsuite><testcase name='a'/>\xff\xfe</testsuite>", "not well-formed"),
        (b"<?xml version='1.0' encoding='nonsense'?><testsuite/>", "not well-formed"),
        (b"<?xml version='1.0' encoding='idna'?><testsuite/>", "not well-formed"),
        (b"<testsuite name='" + b"x" * (3 << 20), "more than 1048576 bytes"),
        (b"<testsuite><!-- " + b"x" * (3 << 20), "more than 1048576 bytes"),
    ],
)
def test_bad_xml_is_refused(content: bytes, wrong: str) -> None:
    assert wrong in found(junit, content)[1]


def test_what_stands_before_the_mistake_counts() -> None:
    cases, wrong = found(junit, b"<testsuite><testcase name='a'/><testcase name='b'><failure/></testsuite>")
    assert [one.name for one in cases] == ["a"]
    assert "not well-formed" in wrong


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"\xb3\x20\x00\x01" + b"\xff" * 20, "impossible length"),  # shorter than its own beginning
        (b"\xb3\x20\x00\xff\xff\xff\xff" + b"x" * 100, "impossible length"),  # a gigabyte
        (b"\xb3\x29\x00\x20" + b"x" * 10, "ends within a packet"),
        (b"\xb3\x29\x00\x20" + b"x" * 100, "wrong checksum"),
        (b"\xb3", "is no stream of subunit, version 2"),
        (b"test: a\nsuccess: a\n", "is no stream of subunit, version 2"),
    ],
)
def test_bad_packets_are_refused(content: bytes, wrong: str) -> None:
    assert wrong in found(subunit, content)[1]


def test_a_packet_whose_parts_lie_about_their_length_is_refused() -> None:
    body = struct.pack(">BH", 0xB3, 0x2800 | 3) + b"\x0a" + b"\x3fa"
    body += struct.pack(">I", zlib.crc32(body))
    assert found(subunit, body) == ([], "has a packet whose parts are longer than it")


class Endless(io.RawIOBase):
    """As much of one beginning and then one block as is asked for, and not in memory."""

    def __init__(self, begin: bytes, block: bytes, size: int) -> None:
        self._begin, self._block, self._left = begin, block, size

    def read(self, count: int = -1) -> bytes:
        if self._begin:
            taken, self._begin = self._begin[:count], self._begin[count:]
            return taken
        count = min(count, self._left)
        taken = (self._block * (count // len(self._block) + 1))[:count]
        self._left -= len(taken)
        return taken

    def readline(self, limit: int | None = -1) -> bytes:
        return self.read(limit or -1)


@pytest.mark.parametrize(
    ("form", "begin", "block"),
    [
        (junit, b"<testsuite><testcase name='a'><failure>", b"x" * 65536),
        (junit, b"<testsuite><system-out>", b"x" * 65536),
        (junit, b"<testsuite name='", b"x" * 65536),
        (junit, b"<testsuite>", b"<a>" * 20000),
        (tap, b"ok 1 - ", b"x" * 65536),
        (tap, b"not ok 1 - a\n", b"# no\n"),
        (autopkgtest, b"", b"x" * 65536),
    ],
)
def test_a_large_file_costs_little_memory(form: object, begin: bytes, block: bytes) -> None:
    tracemalloc.start()
    try:
        for _ in form.read(Endless(begin, block, 1000 * len(block))):
            pass
    except BrokenResults:
        pass
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 4 << 20


_PIECES = st.sampled_from(
    [
        *(b"<testsuite>", b"<testcase name='a' time='1'>", b"<failure message='m'>", b"</failure>", b"</testcase>"),
        *(b"<skipped/>", b"&amp;", b"&x;", b"<![CDATA[", b"]]>", b"<!DOCTYPE a>", b"<?xml version='1.0' encoding='"),
        *(
            b"utf-16'?>",
            b"ok 1 - a\n",
            b"not ok\n",
            b"1..9\n",
            b"# x\n",
            b"\xb3\x28\x03",
            b"\x20",
            b"a PASS x\n",
            b"\0",
        ),
    ]
)


@pytest.mark.parametrize("form", FORMATS)
@given(st.lists(_PIECES | st.binary(max_size=30), max_size=30).map(b"".join))
def test_no_bytes_can_do_harm(form: object, content: bytes) -> None:
    for one in found(form, content)[0]:
        assert 0 < len(one.name) <= NAME_LIMIT
        assert one.name.isprintable()
        assert one.message is None or 0 < len(one.message) <= MESSAGE_LIMIT


# -- the stream of files -----------------------------------------------------------------------------------------


def read(stream: IO[bytes]) -> tuple[list[str], list[str]]:
    reader = files.Files()
    return [one.name for one in reader.read(stream)], reader.remarks


def test_files_are_told_apart_by_their_content() -> None:
    stream = archive(
        {
            "build/tree/report.xml": b"<testsuite><testcase name='j'/></testsuite>",
            "build/tree/utf16.xml": "<testsuite><testcase name='ü'/></testsuite>".encode("utf-16"),
            "build/tree/t/a.tap": b"ok 1 - " + b"t" * 600 + b"\nok 2 - u\n",
            "results/out": (SAMPLES / "sample.subunit").read_bytes(),
            "results/autopkgtest/summary": b"dep8 PASS\n",
            "build/tree/none.xml": b"",
            "build/tree/other": b"hello",
        }
    )
    names, remarks = read(stream)
    assert names == ["j", "ü", "t" * 239 + names[2][239:], "u", *names[4:10], "dep8"]
    assert remarks == ["none.xml is empty", "other is no result file of a known format"]


def test_a_stream_that_ends_early_or_lies_is_read_as_far_as_it_goes() -> None:
    whole = archive({"a.xml": b"<testsuite><testcase name='a'/></testsuite>", "b.xml": b"<testsuite>" + b" " * 5000})
    names, remarks = read(io.BytesIO(whole.getvalue()[:3000]))
    assert names == ["a"]
    assert len(remarks) == 1
    assert read(io.BytesIO(b"nonsense" * 1000))[0] == []
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as tar:
        member = tarfile.TarInfo("a.xml")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    link.seek(0)
    assert read(link) == ([], [])


@given(st.binary(max_size=3000))
def test_no_stream_can_do_harm(content: bytes) -> None:
    read(io.BytesIO(content))


def _many() -> Iterator[tuple[str, bytes]]:
    for number in range(files.FILES_LIMIT + 5):
        yield f"{number}.tap", b"ok 1 - a\n"


def test_files_are_counted() -> None:
    names, remarks = read(archive(dict(_many())))
    assert len(names) == files.FILES_LIMIT
    assert remarks == [f"only the first {files.FILES_LIMIT} result files were read"]
