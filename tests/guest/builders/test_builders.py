"""The builders in real guests: a product the whole way, and builds that are broken or hostile."""

from __future__ import annotations

import io
import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builds import Build, Told, write_tree

from cleanroom_recipes import events, places
from cleanroom_recipes.model import Builder, Outcome, RefKind
from cleanroom_workers.host import Host
from cleanroom_workers.pool import Kind

TALLY = places.products() / "tally"
RECIPE = (TALLY / "cleanroom.toml").read_text().replace('name = "tally"', 'name = "x"')
DEB = 'builder = "deb"\n'

CONTROL = """\
Source: tiny
Maintainer: Nobody <nobody@example.org>
Build-Depends: debhelper-compat (= 13)
Standards-Version: 4.6.2
Rules-Requires-Root: no

Package: tiny
Architecture: all
Description: a tiny package
 It has nothing.
"""
CHANGELOG = """\
tiny (1.3) unstable; urgency=medium

  * First.

 -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 12:00:00 +0000
"""
TINY = {
    "debian/control": CONTROL,
    "debian/changelog": CHANGELOG,
    "debian/rules": "#!/usr/bin/make -f\n%:\n\tdh $@\n",
    "debian/source/format": "3.0 (native)\n",
}

Make = Callable[..., Build]


@pytest.fixture
def make(tmp_path: Path, host: Host, environment: dict[str, str]) -> Make:
    """Makes a build from a tree (a directory, or files and their content)."""

    def make(tree: Path | dict[str, str], recipe: str, *, target: str = "debian-12/deb", ref: str = "v1.3") -> Build:
        directory = tree if isinstance(tree, Path) else write_tree(tmp_path / "tree", tree)
        return Build(tmp_path / "build", environment, directory, recipe, target, ref)

    return make


@pytest.fixture(autouse=True)
def _no_guest_outlives_its_phase(host: Host) -> Iterator[None]:
    yield
    assert not host.guests()


def script(make: Make, command: str, *, root: bool = False, more: str = "") -> Told:
    """Run one command as a build; by root if wished."""
    step = f'[[phases.build.steps]]\nname = "hostile"\nuser = "root"\nrun = """{command}"""\n' if root else ""
    harmless = "echo done > result.txt"
    recipe = (
        'builder = "script"\nartifacts = ["result.txt"]\n'
        f'commands = ["""{harmless if root else command}"""]\n{more}\n{step}'
    )
    return make({"README": "hello\n"}, recipe, target="debian-12/script").run("build")


# -- whole ways ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["deb", "rpm"])
def tally(
    request: pytest.FixtureRequest, host: Host, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Build, Told]:
    """Release 1.0 of tally, built as one of its formats, and what its build told."""
    build = Build(tmp_path_factory.mktemp("tally"), environment, TALLY, RECIPE, f"debian-12/{request.param}", "v1.0")
    build.without = ()
    _make_layers(host, build)
    return build, build.run("build")


def _make_layers(host: Host, build: Build) -> None:
    """Spare the phases what every one begins with, as the pool does; the first build of all does without."""
    if build.target.format is Builder.RPM:
        for preparation in {phase.preparation for phase in build.phases.values()}:
            kind = Kind(build.target.image, "container", "mirror", host.limits, preparation)
            if host.lacks_layer(kind):
                host.make_layer(kind)


def test_tally_is_built(tally: tuple[Build, Told]) -> None:
    build, told = tally
    assert (told.outcome, told.exit_status) == (Outcome.PASSED, 0), told.why
    assert told.steps["lint"] is Outcome.PASSED, told.log[-2000:]
    assert len(told.tests) == 17
    assert set(told.tests.values()) == {Outcome.PASSED}
    formats = {artifact.file: artifact.format for artifact in told.of(events.Artifact)}
    assert formats.keys() == {file.name for file in build.artifacts.iterdir()}
    if build.target.format is Builder.DEB:
        assert told.of(events.Version)[0].version == "1.0"
        assert formats["tally_1.0_amd64.deb"] == "deb"
        assert formats["tally_1.0.tar.xz"] == "source"
        assert "\n debhelper (= " in (build.artifacts / "tally_1.0_amd64.buildinfo").read_text()
    else:
        assert told.of(events.Version)[0].version == "1.0-1"
        assert formats["tally-1.0-1.src.rpm"] == "source-rpm"
        record = (build.artifacts / "tally-1.0-1.buildinfo").read_text()
        assert "Unchecked-Build-Requires: gcc make\n" in record
        assert "\n gcc (= " in record


def test_tally_is_installed_tested_and_removed(tally: tuple[Build, Told]) -> None:
    build, _ = tally
    upgrade = build.run("upgrade")
    assert (upgrade.outcome, upgrade.why) == (Outcome.SKIPPED, "nothing is published to upgrade from")
    assert not upgrade.of(events.Reset)
    for phase in ("install", "regress", "remove"):
        told = build.run(phase)
        assert told.outcome is Outcome.PASSED, (phase, told.why, told.log[-2000:])
        assert len(told.of(events.Reset)) == 1
        if phase == "regress":
            own = {"command", "library"} if build.target.format is Builder.DEB else set()
            # The recipe's command is a case of its own, and so is each test that it prints.
            assert set(told.tests) > {*own, "test-1", "lines are counted"}
            assert set(told.tests.values()) == {Outcome.PASSED}


def test_a_commit_is_an_upgrade(make: Make, tally: tuple[Build, Told]) -> None:
    release, _ = tally
    snapshot = make(TALLY, RECIPE, target=str(release.target), ref="main")
    snapshot.kind, snapshot.previous = RefKind.COMMIT, release.artifacts
    built = snapshot.run("build")
    assert "1.0+git20260131120000.0123456" in built.of(events.Version)[0].version
    upgraded = snapshot.run("upgrade")
    assert upgraded.outcome is Outcome.PASSED, (upgraded.why, upgraded.log[-2000:])
    snapshot.artifacts, snapshot.previous = release.artifacts, snapshot.artifacts
    backwards = snapshot.run("upgrade")
    assert backwards.outcome is Outcome.SKIPPED
    assert "is not older than 1.0" in backwards.why


def test_a_quilt_package_gets_the_same_upstream_tarball_every_time(make: Make) -> None:
    tree = {
        **TINY,
        "debian/changelog": CHANGELOG.replace("1.3", "1:1.3-2"),
        "debian/source/format": "3.0 (quilt)\n",
        "debian/install": "upstream.txt usr/share/tiny\n",
        "debian/patches/series": "first.patch\n",
        "debian/patches/first.patch": "--- a/upstream.txt\n+++ b/upstream.txt\n@@ -1 +1 @@\n-hello\n+patched\n",
    }
    sums = []
    # Some branches have the patches applied, some have not.
    for upstream in ("hello\n", "patched\n"):
        build = make({**tree, "upstream.txt": upstream}, DEB)
        told = build.run("build")
        assert told.outcome is Outcome.PASSED, told.why
        assert told.of(events.Version)[0].version == "1:1.3-2"
        sums += [one.sha256 for one in told.of(events.Artifact) if one.file == "tiny_1.3.orig.tar.gz"]
        shutil.rmtree(build.directory)
    assert len(sums) == 2
    assert sums[0] == sums[1]


# -- broken products -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "ref", "why"),
    [
        ({"README": "x"}, "v1.3", "the source tree has no debian/ directory"),
        ({**TINY, "debian/control": "Source tiny\n\n"}, "v1.3", "debian/control is broken: "),
        ({**TINY, "debian/changelog": "nonsense\n"}, "v1.3", "debian/changelog is broken: "),
        (TINY, "v1.2", "tag v1.2 says 1.2, debian/changelog says 1.3"),
        (
            {**TINY, "debian/control": CONTROL.replace("(= 13)", "(= 13), libnonexistent-dev")},
            "v1.3",
            "step dependencies ended with status 100: ",
        ),
        (
            {
                **TINY,
                "debian/rules": "#!/usr/bin/make -f\n%:\n\tdh $@\noverride_dh_auto_test:\n\t@echo FAIL: x; false\n",
            },
            "v1.3",
            "step build ended with status 2: FAIL: x",
        ),
    ],
    ids=["no-debian", "control", "changelog", "version", "dependency", "tests"],
)
def test_a_broken_debian_package_says_what_is_wrong(make: Make, tree: dict[str, str], ref: str, why: str) -> None:
    build = make(tree, DEB, ref=ref)
    told = build.run("build")
    assert (told.outcome, told.exit_status) == (Outcome.FAILED, 1)
    assert told.why.startswith(why)
    assert not list(build.artifacts.iterdir())


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"README": "x"}, "the source tree has no .spec at its top, and the recipe names none"),
        ({"tiny.spec": "Name: tiny\nVersion\n"}, "tiny.spec is broken: "),
        (
            {"tiny.spec": "Name: tiny\nVersion: 9\nRelease: 1\nSummary: x\nLicense: x\n%description\nx\n%files\n"},
            "tag v1.3 says 1.3, tiny.spec says 9",
        ),
    ],
    ids=["no-spec", "spec", "version"],
)
def test_a_broken_rpm_package_says_what_is_wrong(make: Make, tree: dict[str, str], why: str) -> None:
    told = make(tree, 'builder = "rpm"\n', target="debian-12/rpm").run("build")
    assert told.outcome is Outcome.FAILED
    assert told.why.startswith(why)


def test_leftovers_are_named(make: Make) -> None:
    tree = {**TINY, "debian/tiny.postinst": "#!/bin/sh\n#DEBHELPER#\ntouch /etc/tiny-was-here\n"}
    build = make(tree, DEB)
    assert build.run("build").outcome is Outcome.PASSED
    told = build.run("remove")
    assert told.outcome is Outcome.FAILED
    assert told.why == "removed, the packages leave 1 paths behind, first /etc/tiny-was-here"


def test_a_package_that_does_not_install_fails(make: Make) -> None:
    tree = {**TINY, "debian/tiny.postinst": "#!/bin/sh\necho E: Failed to fetch http://x; exit 1\n"}
    build = make(tree, DEB)
    assert build.run("build").outcome is Outcome.PASSED
    told = build.run("install")
    assert told.outcome is Outcome.FAILED, told.why


# -- hostile products ------------------------------------------------------------------------------------------


def test_a_build_that_hangs_is_ended(make: Make) -> None:
    told = script(make, "echo begun; sleep 1000", more="[phases.build]\ntimeout = 30")
    assert (told.outcome, told.why) == (Outcome.FAILED, "the phase did not end in 30 seconds")
    assert "begun\n" in told.log


def test_a_build_that_writes_without_end_to_its_log_is_ended(
    make: Make, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(environment, "CLEANROOM_WORKER_LOG_LIMIT", "1000000")
    told = script(make, "yes")
    assert told.outcome is Outcome.FAILED
    assert told.why == "step command-1 printed more than 1000000 bytes and was ended"
    assert told.of(events.StepFinished)[-1].truncated
    assert 900_000 < len(told.log) <= 1_000_000 + 10_000


def test_a_build_that_fills_its_disk_fails(make: Make) -> None:
    told = script(make, "dd if=/dev/zero of=fill bs=1M", more="[limits]\ndisk = 768")
    assert told.outcome is Outcome.FAILED
    assert "No space left on device" in told.why


def test_a_build_that_forks_without_end_fails(make: Make) -> None:
    more = "[limits]\nprocesses = 256\n[timeouts]\nstep = 30"
    told = script(make, "f() { f | f & }; f; sleep 5; ls | cat", more=more)
    assert told.outcome is Outcome.FAILED
    assert told.exit_status == 1


@pytest.mark.parametrize(
    "command", ["poweroff -f; sleep 60", "systemctl poweroff; sleep 60", "kill -SEGV 1; kill -ABRT 1; poweroff -ff"]
)
def test_a_build_that_ends_its_guest_says_that_it_went_off(make: Make, command: str) -> None:
    told = script(make, command, root=True, more="[timeouts]\nstep = 60")
    assert told.of(events.PhaseFinished)[0].guest_went_off, told.why
    assert "went off, which may be its product's doing, during step hostile" in told.why


def test_links_do_not_come_out_but_test_cases_do(make: Make) -> None:
    told = script(
        make,
        "touch result.txt; ln -s /etc/shadow $CLEANROOM_OUTPUT/shadow; mkdir out; ln -s /etc/shadow out/junit-2.xml\n"
        "echo \"<testsuite><testcase name='file'><failure/></testcase></testsuite>\" > out/junit.xml\n"
        "echo 'ok 1 - own' > $CLEANROOM_RESULTS/own.tap; echo 'FAIL: printed'",
    )
    assert told.tests == {"file": Outcome.FAILED, "own": Outcome.PASSED, "printed": Outcome.FAILED}
    assert [case.line for event in told.of(events.Tests) for case in event.cases] == [None, None, 1]
    assert told.steps["command-1"] is Outcome.PASSED
    assert told.of(events.StepFinished)[-2].remark is None
    assert told.outcome is Outcome.FAILED
    assert "shadow" in told.why
    assert not told.of(events.Artifact)


def test_a_name_that_lies_does_not_come_out(make: Make) -> None:
    told = script(make, "touch result.txt; echo x > $CLEANROOM_OUTPUT/good_1.0_all.deb")
    assert told.outcome is Outcome.FAILED
    assert told.why == "good_1.0_all.deb is not what its name says: it does not begin like one"


def test_a_guest_whose_tar_lies_writes_nowhere(make: Make, tmp_path: Path) -> None:
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as tar:
        for name in ("output/../../../evil", "/tmp/evil", "output/fine"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    tree = write_tree(tmp_path / "tree", {"README": "x"})
    (tree / "evil.tar").write_bytes(evil.getvalue())
    recipe = (
        'builder = "script"\nartifacts = ["README"]\ncommands = ["true"]\n'
        '[[phases.build.steps]]\nname = "hostile"\nuser = "root"\nrun = """\n'
        "cp evil.tar /evil.tar; rm /usr/bin/tar; printf '#!/bin/sh\\\\ncat /evil.tar\\\\n' > /usr/bin/tar\n"
        'chmod +x /usr/bin/tar"""\n'
    )
    build = make(tree, recipe, target="debian-12/script")
    told = build.run("build")
    assert told.outcome is Outcome.FAILED, told.why
    assert "leads out of its directory" in told.why
    assert not list(build.artifacts.iterdir())
    assert not list(tmp_path.rglob("evil"))


# -- the end of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_phase_that_is_cancelled_leaves_no_guest(make: Make, host: Host, number: signal.Signals) -> None:
    recipe = 'builder = "script"\nartifacts = ["x"]\ncommands = ["echo begun; sleep 1000"]\n'
    with make({"README": "x"}, recipe, target="debian-12/script").start("build") as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if b"begun" in line:
                os.kill(process.pid, number)
        process.wait(60)
    told = Told(b"".join(lines), process.returncode)
    assert (told.outcome, told.exit_status) == (Outcome.CANCELLED, 143)
    assert told.of(events.Reset)[0].guest not in [guest.name for guest in host.guests()]
