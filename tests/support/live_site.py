"""A whole installation that really runs, spoken to as a person does: by its command line, by git and by SQL."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from builds import write_tree
from git_repository import Repository
from surroundings import image_of_tests, variables

from cleanroom_base.settings import Settings, load
from cleanroom_db.cluster import database_url
from cleanroom_db.roles import Role
from cleanroom_workers import mounts

SCRIPTS = Path(sysconfig.get_path("scripts"))
PRODUCTS = Path(__file__).parents[2] / "recipes" / "products"
# The smallest product there is: it becomes no package, so nothing but the way itself takes time.
SCRIPT = 'builder = "script"\ncommands = ["{command}"]\nartifacts = ["result.txt"]\n'
_COMMAND_TIMEOUT = 120.0
# Everything that an installation decides by waiting is short here, so that the tests can be.
_QUICK = {
    # A look at all products takes the processor that their builds would have.
    "CLEANROOM_REFS_POLL": "3",
    "CLEANROOM_MASTER_POLL": "2",
    "CLEANROOM_MASTER_LEASE": "20",
    "CLEANROOM_MASTER_RETRY_PAUSE": "1",
    # What fails would otherwise be tried three times more: its own test does that.
    "CLEANROOM_MASTER_REPLAYS": "0",
    "CLEANROOM_PUBLISHER_POLL": "2",
    "CLEANROOM_WORKER_DISK": "4096",
    "CLEANROOM_WORKER_PARALLEL": "4",
}
# Consumers take guests of their own after each publication; the test of that writes this file anew.
_SITE = '[publisher]\ncanary = "no"\n'


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit status."""

    status: int
    out: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class LiveSite:
    """One installation: its state, its settings, its repositories."""

    def __init__(self, state: Path, **more: str) -> None:
        self.state = state
        self.repositories = state / "repositories"
        self.site = state / "site"
        self.environment = {
            **variables(),
            **_QUICK,
            "CLEANROOM_STATE": str(state),
            "CLEANROOM_SITE": str(self.site),
            **{
                f"CLEANROOM_{name}": str(port)
                for name, port in zip(
                    ("MASTER_PORT", "MASTER_WORKER_PORT", "REPOSITORY_PORT", "WEB_PORT"), free_ports(4), strict=True
                )
            },
            **more,
        }

    @property
    def settings(self) -> Settings:
        return load(self.environment)

    # -- the command line ------------------------------------------------------------------------------------------

    def run(self, *words: str, timeout: float = _COMMAND_TIMEOUT, **more: str) -> Answer:
        """A command of `cleanroom`, however it ends."""
        done = subprocess.run(
            [SCRIPTS / "cleanroom", *words],
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def ask(self, *words: str, timeout: float = _COMMAND_TIMEOUT) -> Any:
        """What a command that must succeed answers to a script."""
        answer = self.run(*words, "--format", "json", timeout=timeout)
        assert answer.status == 0, (words, answer)
        return answer.json

    def wait(self, product: str, ref: str, *, timeout: float = 240.0) -> Answer:
        """`release wait`, whose exit status is the release's end."""
        seconds = ("--timeout", str(timeout), "--format", "json")
        return self.run("release", "wait", product, ref, *seconds, timeout=timeout + 60)

    def published(self, product: str, ref: str, *, timeout: float = 240.0) -> Any:
        """Wait for a release that must be published, and show it."""
        answer = self.wait(product, ref, timeout=timeout)
        assert answer.status == 0, f"{answer.error}\n{answer.out}\n{self.logs(product, ref)}"
        return answer.json

    def show(self, product: str, ref: str) -> Any:
        """A release, None while there is none."""
        answer = self.run("release", "show", product, ref, "--format", "json")
        return answer.json if answer.status == 0 else None

    def logs(self, product: str, ref: str) -> str:
        """The ends of the logs of what did not pass, for a test's own failure."""
        from cleanroom_master.logs import LogStore

        store = LogStore(self.state / "logs")
        shown = self.show(product, ref) or {"builds": []}
        steps = [step for build in shown["builds"] for phase in build["phases"] for step in phase["steps"]]
        return "\n".join(
            store.read(step["log"]["sha256"])[-3000:].decode(errors="replace")
            for step in steps
            if step["outcome"] not in ("passed", "skipped") and step["log"]["sha256"]
        )

    # -- processes -------------------------------------------------------------------------------------------------

    def process(self, service: str) -> int:
        """The number of a service's process once it runs."""
        return int(until(lambda: self._process(service), 60, f"{service} runs"))

    def _process(self, service: str) -> int | None:
        services = {one["name"]: one for one in self.run("status", "--format", "json").json["services"]}
        return services[service]["process"] if services[service]["state"] == "running" else None

    def kill(self, service: str) -> None:
        """End a service at once, with all that it started, and leave it to the supervisor."""
        os.killpg(self.process(service), signal.SIGKILL)

    # -- the record ------------------------------------------------------------------------------------------------

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """One statement as the database's owner says it."""
        connection = psycopg2.connect(database_url(self.settings, Role.OWNER))
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def step(self, product: str, ref: str) -> str | None:
        """The step that a release with one build is in now."""
        rows = self.sql(
            "SELECT step.name FROM cleanroom.step JOIN cleanroom.phase ON phase.id = phase_id"
            " JOIN cleanroom.attempt ON attempt.id = attempt_id JOIN cleanroom.build ON build.id = build_id"
            " JOIN cleanroom.release ON release.id = release_id"
            " WHERE product = %s AND ref = %s AND step.outcome IS NULL",
            product,
            ref,
        )
        return rows[0][0] if rows else None

    # -- products --------------------------------------------------------------------------------------------------

    def tree(self, name: str, content: Mapping[str, str] | Path) -> Repository:
        """A repository with one commit."""
        repository = Repository.make(self.repositories / name)
        if isinstance(content, Path):
            shutil.copytree(content, repository.path, dirs_exist_ok=True)
        else:
            write_tree(repository.path, content)
        repository.git("add", "--force", "--all")
        repository.git("commit", "--quiet", "--message=The first state")
        return repository

    def product(self, name: str, content: Mapping[str, str] | Path, *words: str) -> Repository:
        """A watched repository with one commit; `words` are for `product add`."""
        repository = self.tree(name, content)
        added = self.run("product", "add", name, repository.path.as_uri(), *words)
        assert added.status == 0, added
        return repository

    def script(self, name: str, command: str, recipe: str = "", *words: str) -> Repository:
        """A product that is one command; it has to make result.txt."""
        return self.product(name, {"cleanroom.toml": SCRIPT.format(command=command) + recipe}, *words)


@contextmanager
def installed(state: Path, **more: str) -> Iterator[LiveSite]:
    """An installation in a fresh state directory; what it downloaded before is kept, and images are shared.

    `more` are variables of its own, such as CLEANROOM_NETWORK_MIRROR_PROXY.
    """
    shared = image_of_tests()
    state.mkdir(parents=True, exist_ok=True)
    site = LiveSite(state, **more)
    with ExitStack() as ending:
        lock = ending.enter_context((shared / f"{state.name}.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A session that was killed may have left one that still runs.
        site.run("down")
        for place in mounts.below(state):
            mounts.unmount(place)
        for old in state.iterdir():
            if old.name not in ("proxy", "probes.json"):
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        (state / "images").symlink_to(shared / "images")
        for directory in (site.site, site.repositories):
            directory.mkdir()
        (site.site / "cleanroom.toml").write_text(_SITE)
        ending.callback(site.run, "down")
        yield site


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for a condition and return what it says."""
    deadline = time.monotonic() + seconds
    while not (said := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
    return said


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody uses now, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [probe.getsockname()[1] for probe in probes]
