"""`cleanroom release watch` shows a way while it is gone."""

from __future__ import annotations

import threading

import pytest
from database_server import add_product
from recorded import F, P, build, claimed, publish

from cleanroom_db.connection import Database
from cleanroom_master import cli


def test_the_way_of_a_tag_is_shown_while_it_is_gone(
    owner: Database, site: None, capsys: pytest.CaptureFixture[str]
) -> None:
    add_product(owner)
    release = claimed(owner, "v1")

    def go_on() -> None:
        build(owner, release, {"adds": P})
        publish(owner)

    going = threading.Timer(1.0, go_on)
    going.start()
    assert cli.run(["release", "watch", "hello", "v1", "--timeout", "60"]) == 0
    going.join()
    told = [line.split()[2:] for line in capsys.readouterr().out.splitlines()]
    # It began before anything was built, and has each part once in its state.
    assert ["debian-12/deb:", "waiting", "for", "a", "worker", "running"] in [line[:6] for line in told]
    for part in ("build", "install", "upgrade", "regress"):
        assert sum(line[:3] == ["debian-12/deb:", part, "passed"] for line in told) == 1
    assert told[-1][:2] == ["published", "published"]
    # Of what failed it says so by its exit status.
    build(owner, claimed(owner, "v2"), {"adds": F}, failing={"regress": "1 failed"})
    assert cli.run(["release", "watch", "hello", "v2", "--timeout", "60"]) == 1
