"""Services, hosts and the audit trail."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
from database_server import POLICY, add_product, begin, claim

from cleanroom_base.errors import InputError
from cleanroom_db import attempts, audit, products, services, workers
from cleanroom_db.connection import Database
from cleanroom_db.listen import CHANGE, HOST, Listener
from cleanroom_db.services import Guests
from cleanroom_db.states import HostState
from cleanroom_recipes.model import Outcome


def test_a_service_is_new_when_its_state_or_process_is(owner: Database) -> None:
    services.heartbeat(owner, "publisher", "running", 1)
    [first] = services.list_all(owner)
    services.heartbeat(owner, "publisher", "running", 1, "idle")
    [same] = services.list_all(owner)
    assert (same.since, same.detail) == (first.since, "idle")
    assert same.seen_at > first.seen_at
    services.heartbeat(owner, "publisher", "running", 2)
    [other] = services.list_all(owner)
    assert other.since > first.since
    assert other.process_id == 2


def test_a_host_stays_drained_whatever_it_says(owner: Database) -> None:
    services.host_seen(owner, "host1", ("container", "emulated"), 2, 4096, Guests(places=4, ready=2, running=1))
    [host] = services.hosts(owner)
    assert (host.free, host.ready, host.running, host.drained) == (3, 2, 1, 0)
    assert services.drain(owner, "host1", "anna", "new memory").state is HostState.DRAINED
    services.host_seen(owner, "host1", ("kvm",), 4, 8192)
    [host] = services.hosts(owner)
    assert (host.state, host.isolations, host.processors, host.memory_mib) == (HostState.DRAINED, ("kvm",), 4, 8192)
    assert (host.free, host.drained) == (0, 3)
    for change, name, why in (
        (services.drain, "host1", "host1 is drained already"),
        (services.resume, "host2", "there is no host 'host2'"),
    ):
        with pytest.raises(InputError, match=why):
            change(owner, name, "anna", "")
    services.resume(owner, "host1", "anna", "")
    with pytest.raises(InputError, match="host1 takes work already"):
        services.resume(owner, "host1", "anna", "")
    assert [entry.action for entry in audit.list_latest(owner, "host1")] == ["host resume", "host drain"]


def test_a_host_says_why_its_worker_gets_nothing_to_do(owner: Database) -> None:
    services.host_seen(owner, "host1", ("container",), 2, 4096, Guests(places=4, ready=2, running=1))
    workers.attached(owner, "host1", 1, "it is too old")
    [host] = services.hosts(owner)
    assert (host.problem, host.state, host.free) == ("it is too old", HostState.READY, 0)
    assert services.drain(owner, "host1", "anna", "").problem == "it is too old"
    workers.attached(owner, "host1", 3, "")
    assert services.resume(owner, "host1", "anna", "").free == 3


def test_a_host_is_drained_once_its_work_has_ended(owner: Database) -> None:
    add_product(owner)
    services.host_seen(owner, "host1", ("container",), 2, 4096)
    held = begin(owner, claim(owner, "v1"))
    attempts.describe(owner, held, worker="host1", buildbot_url="")
    assert services.drain(owner, "host1", "anna", "").state is HostState.DRAINING
    assert services.settle(owner) == {"host1"}
    assert services.host(owner, "host1").state is HostState.DRAINING
    attempts.finish(owner, held.attempt_id, held.owner, Outcome.INFRASTRUCTURE, "lost", POLICY)
    assert services.settle(owner) == {"host1"}
    assert services.host(owner, "host1").state is HostState.DRAINED
    services.resume(owner, "host1", "anna", "")
    assert services.settle(owner) == frozenset()


def heard(listener: Listener, count: int) -> set[tuple[str, str]]:
    """The next so many different messages, each with its channel."""
    found: set[tuple[str, str]] = set()
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        found |= {(channel, text) for channel, texts in listener.messages(1).items() for text in texts}
    return found


def test_products_hosts_and_services_are_news_but_not_that_they_were_seen(owner: Database) -> None:
    with closing(Listener(owner.url, (CHANGE, HOST))) as listener:
        listener.wait(1)
        services.heartbeat(owner, "web", "running", 1)
        add_product(owner)
        services.host_seen(owner, "host1", ("container",), 2, 4096)
        assert heard(listener, 3) == {(CHANGE, "service"), (CHANGE, "product"), (CHANGE, "host")}
        services.heartbeat(owner, "web", "running", 1)
        services.host_seen(owner, "host1", ("container",), 2, 4096, Guests(0, 0, 0))
        products.looked(owner, "hello", error=None)
        services.drain(owner, "host1", "anna", "")
        assert heard(listener, 2) == {(CHANGE, "host"), (HOST, "host1")}


def test_the_audit_trail_is_kept_by_subject(owner: Database) -> None:
    audit.record(owner, "anna", "release hold", "hello v1", reason="wait\x00", detail={"by": ["web", 1]})
    audit.record(owner, "eve", "host drain", "host1")
    [entry] = audit.list_latest(owner, "hello v1")
    assert (entry.actor, entry.reason, entry.detail) == ("anna", "wait\ufffd", {"by": ["web", 1]})
    assert [entry.actor for entry in audit.list_latest(owner)] == ["eve", "anna"]
