"""Exact versions of packages in a real guest, from a repository in it that has two versions of two packages."""

from __future__ import annotations

from cleanroom_recipes.builders import StepDefinition, program
from cleanroom_recipes.model import Builder
from cleanroom_recipes.plan import EXACT
from cleanroom_workers.guest import Guest

PREPARE = """
set -e
mkdir -p /repository
cd /repository
for name in first second; do
	for version in 1 2; do
		mkdir -p tree/DEBIAN
		printf '%s\\n' "Package: $name" "Version: $version" 'Architecture: all' 'Description: tiny' \\
			'Maintainer: Nobody <nobody@example.org>' >tree/DEBIAN/control
		dpkg-deb --root-owner-group --build tree "${name}_$version.deb"
	done
done
dpkg-scanpackages --multiversion . >Packages
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/repository ./' >/etc/apt/sources.list
apt-get -q update
apt-get -q -y install first
dpkg-query --show first
"""


def test_what_is_installed_goes_back_and_what_comes_later_is_the_same(guest: Guest) -> None:
    def run(text: str, exact: str = "") -> tuple[int, str]:
        done = guest.run(
            ["sh", "-s"], timeout=120, stdin=text.encode(), environment={"CLEANROOM_EXACT": exact, "LC_ALL": "C"}
        )
        return done.exit_status, (done.stdout + done.stderr).decode()

    step = program(Builder.SCRIPT, StepDefinition(EXACT, f"common/{EXACT}"))
    status, said = run(PREPARE)
    assert (status, "first\t2" in said) == (0, True), said
    status, said = run(step, "first=1\nsecond=1")
    assert status == 0, said
    shown = "dpkg-query --show first second"
    # What the product does not ask for is not there.
    assert run(shown)[1].splitlines() == ["first\t1", "dpkg-query: no packages found matching second"]
    assert run("apt-get -q -y install second >/dev/null")[0] == 0
    assert run(shown)[1].splitlines() == ["first\t1", "second\t1"]
    status, said = run(step, "first=1\nsecond=3")
    assert status == 1
    assert "these versions cannot be had together any more: E: Version '3' for 'second' was not found" in said
