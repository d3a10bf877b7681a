"""What goes wrong in the life of a package, in real guests: many packages one after the other in one guest each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import broken_packages as broken
import pytest
from broken_packages import Tiny
from surroundings import IMAGE
from tiny_packages import make_deb, make_rpm

from cleanroom_recipes import builders
from cleanroom_recipes.model import Builder
from cleanroom_workers import failure_reason
from cleanroom_workers.guest import Guest, plain_environment
from cleanroom_workers.host import Host
from cleanroom_workers.pool import Kind
from cleanroom_workers.records import Owner

PASSED = "passed"
SLEEP = "/bin/sleep 1000"
_HOME = "/cleanroom"
_CLEAN = {
    Builder.DEB: "systemctl stop tiny; dpkg --purge --force-all tiny; rm -f /etc/apt/sources.list.d/*.list",
    # dnf believes what it read before of a repository whose description is not newer, in whole seconds.
    Builder.RPM: "systemctl stop tiny; rpm --erase --noscripts tiny; rm -rf /etc/yum.repos.d/*.repo /var/cache/dnf",
}
_TRACES = (
    f"kill $(cat {broken.PROCESS}); rm -rf {broken.PROCESS} /var/lib/tiny /etc/tiny* /tmp/*"
    " /etc/systemd/system/*/tiny.service; systemctl daemon-reload; systemctl reset-failed"
)


class Life:
    """A guest in which tiny packages live, one after the other, by the steps of their builder."""

    def __init__(self, guest: Guest, builder: Builder, directory: Path) -> None:
        self._guest = guest
        self._builder = builder
        self._directory = directory

    def step(self, phase: str, name: str) -> tuple[int, str]:
        """Run a step of a builder; its exit status, and all that it said."""
        [definition] = [one for one in builders.definition(self._builder).phases if one.name == phase]
        [step] = [one for one in definition.steps if one.name == name]
        environment = {
            **plain_environment("root"),
            "CLEANROOM_ARTIFACTS": f"{_HOME}/artifacts",
            "CLEANROOM_PREVIOUS": f"{_HOME}/previous",
        }
        said: list[bytes] = []
        program = builders.program(self._builder, step).encode()
        self._guest.run(["tee", "/step"], timeout=10, stdin=program)
        done = self._guest.run(["sh", "/step"], timeout=120, environment=environment, output=said.append)
        return done.exit_status, b"".join(said).decode()

    def phase(self, phase: str, new: Tiny, old: Tiny | None = None) -> str:
        """Run a phase without its update, for a new package and one that is published; says what became of it."""
        self._guest.run(["sh", "-c", f"{_CLEAN[self._builder]}; {_TRACES}"], timeout=60)
        self._send("artifacts", new, "2.0")
        if old is not None:
            self._send("previous", old, "1.0")
        [definition] = [one for one in builders.definition(self._builder).phases if one.name == phase]
        self.printed = ""
        for step in definition.steps:
            if step.prepares or not step.required:
                continue
            status, printed = self.step(phase, step.name)
            self.printed += printed
            if status not in (0, 77):
                return f"{step.name}: {failure_reason.why(printed, status=status, step=step.name)}"
        return PASSED

    def _send(self, place: str, tiny: Tiny, version: str) -> None:
        """Have one package in a directory of the guest, which was empty."""
        make: Callable[..., Path] = make_deb if self._builder is Builder.DEB else make_rpm
        directory = self._directory / place
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        package = make(directory, version=version, files=tiny.files, scripts=tiny.scripts)
        self._guest.run(["rm", "-rf", f"{_HOME}/{place}"], timeout=10)
        self._guest.copy_in(package, f"{_HOME}/{place}/{package.name}")


@pytest.fixture(scope="module")
def deb(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with host.reset(IMAGE, isolation="container", owner=Owner.current()) as guest:
        yield Life(guest, Builder.DEB, tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="module")
def rpm(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    steps = next(phase.steps for phase in builders.definition(Builder.RPM).phases if phase.name == "install")
    preparation = tuple(builders.program(Builder.RPM, step) for step in steps if step.prepares)
    kind = Kind(IMAGE, "container", "mirror", host.limits, preparation)
    if host.lacks_layer(kind):
        host.make_layer(kind)
    with host.reset(IMAGE, isolation="container", owner=Owner.current(), preparation=preparation) as guest:
        yield Life(guest, Builder.RPM, tmp_path_factory.mktemp("rpm"))


INSTALLED = [
    ("good", broken.GOOD, PASSED),
    ("postinst", broken.FAILS, "install: postinst of tiny failed: it returned error exit status 3"),
    (
        "read",
        broken.READS,
        "install: a maintainer script reads from the terminal, where nobody is to be asked anything",
    ),
    (
        "question",
        broken.question(),
        "install: debconf asks tiny/name (string, high), which has no default",
    ),
    ("answered", broken.question("tiny"), PASSED),
    (
        "configuration",
        broken.CHANGES_ITS_CONFIGURATION,
        "install: the scripts of tiny change its configuration file /etc/tiny.conf, which is the administrator's to do",
    ),
    ("service", broken.service(SLEEP), PASSED),
    ("not-started", broken.service(SLEEP, started=False), PASSED),
    (
        "exits",
        broken.service("/bin/true"),
        "services: tiny.service does not keep running after the installation",
    ),
    (
        "fails",
        broken.service("/bin/false"),
        "services: tiny.service failed (exit-code, status 1) after the installation",
    ),
    (
        "does-not-stop",
        broken.service("/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'", "TimeoutStopSec=1"),
        "services: tiny.service does not stop cleanly: timeout",
    ),
    (
        "leaves-a-process",
        broken.service(f"/bin/sh -c '{SLEEP} & exec {SLEEP}'", "KillMode=process"),
        "services: tiny.service has stopped, and its process ",
    ),
]


@pytest.mark.parametrize(("tiny", "said"), [case[1:] for case in INSTALLED], ids=[case[0] for case in INSTALLED])
def test_what_goes_wrong_at_an_installation_is_said(deb: Life, tiny: Tiny, said: str) -> None:
    assert deb.phase("install", tiny).startswith(said), deb.printed[-3000:]


UPGRADED = [
    ("good", broken.CONFIGURED, broken.GOOD, PASSED),
    (
        "configuration",
        broken.LOSES_THE_ADMINISTRATORS,
        broken.GOOD,
        "configuration: the upgrade does not keep what an administrator changed in /etc/tiny.conf",
    ),
    (
        "service",
        broken.service("/bin/false"),
        broken.service(SLEEP),
        "services: tiny.service failed (exit-code, status 1) after the installation",
    ),
]


@pytest.mark.parametrize(("new", "old", "said"), [case[1:] for case in UPGRADED], ids=[case[0] for case in UPGRADED])
def test_what_goes_wrong_at_an_upgrade_is_said(deb: Life, new: Tiny, old: Tiny, said: str) -> None:
    assert deb.phase("upgrade", new, old) == said, deb.printed[-3000:]


def test_what_is_published_can_come_back(deb: Life) -> None:
    assert deb.phase("downgrade", broken.CONFIGURED, broken.GOOD) == PASSED, deb.printed[-3000:]
    broken_before = broken.Tiny(scripts={"preinst": broken.script("exit 1")})
    said = deb.phase("downgrade", broken.GOOD, broken_before)
    assert said == "downgrade: preinst of tiny failed: it returned error exit status 1"


REMOVED = [
    ("good", broken.GOOD, PASSED),
    ("service", broken.service(SLEEP), PASSED),
    ("leftover", broken.LEAVES_A_FILE, "purge: removed, the packages leave 2 paths behind, first /var/lib/tiny"),
    ("runs", broken.service(SLEEP, stopped=False), "remove: tiny.service still runs after the removal"),
    ("process", broken.FORKS, "remove: after the removal process "),
]


@pytest.mark.parametrize(("tiny", "said"), [case[1:] for case in REMOVED], ids=[case[0] for case in REMOVED])
def test_what_goes_wrong_at_a_removal_is_said(deb: Life, tiny: Tiny, said: str) -> None:
    assert deb.phase("remove", tiny).startswith(said), deb.printed[-3000:]


def test_the_same_holds_for_dnf(rpm: Life) -> None:
    def scripts(**what: str) -> Tiny:
        return Tiny(broken.GOOD.files, what)

    leaves = scripts(post="mkdir -p /var/lib/tiny; touch /var/lib/tiny/state")
    running = broken.service(SLEEP, rpm=True)
    found = {
        "good": rpm.phase("install", broken.GOOD),
        "post": rpm.phase("install", scripts(post="exit 3")),
        "configuration": rpm.phase("install", scripts(post="echo level = 9 >>/etc/tiny.conf")),
        "service": rpm.phase("install", running),
        "exits": rpm.phase("install", broken.service("/bin/true", rpm=True)),
        "upgrade": rpm.phase("upgrade", broken.CONFIGURED, broken.GOOD),
    }
    assert "what /etc/tiny.conf would be now is /etc/tiny.conf.rpmnew" in rpm.printed
    found |= {
        "loses": rpm.phase("upgrade", scripts(post=broken.LOSES), broken.GOOD),
        "downgrade": rpm.phase("downgrade", broken.CONFIGURED, broken.GOOD),
        "removed": rpm.phase("remove", running),
        "leftover": rpm.phase("remove", leaves),
        "runs": rpm.phase("remove", broken.service(SLEEP, stopped=False, rpm=True)),
    }
    assert found == {
        **dict.fromkeys(("good", "service", "upgrade", "downgrade", "removed"), PASSED),
        "post": "install: %post of tiny-2.0-1.noarch failed: exit status 3",
        "configuration": "install: the scripts of tiny-2.0-1.noarch change its configuration file /etc/tiny.conf,"
        " which is the administrator's to do",
        "exits": "services: tiny.service does not keep running after the installation",
        "loses": "configuration: the upgrade does not keep what an administrator changed in /etc/tiny.conf",
        "leftover": "remove: removed, the packages leave 2 paths behind, first /var/lib/tiny",
        "runs": "remove: tiny.service still runs after the removal",
    }
