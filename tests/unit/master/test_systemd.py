"""The units: nothing is wrong with them, each is as shut in as it can be, and the supervisor says the same."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from cleanroom_base import health
from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings, load
from cleanroom_db import roles
from cleanroom_master import supervisor, systemd

ROOT = Path(__file__).resolve().parents[3]
UNITS = ROOT / "master/systemd"
# systemd's own measure of what a service may do, from 0 (nothing) to 10; what README.md says of each, and no more.
EXPOSURE = {
    "database": 2.9,
    "delivery": 1.3,
    "guests": 8.3,
    "host": 9.6,
    "master": 1.4,
    "notifications": 1.3,
    "phases": 8.3,
    "publisher": 1.3,
    "refs": 1.2,
    "repository": 1.3,
    "web": 1.3,
    "worker": 8.3,
}
ON_HOST = {"guests", "host", "phases", "worker"}


def unit(name: str) -> str:
    return (UNITS / f"cleanroom-{name}.service").read_text()


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units with programs where they say that there are some."""
    place = tmp_path_factory.mktemp("units")
    shutil.copytree(UNITS, place, dirs_exist_ok=True)
    (place / "bin").mkdir()
    for name in ("python", "twistd", "cleanroom-worker"):
        (place / "bin" / name).write_text("#!/bin/sh\n")
        (place / "bin" / name).chmod(0o755)
    for file in place.rglob("*.service"):
        file.write_text(file.read_text().replace("/usr/lib/cleanroom/bin", str(place / "bin")))
    return place


def test_systemd_finds_nothing_wrong_with_the_units(units: Path) -> None:
    files = [*units.glob("*.service"), *units.glob("*.target")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_each_service_may_do_no_more_than_is_known(units: Path) -> None:
    found = {}
    for file in sorted(units.glob("*.service")):
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", file],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        level = re.search(r"Overall exposure level for cleanroom-(\S+)\.service: ([0-9.]+)", done.stdout)
        assert level, done
        found[level[1]] = float(level[2])
    assert set(found) == set(EXPOSURE)
    assert {name: level for name, level in found.items() if level > EXPOSURE[name]} == {}
    readme = (UNITS / "README.md").read_text()
    for name, level in found.items():
        assert re.search(rf"^\| `{name}` \|.*\| {level} \|$", readme, re.M), f"{name}: {level}"


def test_the_target_starts_what_the_supervisor_does_and_with_the_same_words(tmp_path: Path) -> None:
    site = load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_DELIVERY_URL": "https://packages.example.org/"})
    wanted = re.findall(r"cleanroom-(\w+)\.service", (UNITS / "cleanroom.target").read_text())
    services = {service.name: service for service in supervisor.services(site)}
    assert set(wanted) == (set(services) - {"delivery"}) | {"database", "host"}
    assert len(wanted) == len(set(wanted))
    for name, service in services.items():
        [said] = re.findall(r"^ExecStart=/usr/lib/cleanroom/bin/(\S+) (.*)$", unit(name), re.M)
        program, *words = service.command
        assert said[0] == Path(program).name.removesuffix("3").replace("python3.11", "python")
        assert said[1].split()[:-1] == words[:-1]
        # The worker's description has a place of its own there.
        assert said[1].split()[-1] == words[-1] or (name, words[-1].rpartition("/")[2]) == ("worker", "buildbot.tac")


def test_every_service_is_known_by_its_name_in_the_journal() -> None:
    for name in EXPOSURE:
        assert re.findall(r"^SyslogIdentifier=(.*)$", unit(name), re.M) == [f"cleanroom-{name}"]


def test_only_the_publisher_can_reach_the_keys() -> None:
    for name in set(EXPOSURE) - ON_HOST - {"publisher"}:
        assert re.search(r"^InaccessiblePaths=-/var/lib/cleanroom/publisher\b", unit(name), re.M), name
        assert "ProtectSystem=strict" in unit(name)
    tmpfiles = (UNITS / "cleanroom.tmpfiles").read_text()
    assert re.search(r"^d /var/lib/cleanroom/publisher +0700 cleanroom-publisher cleanroom-publisher$", tmpfiles, re.M)


@pytest.mark.parametrize("name", ["refs", "master", "publisher", "notifications"])
def test_who_keeps_house_can_note_when(name: str) -> None:
    paths = " ".join(re.findall(r"^ReadWritePaths=(.*)$", unit(name), re.M)).split()
    assert {"/var/lib/cleanroom", "/var/lib/cleanroom/run"} & set(paths)
    assert re.search(
        r"^d /var/lib/cleanroom/run +2775 cleanroom cleanroom$", (UNITS / "cleanroom.tmpfiles").read_text(), re.M
    )


@pytest.mark.parametrize("name", sorted(set(EXPOSURE) - ON_HOST - {"database"}))
def test_each_service_can_tell_how_it_is(name: str) -> None:
    socket_of_it = health.socket_of(load({"CLEANROOM_RUNTIME": "/run/cleanroom-0fc37d72"}), name)
    tmpfiles = (UNITS / "cleanroom.tmpfiles").read_text()
    assert re.search(rf"^d {socket_of_it.parent} +1771 root cleanroom$", tmpfiles, re.M)
    [user] = re.findall(r"^User=(.*)$", unit(name), re.M)
    assert re.search(rf"^z {socket_of_it} +- +{user} {user}$", tmpfiles, re.M)
    paths = " ".join(re.findall(r"^ReadWritePaths=(.*)$", unit(name), re.M)).split()
    assert str(socket_of_it.parent) in paths


def test_what_runs_guests_is_told_no_password() -> None:
    for name in EXPOSURE:
        assert ("/etc/default/cleanroom" in unit(name)) is (name not in ON_HOST)
    assert "/etc/default" not in (UNITS / "cleanroom-.service.d/common.conf").read_text()


def test_every_password_is_for_the_service_that_says_it() -> None:
    tmpfiles = (UNITS / "cleanroom.tmpfiles").read_text()
    users = set(re.findall(r"^u (\S+)", (UNITS / "cleanroom.sysusers").read_text(), re.M))
    given = dict(re.findall(r"^z /var/lib/cleanroom/secrets/database-(\S+) +04[04]0 (\S+)", tmpfiles, re.M))
    assert set(given) == {str(role) for role in roles.PROCESSES}
    assert "database-owner" not in tmpfiles
    for name in set(EXPOSURE) - ON_HOST - {"database"}:
        [user] = re.findall(r"^User=(.*)$", unit(name), re.M)
        assert user in users
    assert set(re.findall(r" (cleanroom\S*) cleanroom\S*$", tmpfiles, re.M)) <= users


def test_services_and_commands_meet_in_one_directory() -> None:
    site = load({"CLEANROOM_STATE": "/var/lib/cleanroom"})
    place = f"/run/cleanroom-{site.instance}"
    for file in ("cleanroom-.service.d/common.conf", "cleanroom.tmpfiles", "cleanroom-publisher.service"):
        assert set(re.findall(r"/run/cleanroom-\w+", (UNITS / file).read_text())) == {place}
    assert f"rm -rf {place}" in (ROOT / "debian/cleanroom.postrm").read_text()


# -- what we ask systemd ---------------------------------------------------------------------------------------------

SYSTEMCTL = """\
#!/bin/sh
case $1 in
is-active) echo {state}; [ {state} = active ] ;;
show)
	case $* in
	*Wants*) echo 'network.target cleanroom-web.service cleanroom-publisher.service' ;;
	*) printf '%s\\n' Id=cleanroom-publisher.service ActiveState=activating SubState=auto-restart \\
		StateChangeTimestampMonotonic=1000000 MainPID=0 NRestarts=7 '' \\
		Id=cleanroom-web.service ActiveState=active SubState=running StateChangeTimestampMonotonic=2000000 \\
		MainPID=42 NRestarts=1 ;;
	esac ;;
esac
"""


@pytest.fixture
def of_the_host() -> Settings:
    return load({"CLEANROOM_STATE": "/var/lib/cleanroom", "CLEANROOM_SITE": "/nonexistent"})


def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str) -> None:
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL.format(state=state))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def test_the_states_of_units_are_told_in_our_words(
    of_the_host: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    say(monkeypatch, tmp_path, "active")
    publisher, web = systemd.service_states(of_the_host)
    assert (publisher["name"], publisher["state"], publisher["process"], publisher["restarts"]) == (
        "publisher",
        "failing",
        None,
        7,
    )
    assert (web["name"], web["state"], web["process"], web["restarts"]) == ("web", "running", 42, 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", str(web["since"]))


def test_units_are_those_of_the_host_s_own_installation(
    of_the_host: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    say(monkeypatch, tmp_path, "active")
    elsewhere = load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)})
    assert systemd.service_states(elsewhere) == []
    say(monkeypatch, tmp_path, "inactive")
    assert systemd.service_states(of_the_host) == []


def test_what_systemd_runs_is_not_started_or_ended_beside_it(
    of_the_host: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    say(monkeypatch, tmp_path, "active")
    for act in (supervisor.stop, lambda site: supervisor.start_in_background(site, timeout=1)):
        with pytest.raises(InfrastructureError, match=r"as cleanroom\.target of systemd") as refused:
            act(of_the_host)
        assert refused.value.hint
        assert "systemctl stop cleanroom.target" in refused.value.hint


@pytest.mark.parametrize("abstract", [False, True])
def test_who_started_a_service_is_told_that_it_works(
    abstract: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.settimeout(30)
        told.bind(f"\0{tmp_path}" if abstract else str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{tmp_path}" if abstract else str(tmp_path / "notify"))
        systemd.ready()
        assert told.recv(100) == b"READY=1"
        # Only once: nobody else's is answered by what we start.
        systemd.ready()
