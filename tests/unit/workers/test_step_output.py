from __future__ import annotations

import time

import pytest

from cleanroom_recipes.events import TEXT_LIMIT, Event, Output
from cleanroom_workers.step_output import StepOutput


def collect(*chunks: bytes) -> tuple[StepOutput, list[str]]:
    told: list[Event] = []
    output = StepOutput("build", told.append)
    for chunk in chunks:
        output.feed(chunk)
    output.close()
    return output, [event.text for event in told if isinstance(event, Output)]


def test_characters_split_between_chunks_stay_whole() -> None:
    assert "".join(collect("ä".encode()[:1], "ä".encode()[1:], "€".encode()[:2])[1]) == "ä\\xe2\\x82"


def test_what_is_not_text_is_escaped() -> None:
    assert "".join(collect(b"a\xff\0b")[1]) == "a\\xff\\x00b"


def test_a_flood_comes_in_large_pieces() -> None:
    output, texts = collect(*[b"x" * 100] * 2000)
    assert output.size == 200_000
    assert sum(map(len, texts)) == 200_000
    assert max(map(len, texts)) <= TEXT_LIMIT
    assert len(texts) < 50


def test_the_last_words_of_a_silent_step_do_not_wait() -> None:
    told: list[Event] = []
    output = StepOutput("build", told.append)
    output.feed(b"compiling\n")
    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [event.text for event in told if isinstance(event, Output)] == ["compiling\n"]
    output.close()
    assert len(told) == 1


def test_the_end_is_kept_without_colours() -> None:
    output, _ = collect(b"x" * 100_000, b"\n\x1b[31merror\x1b[0m: 50%\r100%\n")
    assert output.tail.endswith("\nerror: 50%\n100%\n")
    assert len(output.tail) < 20_000


def test_lines_are_seen_whole_and_cut() -> None:
    lines: list[str] = []
    output = StepOutput("build", lambda _: None, on_line=lines.append)
    output.feed(b"ok 1")
    output.feed(b" - a\nok 2\n" + b"x" * 10_000)
    output.close()
    assert lines[:2] == ["ok 1 - a", "ok 2"]
    assert len(lines[2]) == 4096


def test_a_reader_that_went_away_is_noticed() -> None:
    def emit(_: Event) -> None:
        raise BrokenPipeError

    output = StepOutput("build", emit)
    output.feed(b"x")
    with pytest.raises(BrokenPipeError):
        output.close()
