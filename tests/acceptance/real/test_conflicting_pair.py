"""Two packages that are fine alone and have the same file: neither leaves, and each names the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from live_site import LiveSite, until

TIMEOUT = 600.0
pytestmark = pytest.mark.timeout(3 * TIMEOUT)

TOOL = "/usr/bin/shared-tool"


def tree(name: str) -> dict[str, str]:
    """A package with one program, by hand: nothing has to be installed to build it."""
    return {
        "cleanroom.toml": 'builder = "deb"\n[phases.build]\nwithout = ["lint"]\n',
        "debian/control": (
            f"Source: {name}\nMaintainer: Nobody <nobody@example.org>\nStandards-Version: 4.6.2\n"
            "Rules-Requires-Root: no\n\n"
            f"Package: {name}\nArchitecture: all\nDescription: a tiny package\n It has a program.\n"
        ),
        "debian/changelog": (
            f"{name} (1.0) unstable; urgency=medium\n\n  * First.\n\n"
            " -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 12:00:00 +0000\n"
        ),
        "debian/rules": f"""#!/usr/bin/make -f
build build-arch build-indep binary-arch:
clean:
\trm -rf debian/{name} debian/files
binary binary-indep:
\tinstall -D -m 755 tool debian/{name}{TOOL}
\tmkdir -p debian/{name}/DEBIAN
\tdpkg-gencontrol -Pdebian/{name}
\tdpkg-deb --root-owner-group --build debian/{name} ..
""",
        "debian/source/format": "3.0 (native)\n",
        "tool": f"#!/bin/sh\necho {name}\n",
    }


@contextmanager
def nothing_leaves(site: LiveSite) -> Iterator[None]:
    """Have the publisher stand still, at a moment at which it has no transaction open."""
    process = site.process("publisher")

    def stands_still() -> bool:
        os.kill(process, signal.SIGSTOP)
        [(sessions, busy)] = site.sql(
            "SELECT count(DISTINCT pid), count(locktype) FILTER (WHERE locktype = 'virtualxid')"
            " FROM pg_stat_activity LEFT JOIN pg_locks USING (pid) WHERE usename = 'cleanroom_publisher'"
        )
        if not sessions or busy:
            os.kill(process, signal.SIGCONT)
        return bool(sessions) and not busy

    until(stands_still, 120, "the publisher is between two transactions")
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_both_of_a_pair_are_held_and_each_names_the_other(site: LiveSite) -> None:
    names = ("hammer", "mallet")
    with nothing_leaves(site):
        for name in names:
            site.product(name, tree(name)).tag("v1.0")

        def both_were_judged() -> bool:
            found = site.sql("SELECT state FROM cleanroom.release WHERE product = ANY(%s)", list(names))
            return sorted(state for (state,) in found) in (["held", "passed"], ["passed", "passed"])

        until(both_were_judged, TIMEOUT, "both are built and wait to be published")
    for name, other in (names, names[::-1]):
        answer = site.wait(name, "v1.0", timeout=TIMEOUT)
        shown = answer.json
        assert (answer.status, shown["state"]) == (3, "held"), answer
        assert f"{name} 1.0 and {other} 1.0 ({other} v1.0, which waits too) both have {TOOL}" in shown["why"]
        [build] = shown["builds"]
        assert {phase["outcome"] for phase in build["phases"]} <= {"passed", "skipped"}
        [gate] = [gate for gate in shown["gates"] if gate["gate"] == "no-conflicts"]
        assert gate["state"] == "fails"
        looked = site.run("release", "conflicts", name, "v1.0", "--format", "json")
        assert (looked.status, looked.json["conflicts"]) == (1, 1)
        [[conflict]] = [target["conflicts"] for target in looked.json["targets"]]
        assert TOOL in conflict["why"]
    # Once nobody wants the one, the other goes by itself.
    site.ask("release", "hold", names[0], "v1.0", "--reason", "the other one is wanted")
    # Whoever waits for a release that is held still is told so at once.
    until(lambda: site.show(names[1], "v1.0")["state"] == "published", TIMEOUT, "the other one is published")
    assert site.show(names[0], "v1.0")["state"] == "held"
