"""Finding what services logged about one ref event among all that they and other programs printed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cleanroom_base.errors import InputError
from cleanroom_base.log_records import JsonLines, Value, about
from cleanroom_base.settings import load
from cleanroom_master import service_records


def line(second: int, service: str, message: str, **fields: Value) -> str:
    made = logging.makeLogRecord({"msg": message, "levelname": "INFO", "created": float(second)})
    made.__dict__ |= about(**fields)
    return JsonLines(service).format(made)


def test_records_of_one_ref_event_are_found_in_all_logs_and_in_order(tmp_path: Path) -> None:
    settings = load({"CLEANROOM_STATE": str(tmp_path)}, site=tmp_path)
    run, layers = tmp_path / "run", tmp_path / "logs/services"
    for directory in (run, layers):
        directory.mkdir(parents=True)
    (run / "refs.log.1").write_text(line(1, "refs", "seen", correlation="ref-1") + "\n")
    (run / "refs.log").write_text(line(2, "refs", "seen", correlation="ref-11") + "\nTraceback of something else\n")
    (run / "master.log").write_text(
        "\n".join(
            [
                line(3, "master", "one", correlation="ref-1", ref="v1\n\x1b[2J"),
                line(9, "master", "quotes ref-1", correlation="ref-2"),
                line(8, "master", "says ref-1 without a field"),
                "a line of no form that names ref-1",
            ]
        )
    )
    (run / "phases.log").write_text(line(5, "phases", "two", correlation="ref-1", guest="debian-12-0a"))
    (run / "worker.log").write_text(line(4, "worker", "argv: request.build.ref-1.json"))
    (run / "guests.log").write_text(
        line(2, "guests", "debian-12-0a is ready") + "\n" + line(2, "guests", "debian-12-0b is ready")
    )
    (layers / "layers.log").write_bytes(b"\xff\xfe ref-1 {" + b"x" * (2 << 20))
    found = service_records.of_release(service_records.files(settings), "ref-1")
    assert [(record.service, record.message) for record in found] == [
        ("refs", "seen"),
        ("guests", "debian-12-0a is ready"),
        ("master", "one"),
        ("worker", "argv: request.build.ref-1.json"),
        ("phases", "two"),
        ("master", "says ref-1 without a field"),
    ]


def test_what_docker_and_the_journal_show_is_read(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    written = line(1, "web", "x", correlation="ref-1")
    shown.write_text(f"web-1  | {written}\nNov 29 12:00:00 host cleanroom-web[7]: {written}\n<6>{written}\n")
    assert len(service_records.of_release([shown], "ref-1")) == 3
    with pytest.raises(InputError, match="cannot read"):
        service_records.of_release([tmp_path / "missing"], "ref-1")


def test_the_end_of_a_log_begins_with_a_whole_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("first\nsecond\nthird\n")
    assert service_records.latest(log, 100) == "first\nsecond\nthird\n"
    assert service_records.latest(log, 10) == "third\n"
