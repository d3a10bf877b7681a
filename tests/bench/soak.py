"""Real apt and dnf clients that update in a loop over HTTP, while releases are published, taken back, and the publisher
is killed: none of them may see an error.

Everything is real: the publisher and the server of the repository are processes of their own, releases and rollbacks
are rows, clients have directories and caches of their own and fetch a package every time. A publisher is killed by
SIGKILL, at a moment by chance or where its work would hurt most; then another one is started, as the supervisor does.
"""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import released
import requests
from figures import Row, summary
from installation import fresh, home, say
from many_packages import make_deb, make_rpm, name

from cleanroom_base import run
from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_base.settings import Settings
from cleanroom_db import generations
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_master.places import Places
from cleanroom_master.publish.site import open_repository, open_signer

PUBLICATIONS = 200
APT_CLIENTS = 8
DNF_CLIENTS = 4
_BASE = 20
_TIMEOUT = 600.0
_PAUSE = 0.05
# So many of the releases are taken back, or have the publisher killed over them.
_EVERY = 10
# A publisher that kills itself when it is about to do something.
_DEADLY = """
import os, signal, sys

boundary = sys.argv[1]
switched = False

def hook(event, arguments):
    global switched
    reached = ""
    if event == "subprocess.Popen":
        words = [os.fsdecode(word) for word in arguments[1]]
        reached = "sign the suite" if "--clear-sign" in words else os.path.basename(words[0])
    elif event == "os.rename":
        target = os.path.basename(os.fsdecode(arguments[1]))
        reached = "name it" if target.isdecimal() else "switch" if target == "current" else ""
        switched = switched or target == "current"
    elif event == "open" and switched:
        reached = "note the switch"
    if reached == boundary:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
from cleanroom_master.publisher import main
main()
"""
_BOUNDARIES = ("rpmsign", "createrepo_c", "sign the suite", "apt-get", "name it", "switch", "note the switch")
_APT_DIRECTORIES = ("etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d", "lists/partial", "archives/partial")


@dataclass
class Seen:
    """What clients saw, by their kind."""

    updates: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self, kind: str, command: Sequence[str | Path], marks: Sequence[str], **how: Any) -> None:
        """Run a client's program; anything that it complains about is an error."""
        begun = time.monotonic()
        done = run.run(command, timeout=_TIMEOUT, check=False, **how)
        printed = done.text + done.stderr.decode(errors="replace")
        self.seconds.append(time.monotonic() - begun)
        if done.exit_status != 0 or any(line.startswith(tuple(marks)) for line in printed.splitlines()):
            self.errors.append(f"{kind}, status {done.exit_status}: {' '.join(map(str, command[-3:]))}\n{printed}")


def measure(runs: int | None = None) -> dict[str, Any]:
    """One soak with so many publications."""
    publications = runs or PUBLICATIONS
    with fresh("soak", CLEANROOM_PUBLISHER_POLL="60") as settings, ExitStack() as held:
        work = home() / "soak-work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        held.callback(shutil.rmtree, work, ignore_errors=True)
        database = open_database(settings, Role.OWNER)
        held.callback(database.close)
        released.add_product(database)
        publisher = held.enter_context(_Publisher(settings).running())
        watch = held.enter_context(released.Watch(database))
        watch.release(_record(database, settings, 0, _packages(work, range(_BASE))))
        held.enter_context(_server(settings))
        seen = Seen()
        begun = time.monotonic()
        with _clients(work, settings.repository_url, seen):
            row = _drive(watch, database, settings, publisher, work, publications)
        row["minutes"] = round((time.monotonic() - begun) / 60, 1)
        row |= _checked(database, settings)
    for error in seen.errors[:_EVERY]:
        say(f"soak: a client's error: {error}")
    row |= {f"updates by {kind}": count for kind, count in sorted(seen.updates.items())}
    row["client errors"] = len(seen.errors)
    return {"soak": row, "clients": summary(seen.seconds), "errors": seen.errors}


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [
        ("clients that update in a loop while releases come and go and the publisher is killed", [measured["soak"]]),
        ("how long a client's program took, in seconds", [measured["clients"]]),
    ]


def _drive(
    watch: released.Watch,
    database: Database,
    settings: Settings,
    publisher: _Publisher,
    work: Path,
    publications: int,
) -> Row:
    """Publish, take back and kill; returns how often, and how long publications took where nothing was killed."""
    chance = random.Random(publications)
    boundaries = itertools.cycle(_BOUNDARIES)
    took, rollbacks, kills = [], 0, 0
    for number in range(1, publications + 1):
        files = _packages(work, range(_BASE + number, _BASE + number + 1))
        kill = number % _EVERY == _EVERY // 2
        if kill and kills % 2:
            publisher.start(next(boundaries))
        begun = time.monotonic()
        release = _record(database, settings, number, files)
        if kill:
            if not kills % 2:
                publisher.kill_after(chance.uniform(0, 0.5))
            publisher.wait_for_death()
            publisher.start()
            kills += 1
        watch.release(release, _TIMEOUT)
        if not kill:
            took.append(time.monotonic() - begun)
        if number % _EVERY == 0:
            current = generations.current(database)
            assert current is not None
            back = max(1, current.number - chance.randint(1, _EVERY // 2))
            watch.request(released.ask_for_rollback(database, back), _TIMEOUT)
            rollbacks += 1
            say(f"soak: {number} of {publications} published, {rollbacks} rollbacks, {kills} kills")
    return {
        "publications": publications,
        "rollbacks": rollbacks,
        "kills": kills,
        "median publication": summary(took)["p50"] if took else None,
    }


def _checked(database: Database, settings: Settings) -> Row:
    """Whether record and disk agree in the end, and the last generation is whole."""
    with open_signer(settings) as signer:
        repository = open_repository(settings, signer)
        number = repository.current()
        current = generations.current(database)
        if current is None or number != current.number or generations.unswitched(database) is not None:
            raise InfrastructureError(f"the record has {current}, and the disk generation {number}")
        problems = repository.verify(number)
        if problems:
            raise InfrastructureError(f"generation {number} is not whole: {problems[:_EVERY]}")
        recorded = {one.sha256 for one in generations.contents(database, number)}
        if recorded != {one.sha256 for one in repository.read(number).packages}:
            raise InfrastructureError(f"generation {number} has other packages than the record says")
        return {"generations": number}


# -- what is published ---------------------------------------------------------------------------------------------


def _packages(work: Path, numbers: range) -> list[Path]:
    place = work / "files"
    place.mkdir(exist_ok=True)
    return [make(place, number) for number in numbers for make in (make_deb, make_rpm)]


def _record(database: Database, settings: Settings, number: int, files: list[Path]) -> int:
    released.keep(settings, files)
    return released.record(database, number, files)


class _Publisher:
    """The publisher's process, of which there is always a next one."""

    def __init__(self, settings: Settings) -> None:
        self._log = Places(settings).service_log("publisher")
        self._process: run.Process | None = None

    @contextmanager
    def running(self) -> Iterator[_Publisher]:
        """Have one until the end; what it said stands in an error."""
        self.start()
        try:
            yield self
        except TimedOut as error:
            raise InfrastructureError(f"{error.message}:\n{self._log.read_text()[-2000:]}") from error
        finally:
            self._end()

    def start(self, boundary: str = "") -> None:
        """A new one in the place of the one that there is; at a boundary it kills itself."""
        self._end()
        words = ["-c", _DEADLY, boundary] if boundary else ["-m", "cleanroom_master.publisher"]
        self._process = run.start([sys.executable, *words], log=self._log, end_with_parent=True)

    def kill_after(self, seconds: float) -> None:
        """Kill it in a moment."""
        time.sleep(seconds)
        assert self._process is not None
        self._process.kill()

    def wait_for_death(self) -> None:
        """Wait until it is dead. Raises TimedOut."""
        assert self._process is not None
        if not run.wait(self._process, _TIMEOUT):
            raise TimedOut("the publisher did not come to where it is to be killed")

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            run.wait(self._process, _TIMEOUT)
            run.kill_group(self._process)


# -- clients -------------------------------------------------------------------------------------------------------


@contextmanager
def _server(settings: Settings) -> Iterator[None]:
    log = Places(settings).service_log("repository")
    process = run.start([sys.executable, "-m", "cleanroom_master.repository_server"], log=log, end_with_parent=True)
    deadline = time.monotonic() + _TIMEOUT
    try:
        while True:
            try:
                requests.get(settings.repository_url, timeout=5)
                break
            except requests.ConnectionError as error:
                if time.monotonic() > deadline:
                    raise InfrastructureError(f"the repository is not served: {log.read_text()[-2000:]}") from error
            time.sleep(_PAUSE)
        yield
    finally:
        process.terminate()
        run.wait(process, _TIMEOUT)
        run.kill_group(process)


@contextmanager
def _clients(work: Path, url: str, seen: Seen) -> Iterator[None]:
    loops = [(_apt, work / f"apt-{number}") for number in range(APT_CLIENTS)]
    loops += [(_dnf, work / f"dnf-{number}") for number in range(DNF_CLIENTS)]
    threads = [threading.Thread(target=loop, args=(place, url, seen)) for loop, place in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        seen.ended.set()
        for thread in threads:
            thread.join()
        # dnf checks signatures with a gpg home of its own, and leaves its agent running.
        for pubring in work.glob("dnf-*/cache/*/pubring"):
            run.run(["gpgconf", "--homedir", pubring, "--kill", "gpg-agent"], timeout=60, check=False)


def _apt(place: Path, url: str, seen: Seen) -> None:
    for directory in _APT_DIRECTORIES:
        (place / directory).mkdir(parents=True)
    (place / "status").touch()
    (place / "key.asc").write_bytes(requests.get(f"{url}/keys/cleanroom.asc", timeout=60).content)
    (place / "sources.list").write_text(f"deb [signed-by={place}/key.asc arch=amd64] {url}/apt testing debian-12\n")
    configuration = place / "apt.conf"
    configuration.write_text(
        f'Dir::Etc "{place}/etc"; Dir::Etc::Parts "apt.conf.d"; Dir::Etc::SourceList "{place}/sources.list";\n'
        f'Dir::Etc::SourceParts "/dev/null"; Dir::Etc::PreferencesParts "preferences.d"; Dir::State "{place}";\n'
        f'Dir::Etc::TrustedParts "trusted.gpg.d"; Dir::State::Lists "lists"; Dir::State::Status "{place}/status";\n'
        f'Dir::Cache "{place}"; APT::Sandbox::User ""; Acquire::http::Proxy "DIRECT"; Acquire::Retries "0";\n'
    )
    how = {"environment": {"APT_CONFIG": str(configuration), "LC_ALL": "C"}, "cwd": place}
    for number in itertools.count():
        if seen.ended.is_set():
            return
        seen.run("apt", ["apt-get", "--quiet", "--error-on=any", "update"], ("W:", "E:", "Err:"), **how)
        seen.updates["apt"] += 1
        wanted = name(number % _BASE)
        seen.run("apt", ["apt-get", "--quiet", "download", wanted], ("W:", "E:", "Err:"), **how)
        for fetched in place.glob("*.deb"):
            fetched.unlink()


def _dnf(place: Path, url: str, seen: Seen) -> None:
    (place / "repos").mkdir(parents=True)
    (place / "log").mkdir()
    (place / "dnf.conf").write_text("[main]\n")
    (place / "repos/bench.repo").write_text(
        f"[bench]\nname=bench\nmirrorlist={url}/yum/debian-12/testing/mirrorlist\nenabled=1\ngpgcheck=1\n"
        f"repo_gpgcheck=1\ngpgkey={url}/keys/cleanroom.asc\n"
    )
    options = {"reposdir": "repos", "cachedir": "cache", "logdir": "log", "persistdir": "persist"}
    command = ["dnf", f"--config={place}/dnf.conf", f"--installroot={place}/root", "--releasever=1", "--assumeyes"]
    command += [f"--setopt={option}={place}/{directory}" for option, directory in options.items()]
    command += ["--setopt=proxy=", "--setopt=retries=1", "--setopt=skip_if_unavailable=False", "--refresh"]
    for number in itertools.count():
        if seen.ended.is_set():
            return
        # That it had to ask another mirror counts as an error, too.
        wanted = [name(number % _BASE)]
        seen.run("dnf", [*command, "makecache"], ("Error", "[MIRROR]", "Warning"), environment={"LC_ALL": "C"})
        seen.updates["dnf"] += 1
        seen.run(
            "dnf",
            [*command, "--downloadonly", "install", *wanted],
            ("Error", "[MIRROR]", "Warning"),
            environment={"LC_ALL": "C"},
        )
        seen.updates["dnf"] += 1
