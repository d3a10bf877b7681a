"""Layers with real guests: made from a clean guest by programs, and nothing but what they did is in them."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builds import Build, Told, write_tree
from surroundings import IMAGE, variables

from cleanroom_base.errors import InfrastructureError
from cleanroom_base.settings import Settings
from cleanroom_recipes import events
from cleanroom_recipes.model import Outcome
from cleanroom_workers.guest import Guest
from cleanroom_workers.host import Host
from cleanroom_workers.pool import Kind
from cleanroom_workers.records import Owner

PROGRAM = Path(sys.executable).with_name("cleanroom-worker")
# Every kind of change that an overlay knows: new, changed, removed, replaced as a whole, and owners and modes.
CHANGES = r"""
echo new > /usr/share/new
echo changed > /etc/issue
rm /usr/bin/tar
rm -r /usr/share/bug; mkdir /usr/share/bug; echo other > /usr/share/bug/other
cp /usr/bin/id /usr/bin/as-builder; chown nobody /usr/bin/as-builder; chmod 4755 /usr/bin/as-builder
ln -s nowhere /usr/share/link
echo secret > /var/log/told; echo secret > /tmp/told; echo secret > /var/tmp/told
"""


# A package whose build needs bc, and nothing else that the image lacks.
CONTROL = """\
Source: tiny
Maintainer: Nobody <nobody@example.org>
Build-Depends: ed, bc
Rules-Requires-Root: no

Package: tiny
Architecture: all
Description: a tiny package
 It has nothing.
"""
RULES = """\
#!/usr/bin/make -f
clean build build-arch build-indep:
binary binary-arch binary-indep:
\ttest "$$(echo '6 * 7' | bc)" = 42
\tmkdir -p debian/tmp/DEBIAN
\tdpkg-gencontrol
\tdpkg-deb --root-owner-group --build debian/tmp ..
"""
CHANGELOG = """\
tiny (1.3) unstable; urgency=medium

  * First.

 -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 12:00:00 +0000
"""


@pytest.fixture
def kind(host: Host, request: pytest.FixtureRequest) -> Kind:
    """A kind of guests of its own for each test and each run: no layer of an earlier one fits."""
    mark = f"# {request.node.name} {secrets.token_hex(8)}"
    return Kind(IMAGE, "container", "mirror", host.limits, (f"{mark}\n{CHANGES}",))


@pytest.fixture(autouse=True)
def _clean(settings: Settings) -> Iterator[None]:
    yield
    for note in (settings.state / "pool").glob("*"):
        note.unlink()
    for layer in (settings.state / "layers").glob("[!.]*"):
        shutil.rmtree(layer)


def _asked(host: Host, kind: Kind) -> Guest:
    return host.reset(
        kind.image,
        isolation=kind.isolation,
        network=kind.network,
        preparation=kind.preparation,
        owner=Owner.current(),
    )


def test_the_next_guest_starts_from_what_the_programs_did(traces: None, host: Host, kind: Kind) -> None:
    with _asked(host, kind) as guest:
        assert guest.record.layer is None
        plain_id = guest.succeed(["cat", "/etc/machine-id"], timeout=10).text
    assert host.lacks_layer(kind)
    host.make_layer(kind)
    assert not host.lacks_layer(kind)
    with _asked(host, kind) as guest:
        assert guest.method.startswith("overlay on layer ")
        assert host.verify(guest.name) == []
        told = guest.succeed(
            ["sh", "-c", "cat /usr/share/new /etc/issue; ls /usr/share/bug; readlink /usr/share/link"], timeout=10
        )
        assert told.text.split() == ["new", "changed", "other", "nowhere"]
        guest.fail(["test", "-e", "/usr/bin/tar"], timeout=10)
        assert guest.succeed(["stat", "-c", "%U %a", "/usr/bin/as-builder"], timeout=10).text == "nobody 4755\n"
        uid = guest.succeed(["/usr/bin/as-builder", "-un"], timeout=10, user="root").text
        assert uid == "nobody\n"
        # Nothing of the guest in which it was made is left but what the programs did.
        guest.fail(["grep", "-rs", "secret", "/var/log", "/tmp", "/var/tmp"], timeout=10)
        assert guest.succeed(["cat", "/etc/machine-id"], timeout=10).text != plain_id
        assert guest.succeed(["cat", "/etc/hostname"], timeout=10).text.strip() == guest.name
        guest.succeed(["sh", "-c", "echo more >> /usr/share/new"], timeout=10)
        assert host.verify(guest.name) == ["usr/share/new was changed"]
    # What one guest wrote is not in the layer.
    with _asked(host, kind) as guest:
        assert guest.succeed(["cat", "/usr/share/new"], timeout=10).text == "new\n"


def test_a_layer_that_was_changed_is_not_used(host: Host, kind: Kind, settings: Settings) -> None:
    host.make_layer(kind)
    with _asked(host, kind) as guest:
        name = guest.record.layer
    assert name is not None
    (settings.state / "layers" / name / "tree/usr/share/new").write_text("tampered")
    fresh = Host(settings)
    with _asked(fresh, kind) as guest:
        assert guest.record.layer is None
        guest.fail(["test", "-e", "/usr/share/new"], timeout=10)
    assert fresh.lacks_layer(kind)
    fresh.make_layer(kind)
    assert not (settings.state / "layers" / name).exists()
    fresh.close()


def test_an_old_layer_is_replaced_and_one_in_use_stays(host: Host, kind: Kind, settings: Settings) -> None:
    impatient = Host(Settings(settings.state, settings.site, {**settings.values, "worker.layer_age": 1e-3}))
    host.make_layer(kind)
    assert not host.lacks_layer(kind)
    assert impatient.lacks_layer(kind)
    with _asked(host, kind) as guest:
        first = guest.record.layer
        host.make_layer(kind)
        host.make_layer(kind)
        assert guest.succeed(["cat", "/usr/share/new"], timeout=10).text == "new\n"
        assert (settings.state / "layers" / str(first)).exists()
        with _asked(host, kind) as other:
            assert other.record.layer != first
    host.make_layer(kind)
    assert not (settings.state / "layers" / str(first)).exists()
    impatient.close()


def test_programs_that_fail_make_no_layer(traces: None, host: Host, kind: Kind) -> None:
    failing = Kind(kind.image, kind.isolation, kind.network, kind.limits, ("echo 'no such package' >&2; exit 3",))
    with pytest.raises(InfrastructureError, match="no such package"):
        host.make_layer(failing)
    assert host.lacks_layer(failing)


def test_guests_without_a_network_get_no_layer(host: Host, kind: Kind) -> None:
    assert not host.lacks_layer(Kind(kind.image, kind.isolation, "none", kind.limits, kind.preparation))
    assert not host.lacks_layer(Kind(kind.image, kind.isolation, kind.network, kind.limits))


@pytest.mark.parametrize("begun", ["guests", "copied"])
def test_who_is_killed_while_making_leaves_nothing(
    traces: None, host: Host, kind: Kind, settings: Settings, environment: dict[str, str], begun: str
) -> None:
    slow = Kind(kind.image, kind.isolation, kind.network, kind.limits, (f"# {begun}\n{CHANGES}sleep 1",))
    host.demand.note(slow, 1)
    layers = settings.state / "layers"
    before = set(layers.glob("*"))
    guests = {record.name for record in host.guests()}
    process = subprocess.Popen([PROGRAM, "layer", slow.key], env={**variables(), **environment})
    try:
        conditions: dict[str, Callable[[], object]] = {
            "guests": lambda: {record.name for record in host.guests()} - guests,
            "copied": lambda: list(layers.glob(".making-*")),
        }
        deadline = time.monotonic() + 60
        while not conditions[begun]():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait(30)
    host.reap()
    # The next one that makes layers also takes away what is half made.
    host.make_layer(kind)
    assert not list(layers.glob(".making-*"))
    assert len(set(layers.glob("[!.]*")) - before) == 1
    assert host.lacks_layer(slow)


def _built(place: Path, environment: dict[str, str], control: str) -> Told:
    """Build a package with this debian/control."""
    place.mkdir()
    files = {"debian/control": control, "debian/rules": RULES, "debian/changelog": CHANGELOG}
    tree = write_tree(place / "tree", {**files, "debian/source/format": "3.0 (native)\n"})
    return Build(place / "build", environment, tree, 'builder = "deb"\n', f"{IMAGE}/deb", "v1.3").run("build")


def _dependencies(told: Told) -> str:
    return "".join(event.text for event in told.of(events.Output) if event.step == "dependencies")


def test_a_layer_with_build_dependencies_hides_none_that_is_not_declared(
    traces: None, host: Host, environment: dict[str, str], tmp_path: Path
) -> None:
    plain = _built(tmp_path / "plain", environment, CONTROL)
    assert plain.outcome is Outcome.PASSED, (plain.why, plain.log[-2000:])
    assert "Setting up bc" in _dependencies(plain)
    # That it was asked for is noted, for the pool's process to have a layer made.
    [wish] = [wish for wish in host.demand.wishes() if wish.kind.declared]
    assert host.lacks_layer(wish.kind)
    assert not host.has_layer(wish.kind)
    host.make_layer(wish.kind)
    assert host.has_layer(wish.kind)
    quick = _built(tmp_path / "quick", environment, CONTROL.replace("Nobody", "Somebody"))
    assert quick.outcome is Outcome.PASSED, (quick.why, quick.log[-2000:])
    assert quick.of(events.Reset)[0].method.endswith(" with build dependencies")
    assert "Setting up" not in _dependencies(quick)
    # Nothing of the product is in it but what its packages are.
    with host.reset(IMAGE, preparation=wish.kind.preparation, declared=wish.kind.declared) as guest:
        assert guest.record.layer is not None
        assert host.verify(guest.name) == []
        guest.fail(["sh", "-c", "grep -rs 'Source: declared' /tmp /var/tmp /root /home /cleanroom"], timeout=20)
        guest.succeed(["bc", "--version"], timeout=20)
    # The same package without the declaration is another one, and fails as it must.
    broken = _built(tmp_path / "broken", environment, CONTROL.replace("ed, bc", "ed"))
    assert broken.outcome is Outcome.FAILED
    assert not broken.of(events.Reset)[0].method.endswith(" with build dependencies")
    assert "bc: not found" in broken.log
