"""The web status as a service: one process holds the connections, further ones make the pages."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from database_server import Server, add_product, claim

from cleanroom_base import run
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role

PATIENCE = 30.0


def until(holds: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Service:
    """The web status as `cleanroom up` starts it, with two processes that make pages."""

    def __init__(self, server: Server, name: str, state: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        given = {
            "CLEANROOM_STATE": str(state),
            "CLEANROOM_SITE": str(state),
            "CLEANROOM_DATABASE_URL": server.url(Role.OWNER, name),
            "CLEANROOM_WEB_PORT": str(self.port),
            "CLEANROOM_WEB_MAKERS": "2",
        }
        self.log = state / "web.log"
        self.process = run.start([sys.executable, "-m", "cleanroom_master.web"], log=self.log, environment=given)
        until(self.answers)

    def answers(self) -> bool:
        """Whether somebody listens."""
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def get(self, path: str) -> httpx2.Response:
        """What it answers."""
        return httpx2.get(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE)

    def makers(self) -> list[int]:
        """The processes that make pages."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def service(server: Server, name: str, tmp_path: Path) -> Iterator[Service]:
    """The web status of this test's database."""
    service = Service(server, name, tmp_path)
    yield service
    run.kill_group(service.process)


def test_pages_are_made_by_other_processes_and_end_with_them(service: Service, owner: Database) -> None:
    add_product(owner)
    claim(owner, "v1")
    page = service.get("/release/hello/v1")
    assert "waiting" in page.text
    assert "data-live" in page.text
    assert service.get("/api/v1/products").json()[0]["name"] == "hello"
    assert service.get("/release/hello/v2").status_code == 404
    makers = service.makers()
    assert len(makers) == 2
    for maker in makers:
        os.kill(maker, signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as waiting:
        waiting.sendall(b"GET /product/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        # What others need not make is answered meanwhile.
        assert service.get("/static/page.js").status_code == 200
        assert "cleanroom_database_up 1.0" in service.get("/metrics").text
        waiting.settimeout(0.2)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        for maker in makers:
            os.kill(maker, signal.SIGCONT)
        waiting.settimeout(PATIENCE)
        assert waiting.recv(12) == b"HTTP/1.1 200"
    # One that is lost takes the service with it, which whoever runs it starts anew.
    os.kill(makers[0], signal.SIGKILL)
    assert run.wait(service.process, PATIENCE)
    assert service.process.returncode == 3
    assert "a process that made pages has ended" in service.log.read_text()
    until(lambda: not any(Path(f"/proc/{maker}").exists() for maker in makers))


def test_what_is_done_at_first_use_is_done_before_anybody_can_ask(service: Service, owner: Database) -> None:
    with owner.transaction() as cursor:
        last = cursor.rows(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND query NOT LIKE 'LISTEN%'"
        )
    # Nobody asked for a page yet, and each process that makes pages has used one for reading and one for access.
    assert len(last) == 2 * len(service.makers()) == 4
    assert service.get("/").status_code == 200


def test_who_makes_pages_ends_with_the_service(service: Service) -> None:
    makers = service.makers()
    assert service.get("/").status_code == 200
    service.process.kill()
    until(lambda: not any(Path(f"/proc/{maker}").exists() for maker in makers))
