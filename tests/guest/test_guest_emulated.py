"""An emulated guest: slow to start, otherwise as any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_workers import variation
from cleanroom_workers.guest import GuestPoweredOff
from cleanroom_workers.host import Host
from cleanroom_workers.libvirt_access import State
from cleanroom_workers.plan import Limits
from cleanroom_workers.records import Owner

LIMITS = Limits(processors=2, memory=1024, disk=3072, processes=1000)


@pytest.mark.usefixtures("traces")
def test_an_emulated_guest_starts_runs_and_ends(host: Host) -> None:
    with host.reset("debian-12", isolation="emulated", owner=Owner.current(), limits=LIMITS) as guest:
        assert (guest.isolation, guest.method) == ("emulated", "snapshot")
        assert guest.run(["sh", "-c", "exit 255"], timeout=60).exit_status == 255
        script = "hostname; df --output=size -m / | tail -n 1; cat /etc/hostname; test -s /etc/machine-id && echo id"
        name, size, written, identity = guest.succeed(["sh", "-c", script], timeout=60).text.split()
        assert name == written == guest.name
        assert 2500 < int(size) < 3072
        assert identity == "id"
        # A build that is made again has another date; before and after its steps it is the right one.
        days = []
        for ahead in (True, False):
            guest.succeed(variation.clock(datetime.now(UTC), ahead=ahead), timeout=60)
            seconds = int(guest.succeed(["date", "+%s"], timeout=60).text) - datetime.now(UTC).timestamp()
            days.append(round(seconds / 86_400))
        assert days == [398, 0]
        guest.copy_in_bytes(b"content", "/srv/file")
        assert guest.succeed(["cat", "/srv/file"], timeout=60).text == "content"
        with pytest.raises(GuestPoweredOff):
            guest.run(["sh", "-c", "systemctl poweroff; sleep 100"], timeout=120)
        assert guest.state() is State.POWERED_OFF


@pytest.fixture
def foreign(host: Host) -> Iterator[str]:
    """An image for another architecture, before all others by its name; no guest can start from it."""
    home, like = host.catalogue.store.directory / "0-foreign", host.catalogue.image("debian-12")
    home.mkdir()
    seal = json.loads(like.directory.with_name(f"{like.digest}.json").read_text())
    (home / f"{like.digest}.json").write_text(json.dumps({**seal, "name": home.name, "architecture": "s390x"}))
    (home / "current").symlink_to(like.digest)
    yield home.name
    shutil.rmtree(home)


def test_an_image_for_another_architecture_says_nothing_of_this_host(host: Host, foreign: str) -> None:
    assert all(foreign not in probe.reason for probe in host.probe())
    with pytest.raises(InputError, match="is for s390x and this host is"):
        host.reset(foreign, isolation="container", owner=Owner.current())
    with pytest.raises(InfrastructureError, match="no virtual machine for s390x"):
        host.reset(foreign, owner=Owner.current())
    assert not host.guests()


def test_the_probe_tells_what_works_and_why(host: Host) -> None:
    probes = {probe.isolation: probe for probe in host.probe()}
    assert list(probes) == ["kvm", "container", "emulated"]
    assert probes["container"].works, probes["container"].reason
    assert probes["emulated"].works, probes["emulated"].reason
    assert all(probe.reason for probe in probes.values())
