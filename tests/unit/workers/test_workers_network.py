"""The network's choices and rules, without a network."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from xml.etree import ElementTree

import pytest

from cleanroom_base.errors import InfrastructureError
from cleanroom_workers.network import Addresses, free_network, network_xml, ruleset
from cleanroom_workers.proxy import Proxy
from cleanroom_workers.records import GuestRecord

ADDRESSES = Addresses("cleanroom-0123abcd", "cr0123abcd", "10.231.0.0/20")
PROXY = Proxy("10.231.0.1", 3142)
RECORD = GuestRecord(
    name="guest",
    image="debian-12",
    digest="0" * 64,
    isolation="container",
    method="overlay",
    network="none",
    address="10.231.0.9",
    mac="52:54:00:00:00:09",
    device="cg",
    started_at="2026-01-01T00:00:00Z",
    state="running",
    owner=None,
    reset_seconds=None,
)


def test_a_network_in_use_is_passed_over() -> None:
    wanted = IPv4Network("10.231.0.0/20")
    assert free_network(wanted, []) == wanted
    assert free_network(wanted, [IPv4Network("192.168.0.0/16")]) == wanted
    used = [IPv4Network("10.231.4.0/24"), IPv4Network("10.231.16.0/21")]
    assert free_network(wanted, used) == IPv4Network("10.231.32.0/20")
    assert free_network(IPv4Network("10.255.240.0/20"), [IPv4Network("10.255.0.0/16")]) == IPv4Network("10.0.0.0/20")
    with pytest.raises(InfrastructureError):
        free_network(wanted, [IPv4Network("10.0.0.0/8")])
    with pytest.raises(InfrastructureError, match=r"network\.subnet"):
        free_network(IPv4Network("192.168.0.0/24"), [IPv4Network("192.168.0.0/16")])


def test_an_interface_has_at_most_fifteen_characters() -> None:
    assert len(ADDRESSES.device("10.231.15.254")) <= 15
    assert ADDRESSES.device("10.231.0.2") != ADDRESSES.device("10.231.0.3")
    assert len(ADDRESSES.bridge) <= 15


def test_the_bridge_neither_waits_nor_serves() -> None:
    bridge = ElementTree.fromstring(network_xml(ADDRESSES)).find("bridge")
    assert bridge is not None
    assert (bridge.get("stp"), bridge.get("delay")) == ("off", "0")


@pytest.mark.parametrize(
    ("policy", "sets"),
    [
        ("none", set()),
        ("mirror", {"mirror"}),
        ("repository", {"mirror", "repository"}),
        ("open", {"mirror", "repository", "opened"}),
    ],
)
def test_a_policy_puts_a_guest_into_its_sets(policy: str, sets: set[str]) -> None:
    rules = ruleset(ADDRESSES, [replace(RECORD, network=policy)], PROXY, 9480)
    found = {line.split()[1] for line in rules.splitlines() if line.startswith("  set ") and RECORD.address in line}
    assert found == sets
    assert f'"cg" . {RECORD.mac} . {RECORD.address}' in rules
