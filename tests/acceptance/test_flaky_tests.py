"""A test that fails in some runs: replayed in real guests, told apart from trouble, held, approved, published."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_site import LiveSite, installed, until
from surroundings import kept_between_runs

from cleanroom_master.logs import LogStore

# The test asks its guest, and is answered from outside: so it is known before how each run ends.
COIN = (
    "while [ ! -e /tmp/coin ]; do sleep 0.1; done; cat /tmp/coin;"
    " echo from $(cat /etc/machine-id) > result.txt; ! grep -q ^not /tmp/coin"
)
PASSES, FAILS = "ok 1 - coin", "not ok 1 - coin"


class Runs:
    """The runs of the one phase that the installation works on, each in a guest of its own."""

    def __init__(self, site: LiveSite) -> None:
        self._site = site
        self.guests: list[str] = []

    def _running(self) -> list[str]:
        """The guests that are used now and were given this test: others prepare what is kept ready."""
        used = [guest["name"] for guest in self._site.ask("guest", "list") if guest["state"] == "running"]
        given = ("grep", "--quiet", "--recursive", "/tmp/coin", "/cleanroom/steps")
        return [
            name
            for name in used
            if name not in self.guests and self._site.run("guest", "exec", name, "--", *given).status == 0
        ]

    def _next(self) -> str:
        def new() -> str | None:
            return next(iter(self._running()), None)

        name = str(until(new, 180, "the phase runs in a new guest"))
        self.guests.append(name)
        return name

    def ends(self, line: str) -> None:
        """Have the test of the next run print this."""
        command = f"echo '{line}' > /tmp/new && mv /tmp/new /tmp/coin"
        done = self._site.run("guest", "exec", self._next(), "--", "sh", "-c", command)
        assert done.status == 0, done

    def is_lost(self) -> None:
        """End the guest of the next run."""
        done = self._site.run("guest", "destroy", self._next())
        assert done.status == 0, done


@pytest.fixture
def site() -> Iterator[LiveSite]:
    """An installation that repeats what fails, as it does unless a site says otherwise."""
    with installed(kept_between_runs() / "acceptance-other", CLEANROOM_MASTER_REPLAYS="5") as site:
        started = site.run("up", "--detach", timeout=180)
        assert started.status == 0, started
        yield site


@pytest.mark.timeout(420)
def test_a_flaky_test_is_found_held_and_can_be_approved(site: LiveSite) -> None:
    runs = Runs(site)
    site.script("coin", COIN, "replays = 2\n").tag("v1")
    runs.ends(FAILS)
    runs.is_lost()
    runs.ends(PASSES)
    runs.ends(FAILS)

    answer = site.wait("coin", "v1")
    view = answer.json
    assert (answer.status, view["state"]) == (3, "held"), answer
    assert "flaky: 2 of 3 runs failed" in view["why"]
    [build] = view["builds"]
    phase = build["phases"][0]
    assert (build["outcome"], build["attempt"], phase["outcome"]) == ("flaky", 1, "flaky")
    assert [(run["replay"], run["outcome"]) for run in phase["replays"]] == [
        (1, "infrastructure"),
        (2, "passed"),
        (3, "failed"),
    ]
    assert {run["image"]["digest"] for run in phase["replays"] if run["image"]} == {phase["image"]["digest"]}
    [coin] = phase["repeated_tests"]
    assert (coin["name"], coin["outcome"], coin["runs"], coin["failures"]) == ("coin", "flaky", 3, 2)
    logs = LogStore(site.state / "logs")
    said = [logs.read(run["steps"][-1]["log"]["sha256"]) for run in phase["replays"] if run["outcome"] == "failed"]
    assert said == [b"not ok 1 - coin\n"]
    digests = site.sql(
        "SELECT DISTINCT installed_sha256 FROM cleanroom.phase WHERE installed_sha256 IS NOT NULL"
        " AND attempt_id = (SELECT max(attempt_id) FROM cleanroom.phase)"
    )
    assert len(digests) == 1

    shown = site.run("release", "show", "coin", "v1").out
    assert "build, replay 1: infrastructure" in shown
    assert "flaky: coin, 2 of 3 runs failed" in shown
    assert "2 of 3 runs failed" in site.run("test", "history", "coin", "coin").out
    site.ask("release", "approve", "coin", "v1", "--reason", "known")
    published = site.published("coin", "v1")
    [artifact] = published["builds"][0]["artifacts"]
    assert artifact["replay"] == 2
