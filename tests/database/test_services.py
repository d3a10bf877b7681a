"""Services, hosts and the audit trail."""

from __future__ import annotations

import pytest

from cleanroom_base.errors import InputError
from cleanroom_db import audit, services
from cleanroom_db.connection import Database
from cleanroom_db.states import HostState


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
    services.host_seen(owner, "host1", ("container", "emulated"), 2, 4096)
    services.set_host_state(owner, "host1", HostState.DRAINING)
    services.host_seen(owner, "host1", ("kvm",), 4, 8192)
    [host] = services.hosts(owner)
    assert (host.state, host.isolations, host.processors, host.memory_mib) == (HostState.DRAINING, ("kvm",), 4, 8192)
    with pytest.raises(InputError, match="there is no host 'host2'"):
        services.set_host_state(owner, "host2", HostState.READY)


def test_the_audit_trail_is_kept_by_subject(owner: Database) -> None:
    audit.record(owner, "anna", "release hold", "hello v1", reason="wait\x00", detail={"by": ["web", 1]})
    audit.record(owner, "eve", "host drain", "host1")
    [entry] = audit.list_latest(owner, "hello v1")
    assert (entry.actor, entry.reason, entry.detail) == ("anna", "wait\ufffd", {"by": ["web", 1]})
    assert [entry.actor for entry in audit.list_latest(owner)] == ["eve", "anna"]
