"""A build in Buildbot whose own database is away when a step ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from cleanroom_master.buildbot.steps import AttemptBuild


def _away(*_: Any) -> defer.Deferred[Any]:
    return defer.fail(ConnectionError("the database is away"))


def test_a_build_that_buildbot_cannot_end_is_known_to_be_broken() -> None:
    """Buildbot's own handling writes to its database, too: the build would neither go on nor end."""
    updates = SimpleNamespace(setBuildProperties=_away)
    request = SimpleNamespace(mergeSourceStampsWith=lambda _: [], mergeReasons=lambda _: "")
    master = SimpleNamespace(data=SimpleNamespace(updates=updates))
    build = AttemptBuild([request], SimpleNamespace(master=master, config_version=0, config=None))
    build.conn = None
    found: list[object] = []
    # Exactly what Buildbot calls, and does not wait for: an error of it would go nowhere.
    build._start_next_step_impl(SimpleNamespace(startStep=_away)).addBoth(found.append)
    assert found and not isinstance(found[0], Failure)
    assert build._broken
