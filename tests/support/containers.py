"""Docker for tests: an engine that runs or is started here, and the services of docker-compose.yml in it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from surroundings import IMAGE, image_of_tests, kept_between_runs, variables

ROOT = Path(__file__).parents[2]
BASE = "cleanroom-base:debian-12"
PROJECT = "cleanroom-test"
# Where an engine that we start has its sockets.
_ENGINE = Path("/run/cleanroom-test-docker")
_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
# Nothing is pulled; what is built from scratch takes its time.
_BUILD_TIMEOUT = 1500.0
_START_TIMEOUT = 600.0
_TIMEOUT = 300.0
# The user of the control plane's containers, as compose/Dockerfile makes it.
USER = 10001
SERVICES = ("postgresql", "refs", "master", "publisher", "notifications", "web", "repository", "worker")
# What makes an installation quick, and patient with kills.
_SITE = """\
[refs]
poll = 1
[master]
poll = 2
lease = 20
retry_pause = 1
attempts = 9
replays = 0
[publisher]
poll = 2
[worker]
disk = 4096
"""


# Options of `docker run`, and what they are called in docker-compose.yml.
_RIGHTS = {
    "cap-drop": "cap_drop",
    "cap-add": "cap_add",
    "security-opt": "security_opt",
    "device": "devices",
    "device-cgroup-rule": "device_cgroup_rules",
}
# What images and volumes take, in bytes.
_ROOM = 8 << 30
# What is asked of a container with the worker's rights: what guests are made of, and the way to the package mirror.
_ASKED = """\
mount -t tmpfs asked /mnt
mknod /tmp/loop b 7 0
unshare --user --map-root-user true
apt-get -qq update
"""


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """The variables with which clients find an engine: the machine's own, or one that runs only here.

    What ours built is kept in the directory of all tests, so that only the first run builds it.
    """
    if _answers({}):
        yield {}
        return
    with Path(f"{_ENGINE}.lock").open("w") as lock:
        # Another one on this machine has the same network, and ends with whom it was started for.
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _own_engine() as environment:
            yield environment


@contextmanager
def _own_engine() -> Iterator[dict[str, str]]:
    kept = kept_between_runs() / "docker"
    kept.mkdir(parents=True, exist_ok=True)
    environment = {"DOCKER_HOST": f"unix://{_ENGINE}/docker.sock"}
    # An engine that has to switch this on closes the machine's own forwarding at the same time.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    # It has the firewall look at what passes a bridge, those of guests too; what was before comes back.
    filtered = _BRIDGED.read_text() if _BRIDGED.exists() else "0"
    _ENGINE.mkdir(exist_ok=True)
    options = [f"--data-root={kept}/data", f"--exec-root={_ENGINE}/exec", f"--pidfile={_ENGINE}/docker.pid"]
    with (kept / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", *options, f"--host={environment['DOCKER_HOST']}"],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: _answers(environment) or daemon.poll() is not None, 120, "the engine answers")
        assert daemon.poll() is None, (kept / "dockerd.log").read_text()[-3000:]
        yield environment
    finally:
        daemon.terminate()
        daemon.wait(120)
        _forget_network()
        if _BRIDGED.exists():
            _BRIDGED.write_text(filtered)
        # One that could not start leaves it.
        subprocess.run(["umount", kept / "data"], capture_output=True, timeout=30, check=False)
        shutil.rmtree(_ENGINE, ignore_errors=True)


def _answers(environment: Mapping[str, str]) -> bool:
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    done = subprocess.run(command, env={**variables(), **environment}, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def _compose(environment: Mapping[str, str]) -> list[str] | None:
    """How Compose is called here: a part of Docker's client, or a program of its own."""
    for program in (["docker", "compose"], ["docker-compose"]):
        with suppress(FileNotFoundError):
            done = subprocess.run([*program, "version"], env=environment, capture_output=True, timeout=60, check=False)
            if done.returncode == 0:
                return program
    return None


def _forget_network() -> None:
    """Take away what an engine that ended leaves: its bridge, and its rules among the machine's."""
    subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, timeout=30, check=False)
    for table in ("filter", "nat"):
        listed = subprocess.run(
            ["iptables", "-t", table, "-S"], capture_output=True, text=True, timeout=30, check=False
        )
        rules = [line.split() for line in listed.stdout.splitlines() if "DOCKER" in line or "docker0" in line]
        for action in ("-A", "-F", "-X"):
            for rule in rules:
                words = ["-D", *rule[1:]] if action == "-A" else [action, *rule[1:]]
                if (rule[0] == "-A") == (action == "-A"):
                    command = ["iptables", "-t", table, *words]
                    subprocess.run(command, capture_output=True, timeout=30, check=False)


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit status."""

    status: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Stack:
    """The services of docker-compose.yml."""

    def __init__(self, place: Path, environment: Mapping[str, str]) -> None:
        """`place` is a directory for its secrets, its site, and the repositories that it watches."""
        self.place = place
        self.repositories = place / "repositories"
        self._override = place / "override.yml"
        self._environment = {
            **variables(),
            **environment,
            "COMPOSE_PROJECT_NAME": PROJECT,
            # An engine on a busy machine may be silent for longer than the minute that Compose waits.
            "COMPOSE_HTTP_TIMEOUT": "600",
            "CLEANROOM_DEBIAN": BASE,
            "CLEANROOM_IMAGES": PROJECT,
            "CLEANROOM_SECRETS": str(place / "secrets"),
            "CLEANROOM_SITE_DIRECTORY": str(place / "site"),
            "CLEANROOM_TLS_DIRECTORY": str(place / "tls"),
            # What consumers use: by the name that containers find.
            "CLEANROOM_REPOSITORY_URL": "http://repository:8080",
            "CLEANROOM_WEB_ADDRESS": "127.0.0.1:0",
            "CLEANROOM_REPOSITORY_ADDRESS": "127.0.0.1:0",
            "CLEANROOM_REPOSITORY_TLS_ADDRESS": "127.0.0.1:0",
        }
        program = _compose(self._environment)
        assert program, "there is no Compose"
        self._program = program

    def _run(self, command: list[str], timeout: float, *, check: bool = True) -> Answer:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
        return Answer(done.returncode, done.stdout, done.stderr)

    def docker(self, *words: str, timeout: float = _TIMEOUT, check: bool = True) -> Answer:
        """A command of Docker's client."""
        return self._run(["docker", *words], timeout, check=check)

    def compose(self, *words: str, timeout: float = _TIMEOUT, check: bool = True) -> Answer:
        """A command of Compose about these services."""
        files = ["--file", str(ROOT / "docker-compose.yml"), "--file", str(self._override)]
        return self._run([*self._program, *files, *words], timeout, check=check)

    def prepare(self) -> None:
        """Make what a person makes before the first start, and what tests have besides."""
        for name in ("site", "tls", "repositories"):
            (self.place / name).mkdir(parents=True)
        (self.place / "site" / "cleanroom.toml").write_text(_SITE)
        self._run([str(ROOT / "compose" / "make-secrets"), str(self.place / "secrets")], 60)
        tls = self.place / "tls"
        names = ["-keyout", str(tls / "key.pem"), "-out", str(tls / "certificate.pem"), "-subj", "/CN=localhost"]
        names += ["-addext", "subjectAltName=DNS:localhost"]
        self._run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names], 60)
        (tls / "key.pem").chmod(0o444)
        # The guests' image is a copy: a host writes beside it who uses it.
        images = self.place / "images"
        images.mkdir()
        original = image_of_tests() / "images" / IMAGE
        self._run(["cp", "--archive", "--reflink=auto", str(original), str(images)], 600)
        shutil.rmtree(images / IMAGE / "users", ignore_errors=True)
        watched = f"{self.repositories}:/srv/repositories:ro"
        services = {name: {"volumes": [watched]} for name in ("refs", "master", "cleanroom")}
        services["worker"] = {"volumes": [f"{images}:/var/lib/cleanroom/images"]}
        self._override.write_text(json.dumps({"services": services}))

    def build(self) -> None:
        """Make the base and the images; a second time takes seconds."""
        self._run([str(ROOT / "scripts" / "compose-base"), BASE], _BUILD_TIMEOUT)
        self.compose("build", timeout=_BUILD_TIMEOUT)

    def up(self) -> None:
        """Start all, and wait until all are healthy."""
        self.compose("up", "--detach", timeout=_START_TIMEOUT)
        self.recovered()

    def recovered(self) -> None:
        """Wait until all are healthy."""
        until(lambda: not self.unhealthy(), _START_TIMEOUT, "all are healthy", self.told)

    def down(self) -> None:
        """End all; nothing of it is left, its volumes neither."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "60")

    # -- services --------------------------------------------------------------------------------------------------

    def _containers(self) -> dict[str, tuple[str, str]]:
        """Each service's container and what Docker says of it, in words such as "Up 2 minutes (healthy)"."""
        labels = '{{.Label "com.docker.compose.service"}} {{.Label "com.docker.compose.oneoff"}} {{.ID}} {{.Status}}'
        listed = self.docker(
            "ps", "--all", f"--filter=label=com.docker.compose.project={PROJECT}", f"--format={labels}"
        )
        rows = [line.split(" ", 3) for line in listed.out.splitlines()]
        return {row[0]: (row[2], row[3]) for row in rows if row[1] == "False"}

    def container(self, service: str) -> str:
        """The container of a service, running or not."""
        return self._containers()[service][0]

    def unhealthy(self) -> dict[str, str]:
        """What Docker says of the services that are not healthy; of `migrate` it is enough that it ended well."""
        states = {name: status for name, (_, status) in self._containers().items()}
        return {
            name: states.get(name, "missing") for name in SERVICES if not states.get(name, "").endswith("(healthy)")
        }

    def kill(self, service: str) -> None:
        """End a service at once, as a machine does that loses power, and start it again."""
        container = self.container(service)
        self.docker("kill", container)
        # Docker takes this for a person's wish, and leaves the start to him.
        self.docker("start", container)

    def address(self, service: str) -> str:
        """Where this machine reaches a service, by the network that leads outside."""
        return self.address_of(self.container(service))

    def address_of(self, container: str) -> str:
        """The same of any container."""
        networks = self.docker("inspect", "--format={{json .NetworkSettings.Networks}}", container).json
        return str(networks[f"{PROJECT}_outside"]["IPAddress"])

    def inside(self, service: str, *command: str, check: bool = True) -> Answer:
        """A command in a service's container."""
        return self.docker("exec", self.container(service), *command, check=check)

    def told(self) -> str:
        """The ends of the logs of all, for a test's own failure."""
        return str(self.unhealthy()) + self.compose("logs", "--no-color", "--tail=40", check=False).out[-20_000:]

    # -- Cleanroom -------------------------------------------------------------------------------------------------

    def cleanroom(self, *words: str, check: bool = True, timeout: float = _TIMEOUT) -> Answer:
        """A command of `cleanroom`, as a person says it."""
        return self.compose("run", "--rm", "--no-deps", "-T", "cleanroom", *words, check=check, timeout=timeout)

    def sql(self, statement: str) -> str:
        """A statement as the server's administrator."""
        command = [
            "/usr/lib/postgresql/15/bin/psql",
            "--host=/tmp",
            "--no-align",
            "--tuples-only",
            "--command",
            statement,
            "cleanroom",
        ]
        return self.inside("postgresql", *command).out.strip()

    def deliver(self, name: str, tree: Path) -> None:
        """Bring a repository to where the containers find it, theirs by owner: git reads no other's."""
        bare = self.repositories / f"{name}.git"
        fresh = bare.with_suffix(".new")
        self._run(["git", "clone", "--quiet", "--bare", str(tree), str(fresh)], 60)
        for file in [fresh, *fresh.rglob("*")]:
            os.chown(file, USER, USER)
        with suppress(FileNotFoundError):
            shutil.rmtree(bare)
        fresh.rename(bare)


def obstacle() -> str | None:
    """Why the services of docker-compose.yml cannot run on this machine, in one line; None where they can."""
    if os.geteuid() != 0:
        return "it takes root"
    if shutil.which("docker") is None or not (shutil.which("dockerd") or _answers({})):
        return "there is no Docker"
    kept_between_runs().mkdir(parents=True, exist_ok=True)
    try:
        with engine() as environment:
            return _obstacle_in({**variables(), **environment})
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        return f"Docker's engine does not run: {_last_line(str(error))}"


def _obstacle_in(environment: Mapping[str, str]) -> str | None:
    """The same of an engine that answers."""
    if _compose(environment) is None:
        return "there is no Compose"
    worker = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["worker"]
    rights = [f"--{option}={value}" for option, key in _RIGHTS.items() for value in worker[key]]
    asked = ["docker", "run", "--rm", "--sysctl=net.ipv4.ip_forward=1", *rights, BASE, "sh", "-euc", _ASKED]
    for what, command in (
        ("no base image can be made", [str(ROOT / "scripts" / "compose-base"), BASE]),
        ("a container with a worker's rights does not work", asked),
    ):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_BUILD_TIMEOUT, check=False
        )
        if done.returncode != 0:
            return f"{what}: {_last_line(done.stderr or done.stdout)}"
    if shutil.disk_usage(kept_between_runs()).free < _ROOM:
        return f"{kept_between_runs()} has less than {_ROOM >> 30} GiB of room"
    return None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing is said"])[-1]


def until(condition: Callable[[], Any], seconds: float, what: str, told: Callable[[], str] = str) -> Any:
    """Wait for a condition and return what it says."""
    deadline = time.monotonic() + seconds
    while not (said := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}\n{told()}"
        time.sleep(0.5)
    return said


if __name__ == "__main__":
    why = obstacle()
    if why is not None:
        print(f"make compose-test is left out here: {why}")
    sys.exit(why is not None)
