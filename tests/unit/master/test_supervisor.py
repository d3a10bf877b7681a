"""What the supervisor sees of ports and of a supervisor that does or does not run."""

from __future__ import annotations

import json
import socket
import stat
import sys
from pathlib import Path

import pytest

from cleanroom_base.settings import Settings, load
from cleanroom_base.tending import Service, Tended
from cleanroom_master import supervisor


def settings(state: Path, **variables: str) -> Settings:
    return load({"CLEANROOM_STATE": str(state), "CLEANROOM_SITE": str(state), **variables})


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_that_is_taken_is_named_with_its_setting(tmp_path: Path, family: int, address: str) -> None:
    with socket.create_server((address, 0), family=family) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
        other.close()
        port = taken.getsockname()[1]
        site = settings(
            tmp_path,
            CLEANROOM_REPOSITORY_BIND=address,
            CLEANROOM_REPOSITORY_PORT=str(port),
            CLEANROOM_MASTER_PORT=str(free),
            CLEANROOM_MASTER_WORKER_PORT=str(free),
            CLEANROOM_WEB_PORT=str(free),
        )
        assert supervisor.taken_ports(site) == {"repository.port": f"{address}:{port}: Address already in use"}


def test_nothing_runs_where_nothing_was_started(tmp_path: Path) -> None:
    site = settings(tmp_path / "never")
    assert supervisor.running(site) is None
    assert supervisor.service_states(site) == []
    assert supervisor.stop(site) is False
    assert not (tmp_path / "never").exists()


def test_the_end_of_a_log_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(10_000)))
    assert supervisor.tail(log, 2).splitlines() == ["line 9998 \ufffd", "line 9999 \ufffd"]
    assert supervisor.tail(tmp_path / "none") == "(no log)"


def test_what_brings_generations_elsewhere_runs_where_the_site_wants_that(tmp_path: Path) -> None:
    where = {"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)}
    with_remote = load({**where, "CLEANROOM_DELIVERY_URL": "https://packages.example.org/"})
    names = [service.name for service in supervisor.services(with_remote)]
    assert [name for name in names if name not in {one.name for one in supervisor.services(load(where))}] == [
        "delivery"
    ]


def test_a_worker_s_process_is_told_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("CLEANROOM_DELIVERY_PASSWORD", "secret")
    services = {service.name: service for service in supervisor.services(settings(tmp_path))}
    for name in ("worker", "guests", "phases"):
        assert services[name].environment["CLEANROOM_DATABASE_URL"] == ""
        assert services[name].environment["CLEANROOM_DELIVERY_PASSWORD"] == ""
    assert list(services) == [
        "refs",
        "master",
        "worker",
        "guests",
        "phases",
        "publisher",
        "notifications",
        "repository",
        "web",
    ]


def one_that_says_where_it_writes(state: Path) -> Tended:
    """A service that leaves a file in the place for temporary ones, and its path in `said`."""
    program = (
        "import sys, tempfile; from pathlib import Path;"
        " Path(sys.argv[1]).write_text(tempfile.mkstemp(prefix='left-')[1])"
    )
    return Tended(Service("example", (sys.executable, "-c", program, str(state / "said"))))


def test_what_a_killed_service_left_of_temporary_files_is_removed(tmp_path: Path) -> None:
    one, left = one_that_says_where_it_writes(tmp_path), []
    for _ in range(2):
        supervisor._tend_if_possible(one, settings(tmp_path))
        assert one.process is not None
        assert one.process.wait(60) == 0
        left.append(Path((tmp_path / "said").read_text()))
        one.process = None
    assert left[0].parent == tmp_path / "temporary/example"
    assert list(left[0].parent.iterdir()) == [left[1]]
    # Tools that read what comes from outside run as another user, and have temporary files too.
    assert stat.S_IMODE(left[0].parent.stat().st_mode) == 0o1777


def test_a_service_that_cannot_be_started_now_ends_nobody_and_is_tried_again(tmp_path: Path) -> None:
    one = one_that_says_where_it_writes(tmp_path)
    # As a full disk would have it, no directory can be made there.
    (tmp_path / "temporary").touch()
    supervisor._tend_if_possible(one, settings(tmp_path))
    assert one.process is None
    (tmp_path / "temporary").unlink()
    supervisor._tend_if_possible(one, settings(tmp_path))
    assert one.process is None, "not at once"
    one.next_start = 0
    supervisor._tend_if_possible(one, settings(tmp_path))
    assert one.process is not None
    assert one.process.wait(60) == 0


def test_what_cannot_be_reported_now_is_reported_later(tmp_path: Path) -> None:
    one, run = one_that_says_where_it_writes(tmp_path), tmp_path / "run"
    (run / "services.new").mkdir(parents=True)
    supervisor._report(settings(tmp_path), [one])
    assert not (run / "services.json").exists()
    (run / "services.new").rmdir()
    supervisor._report(settings(tmp_path), [one])
    assert json.loads((run / "services.json").read_text())[0]["state"] == "starting"
