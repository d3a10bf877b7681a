"""What doctor says of mirrors, workers and memory."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from cleanroom_base.settings import load
from cleanroom_master import circumstances


@contextmanager
def answering(status: int, content: Any) -> Iterator[str]:
    """A server that always says the same."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize(("status", "works"), [(200, True), (403, True), (404, True), (503, False)])
def test_a_mirror_that_answers_is_there(status: int, works: bool) -> None:
    with answering(status, {}) as url:
        found = circumstances.mirror(url, ["debian-12"], None)
    assert (found.works, found.what, found.detail) == (works, "mirror 127.0.0.1", f"answers with {status}")
    assert not circumstances.mirror(url, ["debian-12"], None).works


def test_workers_of_another_version_or_none_are_told() -> None:
    def worker(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "connected_to": [{"masterid": 1}], "workerinfo": {}, **more}

    told = [
        worker("good", workerinfo={"host": f"Cleanroom {version('cleanroom')}\n", "version": "4.3.0"}),
        worker("old", workerinfo={"host": "Cleanroom 0.0.1\n"}),
        worker("silent"),
        worker("away", connected_to=[]),
        worker("__Janitor"),
    ]
    with answering(200, {"workers": told}) as url:
        found = {one.what.removeprefix("worker "): one for one in circumstances.connected(url)}
    assert {name: one.works for name, one in found.items()} == {
        "good": True,
        "old": False,
        "silent": False,
        "away": False,
    }
    assert found["old"].detail == "Cleanroom 0.0.1, Buildbot unknown"
    assert found["away"].detail == "is not connected"


@pytest.mark.parametrize("content", [{}, [], {"workers": None}, "text"])
def test_a_master_that_says_something_else_is_told(content: object) -> None:
    with answering(200, content) as url:
        [found] = circumstances.connected(url)
    assert not found.works


def test_memory_is_that_of_a_guest(tmp_path: Path) -> None:
    for memory, works in ((128, True), (1_048_576, False)):
        [found] = circumstances.memory(
            load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_WORKER_MEMORY": str(memory)}, site=tmp_path)
        )
        assert (found.works, found.optional) == (works, True)
