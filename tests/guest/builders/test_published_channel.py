"""What is published, as a source of packages for the guests of a build."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from builds import Build, write_tree
from live_site import until
from publishing import signer
from tiny_packages import make_deb, make_rpm, sha256

from cleanroom_base.settings import Settings
from cleanroom_master import channel
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer
from cleanroom_master.publish.site import repository_directory
from cleanroom_recipes import events
from cleanroom_recipes.model import GuestNetwork, Outcome
from cleanroom_workers.host import Host

__all__ = ["signer"]

SERVE = (
    "import sys; from pathlib import Path; from cleanroom_master.repository_server import serve;"
    "serve(Path(sys.argv[1]), ['127.0.0.1'], int(sys.argv[2]))"
)
# A package that is built without any help, so that nothing but what is published has to be installed.
TREE = {
    "debian/control": "Source: tiny\nMaintainer: Nobody <nobody@example.org>\nBuild-Depends: library (>= 1.0)\n"
    "Standards-Version: 4.6.2\nRules-Requires-Root: no\n\n"
    "Package: tiny\nArchitecture: all\nDepends: library\nDescription: a tiny package\n It has nothing.\n",
    "debian/changelog": "tiny (1.3) unstable; urgency=medium\n\n  * First.\n\n"
    " -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 12:00:00 +0000\n",
    "debian/source/format": "3.0 (native)\n",
    "debian/rules": "#!/usr/bin/make -f\nbuild build-arch build-indep:\n\tgrep hello /usr/share/library/greeting\n"
    "clean binary-arch:\nbinary-indep binary:\n\tmkdir -p debian/tiny/DEBIAN\n\tdpkg-gencontrol -ptiny -Pdebian/tiny\n"
    "\tdpkg-deb --root-owner-group --build debian/tiny ..\n.PHONY: build clean binary\n",
}


@pytest.fixture
def server(host: Host, settings: Settings, signer: Signer, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A library, and a later version than the one under test, are published and served to this host's guests."""
    directory = repository_directory(settings)
    shutil.rmtree(directory, ignore_errors=True)
    port = settings.whole("repository.port")
    repository = Repository(directory, signer, origin="Test", url=f"http://localhost:{port}")
    packages = []
    for name, version in (("library", "1.0"), ("tiny", "2.0")):
        for file in (make_deb(tmp_path, name, version, architecture="all"), make_rpm(tmp_path, name, version)):
            added = repository.add_to_pool(file, sha256(file))
            packages.append(added.published_in("testing", f"debian-12/{added.format}"))
    repository.build(1, packages)
    repository.switch(1)
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(directory), str(port)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port), 30, "the repository is served")
        yield process
    finally:
        process.kill()
        process.wait(timeout=20)
        shutil.rmtree(directory)


def _answers(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def test_a_build_sees_the_channel_and_tests_its_own_packages(
    tmp_path: Path, environment: dict[str, str], settings: Settings, server: subprocess.Popen[bytes]
) -> None:
    tree = write_tree(tmp_path / "tree", TREE)
    build = Build(tmp_path / "build", environment, tree, 'builder = "deb"\n', "debian-12/deb", "v1.3")
    build.repository = channel.published(repository_directory(settings), "testing", "debian-12")
    built = build.run("build")
    assert built.outcome is Outcome.PASSED, (built.why, built.log[-3000:])
    assert built.of(events.Reset)[0].network is GuestNetwork.REPOSITORY
    assert "\n library (= 1.0)" in (build.artifacts / "tiny_1.3_amd64.buildinfo").read_text()

    # The version that is published is later; what is tested is what was built, with what is published around it.
    installed = build.run("install")
    assert installed.outcome is Outcome.PASSED, (installed.why, installed.log[-3000:])
    assert "Setting up library (1.0)" in installed.log
    assert "Setting up tiny (1.3)" in installed.log

    server.kill()
    server.wait(timeout=20)
    shutil.rmtree(build.artifacts)
    away = build.run("build")
    assert away.outcome is Outcome.INFRASTRUCTURE, away.log[-3000:]
    assert set(away.steps) == {"update"}


def test_dnf_sees_the_channel_too(
    tmp_path: Path, environment: dict[str, str], settings: Settings, server: subprocess.Popen[bytes]
) -> None:
    tree = write_tree(tmp_path / "tree", {"README": ""})
    build = Build(tmp_path / "build", environment, tree, 'builder = "rpm"\n', "debian-12/rpm", "v1.3")
    build.repository = channel.published(repository_directory(settings), "testing", "debian-12")
    build.artifacts.mkdir()
    shutil.copy(make_rpm(tmp_path, "tiny", "1.3", tags="Requires: library\n"), build.artifacts)
    installed = build.run("install")
    assert installed.outcome is Outcome.PASSED, (installed.why, installed.log[-3000:])
    for package in ("library-1.0-1.noarch", "tiny-1.3-1.noarch"):
        assert package in installed.log.partition("\nInstalled:")[2]
