"""Logs by lines: pages, searches and errors, the same whether a log is short, long, or was cut into pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_master import log_lines
from cleanroom_master.logs import LogStore

TEXTS = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=40)


def of(text: bytes, piece: int = 7) -> list[log_lines.Block]:
    chunks = [text[start : start + piece] for start in range(0, len(text), piece)]
    return list(log_lines.blocks(chunks))


@given(TEXTS, st.integers(1, 30), st.integers(1, 45), st.integers(1, 10))
def test_a_page_has_the_lines_that_were_asked_for(lines: list[bytes], piece: int, first: int, count: int) -> None:
    text = b"".join(line + b"\n" for line in lines)
    found = log_lines.page(of(text, piece), first, count)
    expected = list(enumerate(lines, 1))[first - 1 : first - 1 + count]
    assert [(line.number, line.text) for line in found] == expected


@given(TEXTS, st.integers(1, 30), st.sampled_from([b"a", b"ab", b"\x00"]))
def test_a_search_finds_every_line(lines: list[bytes], piece: int, word: bytes) -> None:
    text = b"".join(line + b"\n" for line in lines)
    found = log_lines.search(of(text, piece), word.decode())
    assert [line.number for line in found.lines] == [
        number for number, line in enumerate(lines, 1) if word in line.lower()
    ]
    assert found.count == len(found.lines)


def test_the_last_line_needs_no_end() -> None:
    assert [line.text for line in log_lines.page(of(b"one\ntwo"), 1, 10)] == [b"one", b"two"]


def test_a_line_that_is_too_long_is_cut_and_costs_no_memory() -> None:
    text = b"x" * (5 * log_lines.BLOCK) + b"\nnext\n"
    first, second = log_lines.page(of(text, log_lines.BLOCK), 1, 10)
    assert (len(first.text), first.cut) == (log_lines.LINE, True)
    assert (second.number, second.text, second.cut) == (2, b"next", False)
    assert max(len(block) for _, block in of(text, log_lines.BLOCK)) <= 3 * log_lines.BLOCK


@pytest.mark.parametrize(
    "line",
    [
        *("foo.c:12:3: error: expected ';'", "E: Unable to locate package x", "make[2]: *** [Makefile:9: all] Error 1"),
        *("Traceback (most recent call last):", "FAILED tests/test_a.py::test_b", "Segmentation fault (core dumped)"),
        *("/usr/bin/ld: undefined reference to `f'", "not ok 3 - adds", "fatal: not a git repository"),
        *("sh: 1: frobnicate: not found", "cat: x: No such file or directory", "3 failed, 20 passed in 1.2s"),
    ],
)
def test_errors_are_seen(line: str) -> None:
    assert [one.number for one in log_lines.errors(of(f"fine\n{line}\nfine\n".encode(), 1000)).lines] == [2]


@pytest.mark.parametrize(
    "line",
    [
        *(
            "gcc -Wall -Werror -c error.c",
            "0 errors, 0 failures",
            "Tests: 20, Failures: 0",
            "checking for errno.h... yes",
        ),
        *("no errors found", "not ok 3 # TODO later", "terror: a word", "warning: error is deprecated"),
    ],
)
def test_what_is_no_error_is_not_taken_for_one(line: str) -> None:
    assert log_lines.errors(of(f"{line}\n".encode(), 1000)).count == 0


def test_a_long_log_is_read_from_any_line_on(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    log = store.open("long")
    lines = [f"line {number} {'x' * 90}" for number in range(1, 40_001)]
    lines[29_999] = "x.c:1: error: here"
    log.write("\n".join(lines) + "\n")
    sealed = log.seal()
    index = store.index(sealed.sha256)
    assert index is not None
    assert (index.lines, index.errors, index.error_count) == (40_000, ((30_000, "x.c:1: error: here"),), 1)
    assert len(index.members) >= 4
    for number in (1, 12_345, 30_000, 40_000):
        offset, first = index.before(number)
        assert first <= number
        [line] = log_lines.page(log_lines.blocks(store.chunks(sealed.sha256, offset), first), number, 1)
        assert line.text.decode() == lines[number - 1]
    assert store.read(sealed.sha256).decode().splitlines() == lines


def test_a_short_log_has_no_index(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    log = store.open("short")
    log.write("one\n")
    assert store.index(log.seal().sha256) is None


def test_a_long_log_without_lines_can_be_read(tmp_path: Path) -> None:
    store = LogStore(tmp_path)
    log = store.open("one line")
    log.write("x" * (3 * log_lines.BLOCK))
    sealed = log.seal()
    index = store.index(sealed.sha256)
    assert index is not None
    assert index.lines == 1
    assert index.before(1) == (0, 1)
    assert len(store.read(sealed.sha256)) == 3 * log_lines.BLOCK
