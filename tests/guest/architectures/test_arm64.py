"""A tiny package built and tested on arm64, whatever the host is. Apart from the other tests: to build the image and to
run the phases by emulation takes half an hour, so this runs where it is asked for, as
`make test SUITE=tests/guest/architectures`."""

from __future__ import annotations

from pathlib import Path

import pytest
from builds import Build, write_tree

from cleanroom_base.errors import InputError
from cleanroom_images.build import build
from cleanroom_images.store import ImageMissing
from cleanroom_recipes import events
from cleanroom_recipes.model import Outcome
from cleanroom_workers.host import Host
from cleanroom_workers.records import Owner

pytestmark = pytest.mark.timeout(5400)
IMAGE = "debian-13-arm64"
# Every process costs dearly there, so nothing is started that is not needed.
RECIPE = """
builder = "deb"
tests = ["hello", "test \\"$(hello)\\" = hello"]
[limits]
memory = 1024
"""
TREE = {
    "debian/control": (
        "Source: hello\nMaintainer: Nobody <nobody@example.org>\nStandards-Version: 4.6.2\n"
        "Rules-Requires-Root: no\n\n"
        "Package: hello\nArchitecture: any\nDepends: libc6\nDescription: a tiny package\n It has a program.\n"
    ),
    "debian/changelog": (
        "hello (1.0) unstable; urgency=medium\n\n  * First.\n\n"
        " -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 12:00:00 +0000\n"
    ),
    "debian/rules": """#!/usr/bin/make -f
build build-arch build-indep:
\tgcc -o hello hello.c
clean:
\trm -rf hello debian/hello debian/files
binary-indep:
binary binary-arch: build
\tinstall -D hello debian/hello/usr/bin/hello
\tmkdir -p debian/hello/DEBIAN
\tdpkg-gencontrol -Pdebian/hello
\tdpkg-deb --root-owner-group --build debian/hello ..
""",
    "debian/source/format": "3.0 (native)\n",
    "hello.c": '#include <stdio.h>\nint main(void) { return puts("hello") < 0; }\n',
}


@pytest.fixture(scope="module", autouse=True)
def image(host: Host) -> None:
    try:
        host.catalogue.image(IMAGE)
    except ImageMissing:
        build(host.catalogue, IMAGE)


def test_a_package_is_built_installed_tested_and_removed(
    host: Host, environment: dict[str, str], tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "tree", TREE)
    way = Build(tmp_path / "build", environment, tree, RECIPE, f"{IMAGE}/deb", "v1.0")
    for phase in ("build", "install", "regress", "remove"):
        told = way.run(phase)
        assert told.outcome is Outcome.PASSED, (phase, told.why, told.log[-2000:])
        assert [reset.isolation for reset in told.of(events.Reset)] == ["emulated"]
        if phase == "build":
            built = {artifact.file: artifact.architecture for artifact in told.of(events.Artifact)}
            assert built["hello_1.0_arm64.deb"] == "arm64"
        if phase == "regress":
            assert set(told.tests.values()) == {Outcome.PASSED}
    assert not host.guests()


def test_a_container_of_it_is_refused(host: Host) -> None:
    with pytest.raises(InputError, match="is for arm64 and this host is"):
        host.reset(IMAGE, isolation="container", owner=Owner.current())
    assert not host.guests()
