"""Cleanroom builds, tests and publishes itself, and a fresh machine gets it from there by apt."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from live_site import LiveSite
from surroundings import kept_between_runs, variables

from cleanroom_master.consumer import Consumer

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "recipes/products/cleanroom.toml"
# lintian says nothing about what runs, and reads 140 MB for it.
WITHOUT_LINT = '[phases.build]\nwithout = ["lint"]\n'
# What was fetched for a tag once is not fetched again.
WHEELS = kept_between_runs() / "wheels"
LIMIT = 5400.0
DEP_8 = {"command", "services", "publication"}


def run(*command: str | Path, cwd: Path, timeout: float = 900.0, **environment: str) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        timeout=timeout,
        check=False,
        capture_output=True,
        text=True,
        env={**variables(), **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def repository(site: LiveSite) -> Path:
    """A clone of this checkout, with what is changed in it, and what Python needs."""
    place = site.repositories / "cleanroom"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name, follow_symlinks=False)
    run("git", "init", "--quiet", "--initial-branch=main", cwd=place)
    run("git", "config", "user.name", "Nobody", cwd=place)
    run("git", "config", "user.email", "nobody@example.org", cwd=place)
    run("git", "add", "--all", cwd=place)
    run("git", "commit", "--quiet", "--message=The first state", cwd=place)
    if WHEELS.is_dir():
        shutil.copytree(WHEELS, place / "debian/wheels")
    return place


@pytest.mark.timeout(2 * LIMIT)
def test_cleanroom_builds_tests_and_publishes_itself(site: LiveSite, repository: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "cleanroom.toml"
    recipe.write_text(RECIPE.read_text() + WITHOUT_LINT)
    added = site.run("product", "add", "cleanroom", repository.as_uri(), "--file", str(recipe))
    assert added.status == 0, added
    run("scripts/tag-release", cwd=repository, timeout=LIMIT, PYTHON=sys.executable)
    shutil.copytree(repository / "debian/wheels", WHEELS, dirs_exist_ok=True)

    waited = site.run("release", "wait", "cleanroom", "v0.1.0", "--timeout", str(LIMIT), timeout=LIMIT + 60)
    shown = site.run("release", "show", "cleanroom", "v0.1.0", "--format", "json").json
    assert waited.status == 0, (waited, shown)
    [build] = shown["builds"]
    outcomes = {phase["name"]: phase["outcome"] for phase in build["phases"]}
    for phase in ("build", "install", "regress", "remove"):
        assert outcomes[phase] == "passed", outcomes
    assert [
        name.rpartition("_")[0] for name in (one["file"] for one in build["artifacts"]) if name.endswith(".deb")
    ] == ["cleanroom_0.1.0"]
    cases = site.sql("SELECT name, outcome FROM cleanroom.test_case WHERE step = 'autopkgtest'")
    assert {name for name, outcome in cases if outcome == "passed"} == DEP_8, cases


@pytest.mark.timeout(LIMIT)
def test_a_fresh_machine_installs_it_and_runs_it(site: LiveSite) -> None:
    consumer = Consumer(site.settings, image="debian-12", channel="testing")
    try:
        done = consumer.apt(
            ["cleanroom", "postgresql"],
            [
                ["cleanroom", "up", "--detach", "--timeout", "300"],
                ["cleanroom", "status"],
                ["cleanroom", "release", "list"],
                ["cleanroom", "down"],
                ["apt-get", "purge", "--yes", "cleanroom"],
                # As Debian has it: what somebody may miss stays.
                ["test", "-d", "/var/lib/cleanroom/secrets"],
                ["test", "!", "-e", "/usr/lib/cleanroom"],
            ],
        )
    finally:
        consumer.close()
    assert "Cleanroom is running" in done.printed
