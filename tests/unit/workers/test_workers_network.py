"""The network's choices and rules, without a network."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import load
from cleanroom_workers.network import Addresses, Network, Repository, free_network, network_xml, ruleset
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
    rules = ruleset(ADDRESSES, [replace(RECORD, network=policy)], PROXY, Repository(9480, "127.0.0.1", 9480))
    found = {line.split()[1] for line in rules.splitlines() if line.startswith("  set ") and RECORD.address in line}
    assert found == sets
    assert f'"cg" . {RECORD.mac} . {RECORD.address}' in rules


def _lines(published: Repository | None) -> list[str]:
    rules = ruleset(ADDRESSES, [replace(RECORD, network="repository")], PROXY, published)
    return [line.strip() for line in rules.splitlines() if "dnat" in line and "chain" not in line]


def test_guests_are_led_to_the_repository_wherever_it_is() -> None:
    asked = 'iifname "cr0123abcd" ip saddr @repository ip daddr 10.231.0.1 tcp dport 9480 dnat ip to'
    here = "ip saddr @repository ip daddr 127.0.0.1 tcp dport 9480 ct status dnat accept"
    assert _lines(Repository(9480, "127.0.0.1", 9480)) == [here, f"{asked} 127.0.0.1:9480"]
    there = "ip saddr @repository ip daddr 172.18.0.5 tcp dport 8000 ct status dnat accept"
    assert _lines(Repository(9480, "172.18.0.5", 8000)) == [there, f"{asked} 172.18.0.5:8000"]
    assert _lines(None) == []


def test_a_repository_elsewhere_is_found_by_its_name(tmp_path: Path) -> None:
    def network(address: str) -> Network:
        place = {"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)}
        return Network(load({**place, "CLEANROOM_NETWORK_REPOSITORY": address}))

    assert network("").repository() == Repository(9480, "127.0.0.1", 9480)
    assert network("localhost:8000").repository() == Repository(9480, "127.0.0.1", 8000)
    with pytest.raises(InfrastructureError, match=r"nowhere\.invalid cannot be found"):
        network("nowhere.invalid:80").repository()
