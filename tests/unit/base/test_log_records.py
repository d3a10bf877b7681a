"""Log records: one line each whatever is logged, nothing secret, and readable again."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom_base import log_records
from cleanroom_base.log_records import JsonLines, Readable, about, bound, read, readable

HOSTILE = 'v1\n{"level": "critical", "service": "web"}\r\x1b[2J\u2028\u202e\x00\udcff'

# One that has no other above it: what is logged here cannot be told from one process of tests to another.
_LOG = logging.Logger("test of records", logging.INFO)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What a logger of this test writes as the service `refs`."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines("refs"))
    _LOG.addHandler(handler)
    yield stream
    _LOG.removeHandler(handler)


def log() -> logging.Logger:
    return _LOG


def test_a_record_is_one_line_with_what_it_is_about(logged: io.StringIO) -> None:
    log().info("%s was recorded", "v1", extra=about(correlation="ref-17", product="hello", ref="v1", release=None))
    line = logged.getvalue()
    assert line.count("\n") == 1
    written = json.loads(line)
    assert written.pop("time").endswith("Z")
    assert written == {
        "level": "info",
        "service": "refs",
        "process": os.getpid(),
        "message": "v1 was recorded",
        "correlation": "ref-17",
        "product": "hello",
        "ref": "v1",
    }


def test_what_is_hostile_neither_ends_a_line_nor_steers_a_terminal(logged: io.StringIO) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log().exception("%s", HOSTILE, extra=about(ref=HOSTILE))
    [line] = logged.getvalue().splitlines()
    assert line.isascii() and line.isprintable()
    record = read(line)
    assert record is not None
    assert (record.service, record.level, record.message, record.fields["ref"]) == ("refs", "error", HOSTILE, HOSTILE)
    assert all(shown.isprintable() for shown in readable(record).split("\n"))
    assert readable(record).startswith(f"{record.at:%Y-%m-%d %H:%M:%S} error refs: v1\\n")


@given(st.text(), st.text())
def test_whatever_is_logged_is_read_again(message: str, ref: str) -> None:
    made = logging.makeLogRecord({"msg": "%s", "args": (f"'{message}'",), "levelno": 20, "levelname": "INFO"})
    made.about = {"ref": ref}
    line = JsonLines("web").format(made)
    assert len(line.splitlines()) == 1
    found = read(f"web-1  | {line}")
    assert found is not None and found.service == "web"


@given(st.text() | st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text())))
def test_what_is_no_record_is_none(value: object) -> None:
    assert read(value if isinstance(value, str) else json.dumps(value)) is None


@pytest.mark.parametrize(
    "line",
    [
        "{" * 100_000,
        '{"time": "2030-01-01T00:00:00", "level": "info", "service": "web", "message": "no zone"}',
        '{"time": 7, "level": "info", "service": "web", "message": ""}',
        '[{"time": "2030-01-01T00:00:00Z"}]',
        '{"time": "' + "9" * 5000 + '"}',
    ],
)
def test_lines_that_look_like_records_are_none(line: str) -> None:
    assert read(line) is None


def test_a_message_that_does_not_fit_its_form_is_shown_all_the_same() -> None:
    line = JsonLines("refs").format(logging.makeLogRecord({"msg": "%d of %d", "args": ("one",), "levelname": "INFO"}))
    assert "'%d of %d' with ('one',) cannot be shown" in json.loads(line)["message"]


def test_long_records_are_bounded_and_passwords_are_not_in_them(logged: io.StringIO) -> None:
    log().info("https://anna:hunter2pass@example.org/x.git does not answer: %s", "x" * 100_000)
    written = logged.getvalue()
    assert len(written) < 2 * log_records.MESSAGE_LIMIT
    assert "hunter2pass" not in written and "https://anna:(masked)@example.org" in written


def test_fields_are_bound_for_a_while_and_unknown_ones_are_refused(logged: io.StringIO) -> None:
    with bound(correlation="ref-1", phase="build"):
        log().info("one", extra=about(phase="install"))
    log().info("two")
    first, second = map(json.loads, logged.getvalue().splitlines())
    assert (first["correlation"], first["phase"], "correlation" in second) == ("ref-1", "install", False)
    with pytest.raises(TypeError, match="no field colour"):
        about(colour="red")


def test_people_get_words() -> None:
    made = logging.makeLogRecord({"msg": "published", "levelname": "INFO", "created": 0.0, "process": 1})
    made.about = {"generation": 4, "ref": "v1"}
    assert Readable("publisher").format(made) == "1970-01-01 00:00:00 info publisher: published  (ref=v1 generation=4)"


PROGRAM = """
import logging, threading, warnings
from cleanroom_base import log_records
log_records.begin("web")
logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 // 0)
thread.start()
thread.join()
raise RuntimeError("the end\\nin two lines")
"""


def run(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr.splitlines()


def test_all_that_a_process_says_is_records_up_to_its_end() -> None:
    records = [json.loads(line) for line in run()]
    assert [record["level"] for record in records] == ["info", "warning", "critical", "critical"]
    assert records[0]["message"] == "Started server process [7]"
    assert records[2]["message"].startswith("ZeroDivisionError")
    assert (records[3]["message"], "Traceback" in records[3]["error"]) == ("RuntimeError: the end\nin two lines", True)


ON_A_FULL_DISK = """
import os
from twisted.logger import globalLogBeginner
from twisted.python import log
from cleanroom_workers.twisted_records import observer
# What the process prints becomes a record, too.
globalLogBeginner.beginLoggingTo([observer("worker")])
log.msg("for which there is no room")
os._exit(7)
"""


def test_a_full_disk_is_no_trouble_of_whoever_logs() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", ON_A_FULL_DISK], stderr=full, timeout=60, check=False)
    assert done.returncode == 7


def test_the_journal_is_told_how_grave_a_record_is() -> None:
    reading, writing = os.pipe()
    there = os.fstat(writing)
    with os.fdopen(reading, "rb") as stream:
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={"PATH": os.environ["PATH"], "JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"},
            stderr=writing,
            timeout=60,
            check=False,
        )
        os.close(writing)
        lines = stream.read().decode().splitlines()
    assert [line[:4] for line in lines] == ["<6>{", "<4>{", "<2>{", "<2>{"]
    assert all(read(line) for line in lines)
