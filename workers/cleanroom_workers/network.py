"""The guests' network: a bridge of ours, an address for every guest, and a firewall that is closed by default.

What a guest may reach depends on its policy:

    mirror       the package mirrors, through the caching proxy, and nothing else
    repository   that, and the published repository on this host
    none         nothing
    open         the internet too; never this host's own services, other guests, or private networks

Everything is rendered from the guests' records and loaded in one transaction, so a rule cannot outlive a guest.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from xml.etree import ElementTree

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.run import run
from cleanroom_base.settings import Settings
from cleanroom_workers.libvirt_access import Libvirt
from cleanroom_workers.locks import locked
from cleanroom_workers.proxy import Proxy
from cleanroom_workers.records import GuestRecord

POLICIES = ("mirror", "none", "repository", "open")
_TIMEOUT = 30.0
_LOCK_TIMEOUT = 60.0
# What `open` does not open: RFC 6890's special purposes, private and link-local networks among them.
_PRIVATE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4"),
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """What an installation's network is called and which addresses it has."""

    name: str
    bridge: str
    subnet: str

    @property
    def network(self) -> IPv4Network:
        """The guests' network; its first address is the host's."""
        return IPv4Network(self.subnet)

    @property
    def gateway(self) -> str:
        """The host's address."""
        return str(self.network[1])

    def device(self, address: str) -> str:
        """The name of the host's end of a guest's connection."""
        return f"{self.device_prefix}{self.index(address):x}"

    def index(self, address: str) -> int:
        """The place of an address in the network."""
        return int(IPv4Address(address)) - int(self.network[0])

    @property
    def device_prefix(self) -> str:
        """How the names of all such ends begin: an interface's name has 15 characters, netdevice(7)."""
        return f"cg{self.name[-8:-2]}g"


@dataclass(frozen=True, slots=True)
class Repository:
    """The published repository: guests find it at the host's address and `port`; it is at `address` and `its_port`."""

    port: int
    address: str
    its_port: int

    @property
    def elsewhere(self) -> bool:
        """Whether it is on another machine."""
        return not IPv4Address(self.address).is_loopback


class Network:
    """The network of one installation's guests."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = settings.state / "network.json"
        self._lock = settings.runtime / "firewall.lock"

    @property
    def addresses(self) -> Addresses:
        """What was chosen when the network was first started. Raises InfrastructureError before that."""
        chosen = self._chosen()
        if chosen is None:
            raise InfrastructureError("the guests' network has not been started")
        return chosen

    def started(self) -> bool:
        """Whether the network was ever started."""
        return self._chosen() is not None

    def ensure(self, libvirt: Libvirt) -> None:
        """Have the network run. The caller holds the host's lock."""
        # Installations that start at the same time must not choose the same network.
        with locked(self._settings.runtime.parent / "cleanroom-networks.lock", timeout=_LOCK_TIMEOUT):
            chosen = self._choose()
            libvirt.start_network(chosen.name, network_xml(chosen))
        if self._settings.optional("network.repository") is None:
            # It may listen on 127.0.0.1 alone; the firewall lets nothing else of that network through.
            Path(f"/proc/sys/net/ipv4/conf/{chosen.bridge}/route_localnet").write_text("1", encoding="ascii")

    def stop(self, libvirt: Libvirt) -> None:
        """End the network and take the firewall's tables away."""
        chosen = self._chosen()
        if chosen is None:
            return
        libvirt.stop_network(chosen.name)
        self._load(_removal(chosen.name))

    def allocate(self, used: Iterable[str]) -> str:
        """A free address: the next after the last one given, so that one is not used again at once."""
        addresses = self.addresses
        taken = set(used)
        last = self._settings.state / "last-address"
        network = addresses.network
        size = network.num_addresses
        try:
            begin = int(last.read_text(encoding="ascii"))
        except (OSError, ValueError):
            begin = 1
        for step in range(1, size):
            index = (begin + step) % size
            if 2 <= index < size - 1 and str(network[index]) not in taken:
                last.write_text(str(index), encoding="ascii")
                return str(network[index])
        raise InfrastructureError(f"all addresses of {network} are in use")

    def apply(self, records: Iterable[GuestRecord], proxy: Proxy | None) -> None:
        """Load the firewall for exactly these guests."""
        try:
            published = self.repository()
        except InfrastructureError:
            # Guests can still be ended; those that need it are not started, see Host.
            published = None
        self._load(ruleset(self.addresses, list(records), proxy, published))

    def repository(self) -> Repository:
        """Where the repository is. Raises InfrastructureError when its name leads nowhere now."""
        port = self._settings.whole("repository.port")
        elsewhere = self._settings.optional("network.repository")
        if elsewhere is None:
            return Repository(port, "127.0.0.1", port)
        host, _, its_port = elsewhere.rpartition(":")
        try:
            return Repository(port, socket.gethostbyname(host), int(its_port))
        except OSError as error:
            raise InfrastructureError(
                f"the repository's host {host} cannot be found: {error}", hint="see the setting network.repository"
            ) from error

    def lock(self) -> Path:
        """The lock that holds records and firewall together."""
        return self._lock

    def _load(self, rules: str) -> None:
        run(["nft", "-f", "-"], stdin=rules.encode(), timeout=_TIMEOUT)

    def _chosen(self) -> Addresses | None:
        try:
            return Addresses(**json.loads(self._file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _choose(self) -> Addresses:
        before = self._chosen()
        bridge = f"cr{self._settings.instance}"
        wanted = IPv4Network(self._settings.text("network.subnet"))
        if before is not None:
            wanted = IPv4Network(before.subnet)
        subnet = free_network(wanted, networks_in_use(except_device=bridge))
        chosen = Addresses(f"cleanroom-{self._settings.instance}", bridge, str(subnet))
        if chosen != before:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._file.with_suffix(".new")
            temporary.write_text(json.dumps(asdict(chosen)), encoding="utf-8")
            temporary.replace(self._file)
        return chosen


def free_network(wanted: IPv4Network, used: Iterable[IPv4Network]) -> IPv4Network:
    """The wanted network, or the next of its size in 10.0.0.0/8 that overlaps none in use."""
    taken = list(used)
    if not any(wanted.overlaps(other) for other in taken):
        return wanted
    private = IPv4Network("10.0.0.0/8")
    if not private.supernet_of(wanted):
        raise InfrastructureError(
            f"the guests' network {wanted} is in use on this host", hint="set network.subnet to a free one"
        )
    size = wanted.num_addresses
    for step in range(1, private.num_addresses // size):
        offset = (int(wanted[0]) - int(private[0]) + step * size) % private.num_addresses
        candidate = IPv4Network((int(private[0]) + offset, wanted.prefixlen))
        if not any(candidate.overlaps(other) for other in taken):
            return candidate
    raise InfrastructureError("no network for guests is free in 10.0.0.0/8")


def networks_in_use(*, except_device: str) -> list[IPv4Network]:
    """The IPv4 networks that this host has routes to, other than by one device."""
    routes = json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"], timeout=_TIMEOUT).stdout or b"[]")
    found = []
    for route in routes:
        if route.get("dst") in (None, "default") or route.get("dev") == except_device:
            continue
        found.append(IPv4Network(route["dst"], strict=False))
    return [network for network in found if network.prefixlen > 0]


def nameservers() -> list[str]:
    """The host's name servers that guests with an open network can reach: those on no private network."""
    private = [IPv4Network(network) for network in _PRIVATE]
    lines = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace").splitlines()
    named = [words[1] for words in map(str.split, lines) if words[:1] == ["nameserver"] and len(words) > 1]
    addresses = [IPv4Address(name) for name in named if name.replace(".", "").isdigit()]
    return [str(address) for address in addresses if not any(address in network for network in private)]


def check_policy(policy: str) -> str:
    """The policy, if it is one. Raises InputError."""
    if policy not in POLICIES:
        raise InputError(f"{policy!r} is no network policy", hint=f"one of: {', '.join(POLICIES)}")
    return policy


def network_xml(addresses: Addresses) -> str:
    """The libvirt network: a bridge with the host's address and nothing else, its firewall left to us."""
    network = ElementTree.Element("network")
    ElementTree.SubElement(network, "name").text = addresses.name
    # `open` means that libvirt adds no firewall rules of its own. Source: libvirt's network XML format.
    ElementTree.SubElement(network, "forward", mode="open")
    ElementTree.SubElement(network, "bridge", name=addresses.bridge, stp="off", delay="0")
    ElementTree.SubElement(network, "dns", enable="no")
    prefix = str(addresses.network.prefixlen)
    ElementTree.SubElement(network, "ip", address=addresses.gateway, prefix=prefix)
    return ElementTree.tostring(network, encoding="unicode")


def ruleset(addresses: Addresses, records: list[GuestRecord], proxy: Proxy | None, published: Repository | None) -> str:
    """All rules, for nft(8): the tables of this installation are replaced as a whole."""
    by_policy = {policy: [record.address for record in records if record.network == policy] for policy in POLICIES}
    name = addresses.name
    return "\n".join(
        [
            _removal(name),
            _bridge_table(addresses, records),
            _table(
                addresses,
                proxy,
                mirror=[*by_policy["mirror"], *by_policy["repository"], *by_policy["open"]],
                repository=[*by_policy["repository"], *by_policy["open"]],
                opened=by_policy["open"],
                published=published,
            ),
        ]
    )


def _removal(name: str) -> str:
    # Declared before it is deleted, so that deleting also works the first time.
    return "".join(f"table {family} {name} {{ }}\ndelete table {family} {name}\n" for family in ("bridge", "inet"))


def _bridge_table(addresses: Addresses, records: list[GuestRecord]) -> str:
    """A guest may only send from its own connection with its own two addresses, and never to another guest."""
    elements = [f'"{record.device}" . {record.mac} . {record.address}' for record in records]
    ports = f'"{addresses.device_prefix}*"'
    return f"""
table bridge {addresses.name} {{
  set guests {{
    typeof iifname . ether saddr . ip saddr
    {_elements(elements)}
  }}
  chain arriving {{
    type filter hook prerouting priority -300; policy accept;
    iifname != {ports} accept
    ether type arp iifname . arp saddr ether . arp saddr ip @guests accept
    ether type ip iifname . ether saddr . ip saddr @guests accept
    drop
  }}
  chain between {{
    type filter hook forward priority -300; policy accept;
    iifname {ports} oifname {ports} drop
  }}
}}"""


def _table(
    addresses: Addresses,
    proxy: Proxy | None,
    *,
    mirror: list[str],
    repository: list[str],
    opened: list[str],
    published: Repository | None,
) -> str:
    bridge = f'"{addresses.bridge}"'
    to_proxy = f"ip saddr @mirror ip daddr {proxy.address} tcp dport {proxy.port} accept" if proxy else ""
    beside = through = lead = ""
    if published is not None:
        reached = f"ip saddr @repository ip daddr {published.address} tcp dport {published.its_port}"
        allowed = f"{reached} ct status dnat accept"
        beside, through = ("", allowed) if published.elsewhere else (allowed, "")
        asked = f"iifname {bridge} ip saddr @repository ip daddr {addresses.gateway} tcp dport {published.port}"
        lead = f"{asked} dnat ip to {published.address}:{published.its_port}"
    sets = "\n".join(
        f"  set {name} {{ type ipv4_addr; {_elements(members)} }}"
        for name, members in (("mirror", mirror), ("repository", repository), ("opened", opened))
    )
    return f"""
table inet {addresses.name} {{
{sets}
  chain into_host {{
    type filter hook input priority -10; policy accept;
    iifname != {bridge} accept
    ct state established,related accept
    {to_proxy}
    {beside}
    drop
  }}
  chain through_host {{
    type filter hook forward priority -10; policy accept;
    iifname != {bridge} oifname != {bridge} accept
    oifname {bridge} ct state established,related accept
    oifname {bridge} drop
    {to_proxy}
    {through}
    ip saddr @opened ip daddr != {{ {", ".join(_PRIVATE)} }} accept
    drop
  }}
  chain to_repository {{
    type nat hook prerouting priority dstnat; policy accept;
    {lead}
  }}
  chain to_outside {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {addresses.network} oifname != {bridge} masquerade
  }}
}}
"""


def _elements(members: list[str]) -> str:
    return f"elements = {{ {', '.join(members)} }}" if members else ""
