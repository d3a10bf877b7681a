"""A guest tries to get out, from inside and as its root; every try must fail, and its control must not.

Each try has a control: something alike that is allowed, so that none fails only because its tool is missing. The
numbers of system calls are those of amd64. A container and a virtual machine serve all tests, and each is also what
the other tries to reach; a machine's root may do with its own kernel what it likes, so there are fewer tries.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from surroundings import IMAGE

from cleanroom_base.settings import Settings
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import Owner
from cleanroom_workers.transfer import UnsafeFile

pytestmark = pytest.mark.timeout(240)

# As in the other tests of emulated guests, so that they share one snapshot.
LIMITS = Limits(processors=2, memory=1024, disk=3072, processes=1000)

# Cloud machines answer for their own secrets here. Source: the link-local metadata service of most providers.
METADATA, METADATA_6 = "169.254.169.254", "fd00:ec2::254"


@dataclass(frozen=True)
class Try:
    """A shell program that must not end with status 0, and one that must."""

    program: str
    control: str


IN_A_CONTAINER = {
    "load a kernel module": Try(
        "perl -e 'open F, q(<), q(/bin/true); $n = q(); exit(syscall(313, fileno(F), $n, 0) == 0 ? 0 : 1)'",
        # That the call is refused for what it does cannot be shown: a host's kernel may know no modules at all.
        "perl -e 'exit(syscall(39) > 0 ? 0 : 1)'",
    ),
    "make a device of the host's disk": Try("mknod /tmp/disk b 254 0", "mknod /tmp/pipe p"),
    "see a disk of the host": Try(
        "cat /dev/vda /dev/sda /dev/nvme0n1 /dev/loop0 2> /dev/null | head -c 1 | wc -c | grep -q 1",
        "cat /dev/zero 2> /dev/null | head -c 1 | wc -c | grep -q 1",
    ),
    "mount the host's devices": Try("mount -t devtmpfs none /mnt && test -e /mnt/loop0", "mount -t tmpfs none /mnt"),
    "mount a block device": Try(
        "truncate -s 8M /tmp/image && mke2fs -qF /tmp/image && mount -o loop /tmp/image /mnt",
        "truncate -s 8M /tmp/image && mke2fs -qF /tmp/image",
    ),
    "change the kernel's settings": Try(
        "cd /proc/sys; echo 1 > kernel/sysrq || echo x > kernel/core_pattern || echo 3 > vm/drop_caches",
        "test -r /proc/sys/kernel/core_pattern",
    ),
    "press the kernel's keys": Try("echo h > /proc/sysrq-trigger", "test -e /proc/self/status"),
    "write to the kernel's files": Try(
        "echo x > /sys/kernel/uevent_helper || echo mem > /sys/power/state || echo 1 > /sys/kernel/mm/ksm/run",
        "test -d /sys/class/net",
    ),
    "set the host's clock": Try("date --set='2001-01-01'", "date"),
    "see the host's processes": Try("grep -rqs [l]ibvirtd /proc/[0-9]*/cmdline", "grep -qs . /proc/1/cmdline"),
    "read the host's memory": Try(
        "head -c 1 /dev/mem || head -c 1 /proc/kcore", "head -c 1 /proc/self/mem 2>&1 | grep -q ."
    ),
    "read the kernel's log": Try("dmesg --read-clear", "command -v dmesg"),
    "enter the namespaces of the host": Try("nsenter --target 1 --mount ls /var/lib/cleanroom", "nsenter --help"),
    "reboot the host's kernel": Try(
        # LINUX_REBOOT_CMD_CAD_ON does nothing but needs the right. Source: reboot(2).
        "perl -e 'exit(syscall(169, 0xfee1dead, 672274793, 0x89abcdef, 0) == 0 ? 0 : 1)'",
        "perl -e 'exit(syscall(39) > 0 ? 0 : 1)'",
    ),
    "trace with the kernel's programs": Try(
        "perl -e '$a = pack(q(LLLLLx100), 1, 4, 4, 1, 0); exit(syscall(321, 0, $a, length $a) >= 0 ? 0 : 1)'",
        "perl -e 'exit(syscall(39) > 0 ? 0 : 1)'",
    ),
}

IN_A_MACHINE = {
    "see the host's processes": IN_A_CONTAINER["see the host's processes"],
    "share files with the host": Try(
        "mount -t 9p -o trans=virtio host /mnt || mount -t virtiofs host /mnt", "mount -t tmpfs none /mnt"
    ),
    "have a disk that is not its own": Try(
        "ls /sys/block | grep -v -e '^vda$' -e '^loop' -e '^ram' | grep -q .", "ls /sys/block | grep -q '^vda$'"
    ),
    "speak to an agent on the host": Try(
        # That is the port of its identity, at which nobody listens any more.
        "ls /dev/virtio-ports | grep -v '^identity$' | grep -q .",
        "ls /dev/virtio-ports | grep -q '^identity$'",
    ),
}


@pytest.fixture(scope="module")
def container(host: Host) -> Iterator[Guest]:
    with host.reset(IMAGE, isolation="container", network="open", owner=Owner.current()) as guest:
        yield guest


@pytest.fixture(scope="module")
def machine(host: Host) -> Iterator[Guest]:
    with host.reset(IMAGE, isolation="emulated", network="open", owner=Owner.current(), limits=LIMITS) as guest:
        yield guest


@pytest.fixture(params=["container", "machine"])
def inside(request: pytest.FixtureRequest) -> Guest:
    guest: Guest = request.getfixturevalue(request.param)
    return guest


def _try(guest: Guest, name: str, attempt: Try) -> None:
    control = guest.run(["sh", "-c", attempt.control], timeout=20)
    assert control.exit_status == 0, f"the control does not work: {control.stderr!r}"
    told = guest.run(["sh", "-c", attempt.program], timeout=20)
    assert told.exit_status != 0, f"it can {name}: {told.stdout!r}"


@pytest.mark.parametrize("name", IN_A_CONTAINER)
def test_root_in_a_container_does_not(container: Guest, name: str) -> None:
    _try(container, name, IN_A_CONTAINER[name])


@pytest.mark.parametrize("name", IN_A_MACHINE)
def test_root_in_a_machine_does_not(machine: Guest, name: str) -> None:
    _try(machine, name, IN_A_MACHINE[name])


def test_a_machine_is_told_nothing_about_the_host(machine: Guest, settings: Settings) -> None:
    """Neither by its firmware nor by its kernel's command line."""
    search = ["grep", "-rqsF", "--", str(settings.state), "/sys/firmware", "/proc/cmdline"]
    machine.fail(search, timeout=60)
    machine.succeed([*search[:3], "console=ttyS0", *search[4:]], timeout=60)


def test_what_a_machine_writes_to_its_disk_is_not_written_to_the_image(host: Host, machine: Guest) -> None:
    write = """set -e
last=$(($(blockdev --getsz /dev/vda) / 8 - 1))
yes written | head -c 4096 | dd of=/dev/vda bs=4096 seek=$last oflag=direct
dd if=/dev/vda bs=4096 skip=$last iflag=direct | head -c 7"""
    assert machine.succeed(["sh", "-c", write], timeout=60).text == "written"
    host.catalogue.store.check(host.catalogue.image(IMAGE))
    with host.reset(IMAGE, isolation="container", owner=Owner.current()):
        pass


def test_a_link_does_not_come_out_as_what_it_leads_to(inside: Guest, tmp_path: Path) -> None:
    inside.succeed(["sh", "-c", "mkdir -p /srv/out && ln -sf /etc/passwd /srv/out/link"], timeout=20)
    with pytest.raises(UnsafeFile):
        inside.copy_out("/srv/out", tmp_path / "out", limit=1 << 20)
    assert not (tmp_path / "out" / "link").exists()


# Begins to connect to all at once, and prints which of them answered.
_CONNECT = r"""
use Socket qw(getaddrinfo SOCK_STREAM AI_NUMERICHOST);
use IO::Handle;
my @begun;
for (@ARGV) {
  my ($error, $found) = getaddrinfo(split(/ /), {socktype => SOCK_STREAM, flags => AI_NUMERICHOST});
  die "$_: $error
" if $error;
  socket(my $socket, $found->{family}, SOCK_STREAM, 0) or next;
  $socket->blocking(0);
  connect($socket, $found->{addr});
  push @begun, [$_, $socket];
}
sleep 2;
for (@begun) { print "$_->[0]
" if getpeername($_->[1]) }
"""


def _reached(host: Host, guest: Guest, addresses: list[str], port: int) -> list[str]:
    """Which of these addresses a guest reaches. That it reaches the proxy for package mirrors is the control."""
    control = f"{host.proxy.address} {host.proxy.port}"
    # A guest knows its own connection only.
    scoped = [f"{address}%eth0" if address.startswith("fe80") else address for address in addresses]
    targets = [f"{address} {port}" for address in scoped]
    told = guest.succeed(["perl", "-e", _CONNECT, control, *targets], timeout=30).text.splitlines()
    assert told[:1] == [control]
    return told[1:]


def _addresses(family: socket.AddressFamily) -> list[str]:
    """All addresses of this machine but the loopback's."""
    place = {socket.AF_INET: "/proc/net/fib_trie", socket.AF_INET6: "/proc/net/if_inet6"}[family]
    lines = Path(place).read_text(encoding="ascii").splitlines()
    if family is socket.AF_INET6:
        # Source: proc(5): the address in hexadecimal digits, then more, the device's name last.
        return [socket.inet_ntop(family, bytes.fromhex(line.split()[0])) for line in lines if not line.endswith(" lo")]
    pairs = itertools.pairwise(lines)
    found = {one.split()[-1] for one, other in pairs if "host LOCAL" in other}
    return sorted(address for address in found if not address.startswith("127."))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_no_service_of_the_host_is_reached_by_any_of_its_addresses(
    host: Host, inside: Guest, family: socket.AddressFamily
) -> None:
    """The database, the master and whatever else may listen: one that listens on every address stands for all."""
    everywhere = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}[family]
    with socket.create_server((everywhere, 0), family=family) as server:
        port = server.getsockname()[1]
        loopback = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}[family]
        socket.create_connection((loopback, port), timeout=5).close()
        addresses = _addresses(family)
        assert family is socket.AF_INET6 or host.addresses.gateway in addresses
        assert _reached(host, inside, addresses, port) == []


def test_no_service_on_the_hosts_loopback_is_reached(host: Host, machine: Guest) -> None:
    """A machine's own kernel can be told that the loopback's addresses lie beyond the gateway."""
    beyond = f"""set -e
echo 1 | tee /proc/sys/net/ipv4/conf/*/route_localnet > /dev/null
ip route del table local local 127.0.0.0/8 dev lo
ip route add 127.0.0.0/8 via {host.addresses.gateway}"""
    with socket.create_server(("127.0.0.5", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.5", port), timeout=5).close()
        machine.succeed(["sh", "-c", beyond], timeout=20)
        assert "eth0" in machine.succeed(["ip", "route", "get", "127.0.0.5"], timeout=20).text
        assert _reached(host, machine, ["127.0.0.5"], port) == []


def test_it_has_no_address_but_its_own_and_none_of_the_other_protocol(inside: Guest) -> None:
    addresses = inside.succeed(["ip", "-o", "address", "show", "scope", "global"], timeout=10).text.splitlines()
    assert [line.split()[3].split("/")[0] for line in addresses] == [inside.address]


def test_networks_that_are_not_the_internet_are_not_reached(host: Host, inside: Guest) -> None:
    private = ["10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "fe80::1"]
    assert _reached(host, inside, [METADATA, METADATA_6, *private], 80) == []
    # It is the firewall on the host that says no, or there is no way at all: nothing of ours in the guest.
    inside.succeed(["sh", "-c", "! command -v nft || ! nft list ruleset 2> /dev/null | grep -q ."], timeout=10)


def test_another_guest_is_not_reached(host: Host, inside: Guest, container: Guest, machine: Guest) -> None:
    other = container if inside is machine else machine
    listing = other.succeed(["cat", "/proc/net/if_inet6"], timeout=20).text.splitlines()
    [link_local] = [line.split()[0] for line in listing if line.startswith("fe80") and line.endswith("eth0")]
    addresses = [other.address, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(link_local))]
    assert _reached(host, inside, addresses, 22) == []


def test_another_address_does_not_help(host: Host, inside: Guest) -> None:
    """A guest that takes an address of the host, or none of ours, is heard by nobody."""
    gateway = host.addresses.gateway
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        inside.succeed(["ip", "address", "add", "192.0.2.7/32", "dev", "lo"], timeout=10)
        bound = f"""
use Socket; alarm 2; socket(S, PF_INET, SOCK_STREAM, 0);
bind(S, sockaddr_in(0, inet_aton("192.0.2.7"))) or exit 1;
exit(connect(S, sockaddr_in({port}, inet_aton("{gateway}"))) ? 0 : 1);
"""
        assert inside.run(["perl", "-e", bound], timeout=20).exit_status != 0
