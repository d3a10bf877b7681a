"""What a guest reaches by its policy, and what it never does."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from cleanroom_base.errors import InputError
from cleanroom_base.settings import Settings
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.records import Owner

IMAGE = "debian-12"


def reaches(guest: Guest, address: str, port: int) -> bool:
    probe = ["timeout", "1", "bash", "-c", 'exec 3<>"/dev/tcp/$0/$1"', address, str(port)]
    return guest.run(probe, timeout=20).exit_status == 0


@pytest.fixture
def listener() -> Iterator[int]:
    """A service of the host on all its addresses."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def repository(settings: Settings) -> Iterator[int]:
    """Something in the place of the published repository, on 127.0.0.1 alone."""
    port = settings.whole("repository.port")
    with socket.create_server(("127.0.0.1", port)):
        yield port


@pytest.mark.parametrize(
    ("policy", "mirror", "published"),
    [("mirror", True, False), ("none", False, False), ("repository", True, True), ("open", True, True)],
)
def test_policies(host: Host, listener: int, repository: int, policy: str, mirror: bool, published: bool) -> None:
    gateway = host.addresses.gateway
    with host.reset(IMAGE, isolation="container", network=policy, owner=Owner.current()) as guest:
        assert reaches(guest, host.proxy.address, host.proxy.port) is mirror
        assert reaches(guest, gateway, repository) is published
        assert not reaches(guest, gateway, listener)
        assert not reaches(guest, gateway, 22)
        for own in _own_addresses():
            assert not reaches(guest, own, listener)


def test_guests_do_not_reach_each_other(host: Host) -> None:
    with (
        host.reset(IMAGE, isolation="container", network="open", owner=Owner.current()) as one,
        host.reset(IMAGE, isolation="container", network="open", owner=Owner.current()) as other,
    ):
        assert not reaches(one, other.address, 22)
        # Neither with the other's address, nor by the protocol that nothing here uses.
        assert one.run(["ip", "address", "add", f"{other.address}/32", "dev", "eth0"], timeout=10).exit_status == 0
        listing = other.succeed(["cat", "/proc/net/if_inet6"], timeout=10).text
        assert not reaches(one, f"{_link_local(listing)}%eth0", 22)
        other.succeed(["true"], timeout=20)


def test_the_proxy_serves_nothing_but_package_mirrors(host: Host) -> None:
    with host.reset(IMAGE, isolation="container", owner=Owner.current()) as guest:
        for request in (
            "GET http://localhost/ HTTP/1.0",
            "GET http://192.0.2.1/ HTTP/1.0",
            "CONNECT 127.0.0.1:22 HTTP/1.0",
        ):
            script = 'exec 3<>"/dev/tcp/$0/$1"; printf "%s\\r\\n\\r\\n" "$2" >&3; head -n 1 <&3'
            answer = guest.run(
                ["timeout", "5", "bash", "-c", script, host.proxy.address, str(host.proxy.port), request],
                timeout=20,
            )
            assert " 403 " in answer.text


def test_an_unknown_policy_is_refused(host: Host) -> None:
    with pytest.raises(InputError):
        host.reset(IMAGE, network="everything")


def _own_addresses() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent: this only asks which of the host's addresses would be used.
        probe.connect(("192.0.2.254", 9))
        return [probe.getsockname()[0]]


def _link_local(listing: str) -> str:
    line = next(line for line in listing.splitlines() if line.endswith("eth0"))
    digits = line.split()[0]
    return ":".join(digits[index : index + 4] for index in range(0, 32, 4))
