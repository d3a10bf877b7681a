"""A server whose clock is set back: the rows then have times that lie ahead, which is how it is done here."""

from __future__ import annotations

import pytest
from database_server import POLICY, add_product, begin, claim, end, plan, record_tags

from cleanroom_db import attempts, clock, releases
from cleanroom_db.attempts import RetryPolicy
from cleanroom_db.connection import Database
from cleanroom_recipes.model import Outcome

LEASE = 60.0


@pytest.fixture(autouse=True)
def product(owner: Database) -> None:
    add_product(owner)


def set_back(owner: Database) -> None:
    """What was written before the clock was set back by an hour."""
    with owner.transaction() as cursor:
        cursor.execute(
            "UPDATE cleanroom.attempt SET queued_at = queued_at + interval '1 hour',"
            " not_before = not_before + interval '1 hour', lease_expires_at = lease_expires_at + interval '1 hour'"
        )
        cursor.execute(
            "UPDATE cleanroom.ref_event SET recorded_at = recorded_at + interval '1 hour',"
            " not_before = not_before + interval '1 hour' WHERE state = 'recorded'"
        )


def test_what_was_recorded_before_is_claimed_and_built_at_once(owner: Database, master: Database) -> None:
    record_tags(owner, "v1")
    set_back(owner)
    assert releases.claim_next(master, plan) is None
    assert clock.heed(master, lease=LEASE) == 1
    assert releases.claim_next(master, plan) is not None
    set_back(owner)
    assert attempts.due(master) == []
    assert clock.heed(master, lease=LEASE) == 1
    assert len(attempts.due(master)) == 1
    assert clock.heed(master, lease=LEASE) == 0


def test_a_pause_before_the_next_attempt_stays_what_it_was(owner: Database, master: Database) -> None:
    held = begin(master, claim(owner, "v1"))
    policy = RetryPolicy(limit=3, pause=100.0)
    attempts.finish(master, held.attempt_id, held.owner, Outcome.INFRASTRUCTURE, "the guest was lost", policy)
    set_back(owner)
    assert clock.heed(master, lease=LEASE) == 1
    assert clock.heed(master, lease=LEASE) == 0
    with owner.transaction() as cursor:
        left = cursor.value(
            "SELECT extract(epoch FROM not_before - now()) FROM cleanroom.attempt WHERE finished_at IS NULL"
        )
    assert 0 < left <= 100


def test_who_works_goes_on_and_who_does_not_is_not_waited_for(owner: Database, master: Database) -> None:
    alive, dead = begin(master, claim(owner, "v1"), "alive"), begin(master, claim(owner, "v2"), "dead")
    set_back(owner)
    assert clock.heed(master, lease=LEASE) == 2
    assert attempts.expire(master, POLICY) == [], "both have time to say that they are there"
    assert attempts.renew(master, alive.attempt_id, alive.owner, LEASE)
    with owner.transaction() as cursor:
        left = cursor.value(
            "SELECT extract(epoch FROM lease_expires_at - now()) FROM cleanroom.attempt WHERE id = %(id)s",
            id=dead.attempt_id,
        )
        assert 0 < left <= LEASE
        cursor.execute(
            "UPDATE cleanroom.attempt SET lease_expires_at = now() - interval '1 second' WHERE id = %(id)s",
            id=dead.attempt_id,
        )
    assert attempts.expire(master, POLICY) == [dead.attempt_id]
    end(master, alive)


def test_a_right_clock_changes_nothing(owner: Database, master: Database) -> None:
    held = begin(master, claim(owner, "v1"))
    claim(owner, "v2")
    record_tags(owner, "v3")
    assert clock.heed(master, lease=LEASE) == 0
    assert attempts.renew(master, held.attempt_id, held.owner, LEASE)
