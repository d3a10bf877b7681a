"""Logs in the web: live while they grow, complete afterwards, one address for each attempt's step."""

from __future__ import annotations

import gzip
import json
import threading

import pytest
from database_server import add_product, begin, claim, end
from reading import read
from recorded import F, P
from starlette.testclient import TestClient

from cleanroom_db import phases, releases
from cleanroom_db.attempts import Lease
from cleanroom_db.connection import Database
from cleanroom_db.phases import StepResult, TestResult
from cleanroom_master.logs import OpenLog, log_name
from cleanroom_master.web.site import Site


class Running:
    """A step that runs, as the master has it."""

    def __init__(self, owner: Database, site: Site, held: Lease, name: str = "compile") -> None:
        self.owner, self.held = owner, held
        self.phase = phases.start(owner, held, 0, "build")
        self.id = phases.start_step(owner, held, self.phase, 0, name)
        self.log: OpenLog = site.logs.open(log_name(held.attempt_id, "build", 0, name))

    def end(self, outcome: object = P) -> None:
        """It has ended, and its log is complete."""
        sealed = self.log.seal()
        result = StepResult(P if outcome is P else F, 0, 1.0, "", sealed.sha256, sealed.size)
        phases.finish_step(self.owner, self.held, self.id, result)


@pytest.fixture
def running(owner: Database, pages: Site) -> Running:
    """A step of the first attempt of a release."""
    add_product(owner)
    return Running(owner, pages, begin(owner, claim(owner, "v1")))


def test_a_complete_log_has_its_lines_errors_and_a_download(web: TestClient, running: Running) -> None:
    running.log.write("one\n\x1b[31mfoo.c:1: error: bad\x1b[0m\n<script>alert(1)</script>\n")
    running.end(F)
    page = read(web, f"/log/{running.id}")
    assert [one["id"] for one in page.all("span") if one.get("class") == "line"] == ["L1", "L2", "L3"]
    assert "1 line looks like an error" in page.text
    assert "?line=2#L2" in page.links()
    assert {"class": "ink-1"} in page.all("span")
    assert "<script>alert" not in web.get(f"/log/{running.id}").text
    download = web.get(f"/log/{running.id}/download")
    assert download.text == "one\n\x1b[31mfoo.c:1: error: bad\x1b[0m\n<script>alert(1)</script>\n"
    assert download.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert download.headers["Content-Disposition"] == 'attachment; filename="hello_v1_debian-12_deb_build_compile.log"'
    plain = web.get(f"/log/{running.id}/download", headers={"Accept-Encoding": "identity"})
    assert plain.text == download.text
    assert "Content-Encoding" not in plain.headers


def test_a_log_is_searched(web: TestClient, running: Running) -> None:
    running.log.write("".join(f"line {number}\n" for number in range(1, 2501)) + "The <Needle>\n")
    running.end()
    page = read(web, f"/log/{running.id}?find=%3Cneedle%3E")
    assert "1 line has" in page.text
    assert "?line=2501#L2501" in page.links()
    assert "No lines have" in read(web, f"/log/{running.id}?find=nowhere").text


def test_a_long_log_is_read_page_by_page(web: TestClient, running: Running) -> None:
    running.log.write("".join(f"line {number} {'x' * 100}\n" for number in range(1, 20_001)))
    running.end()

    def shown(query: str) -> tuple[int, int]:
        page = read(web, f"/log/{running.id}{query}")
        lines = [int((one["id"] or "")[1:]) for one in page.all("span") if one.get("class") == "line"]
        return lines[0], lines[-1]

    assert shown("") == (1, 500)
    assert shown("?line=501") == (501, 1000)
    assert shown("?line=19999") == (19501, 20000)
    assert shown("?line=99999999") == (19501, 20000)
    read(web, f"/log/{running.id}?line=0", 400)


def test_long_lines_are_cut_and_every_line_can_be_reached(web: TestClient, running: Running) -> None:
    running.log.write("".join(f"{number} {'y' * 9000}\n" for number in range(1, 301)))
    running.end()
    first = web.get(f"/log/{running.id}")
    assert len(first.content) < 400_000
    assert "goes on: see the download" in first.text
    assert 'id="L200"' not in first.text
    assert 'id="L200"' in web.get(f"/log/{running.id}?line=200").text


def test_a_later_attempt_leaves_the_log_of_an_earlier_one(
    web: TestClient, owner: Database, pages: Site, running: Running
) -> None:
    running.log.write("the first attempt\n")
    running.end(F)
    phases.finish(owner, running.held, running.phase, F, why="x", seconds=1.0, command_seconds=1.0)
    end(owner, running.held, F)
    release = releases.find(owner, "hello", "v1")
    releases.retry(owner, release.id, "anna")
    again = Running(owner, pages, begin(owner, release))
    again.log.write("the second attempt\n")
    again.end()
    assert again.id != running.id
    assert "the first attempt" in web.get(f"/log/{running.id}").text
    assert "the second attempt" in web.get(f"/log/{again.id}").text
    links = read(web, "/release/hello/v1").links()
    assert f"/log/{again.id}" in links


def test_a_growing_log_is_followed_to_its_end(web: TestClient, running: Running) -> None:
    running.log.write("one\ntwo\nthr")
    page = read(web, f"/log/{running.id}")
    assert "and it goes on" in page.text

    def go_on() -> None:
        running.log.write("ee\n<four>\nlast")
        running.end()

    writer = threading.Timer(0.3, go_on)
    writer.start()
    lines: list[list[object]] = []
    with web.stream("GET", f"/log/{running.id}/live?after=1") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                lines += json.loads(line.removeprefix("data: "))
            if line == "event: end":
                break
    writer.join()
    assert lines == [[2, "two"], [3, "three"], [4, "&lt;four&gt;"], [5, "last"]]
    page = read(web, f"/log/{running.id}")
    assert "and it goes on" not in page.text


def test_who_was_away_goes_on_after_the_last_line(web: TestClient, running: Running) -> None:
    running.log.write("one\ntwo\nthree\n")
    threading.Timer(0.2, running.end).start()
    with web.stream("GET", f"/log/{running.id}/live?after=0", headers={"Last-Event-ID": "2"}) as answer:
        assert 'data: [[3, "three"]]' in list(answer.iter_lines())


def test_a_log_that_is_complete_ends_at_once(web: TestClient, running: Running) -> None:
    running.log.write("one\n")
    running.end()
    assert web.get(f"/log/{running.id}/live").text.startswith("event: end")


def test_tests_that_failed_lead_to_their_lines(web: TestClient, owner: Database, running: Running) -> None:
    phases.add_tests(owner, running.held, running.phase, "compile", [TestResult("adds <1>", F, 0.1, "no", 7)])
    running.log.write("x\n" * 10)
    running.end(F)
    page = read(web, f"/log/{running.id}")
    assert "adds <1>" in page.text
    assert "?line=7#L7" in page.links()
    assert f"/log/{running.id}?line=7#L7" in read(web, "/release/hello/v1").links()


def test_a_step_that_printed_nothing_says_so(web: TestClient, owner: Database, running: Running) -> None:
    assert "Nothing was printed yet" in read(web, f"/log/{running.id}").text
    phases.finish_step(owner, running.held, running.id, StepResult(P, 0, 1.0))
    running.log.seal()
    assert "The step printed nothing" in read(web, f"/log/{running.id}").text


def test_an_unknown_step_is_not_found(web: TestClient) -> None:
    for address in ("/log/999", "/log/999/live", "/log/999/download"):
        read(web, address, 404)
    read(web, "/log/abc", 400)


def test_what_is_kept_is_compressed_once(pages: Site, running: Running) -> None:
    running.log.write("text\n" * 1000)
    sealed = running.log.seal()
    assert gzip.decompress(pages.logs.path(sealed.sha256).read_bytes()) == b"text\n" * 1000
