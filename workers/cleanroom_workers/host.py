"""A host: the machine that holds images, libvirt and guests. One object per process; processes share the state.

Everything a guest consists of is named in its record before it is made, so that whoever finds the record can
take all of it away, whatever became of the process that wrote it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.store import Image, now
from cleanroom_workers import identity, idmap, isolations, mounts, verify
from cleanroom_workers import network as guest_network
from cleanroom_workers.daemon import Daemon
from cleanroom_workers.guest import Guest
from cleanroom_workers.libvirt_access import Libvirt, LibvirtError, State
from cleanroom_workers.locks import attempted, locked
from cleanroom_workers.network import Addresses
from cleanroom_workers.plan import Limits, Plan
from cleanroom_workers.probe import IsolationProbe, Prober
from cleanroom_workers.proxy import CachingProxy, Proxy, mirrors_of
from cleanroom_workers.records import GuestRecord, Owner, Records
from cleanroom_workers.shell import Shell

Observer = Callable[[str], None]

_LOCK_TIMEOUT = 120.0
_ENDING = "ending"


class DiskFull(InfrastructureError):
    """There is too little free disk to start a guest."""


class Host:
    """This machine as a place for guests."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.catalogue = Catalogue(settings.state, settings.site)
        self._daemon = Daemon(settings)
        self._network = guest_network.Network(settings)
        self._caching_proxy = CachingProxy(settings)
        self._records = Records(settings.state / "guests")
        self._prober = Prober(settings.state / "probes.json", self._daemon, self._try)
        self._connections: dict[str, Libvirt] = {}

    @classmethod
    def open(cls, settings: Settings) -> Host:
        """Have everything that guests need run, and connect. Raises InfrastructureError."""
        host = cls(settings)
        settings.runtime.mkdir(mode=0o711, parents=True, exist_ok=True)
        host._wake(network=True)
        host._ensure_proxy(host._readable_images())
        host._apply_firewall()
        return host

    def reset(
        self,
        image: str,
        *,
        isolation: str = "auto",
        network: str = "mirror",
        owner: Owner | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> Guest:
        """Start a clean guest of an image and wait until it answers."""
        started = time.monotonic()
        wanted = self.settings.text("worker.isolation") if isolation == "auto" else isolation
        policy = guest_network.check_policy(network)
        tell = observer or (lambda _: None)
        self._check_disk()
        with self.catalogue.store.held(image):
            built = self.catalogue.image(image)
            self._ensure_proxy([built])
            way = self._choose(built) if wanted == "auto" else isolations.check(wanted)
            record = self._register(built, way, policy)
            self.catalogue.store.claim(built, record.name)
        try:
            with self._held(record.name):
                tell(f"starting {record.name}")
                # Looking whether the image is what was sealed goes on while the guest starts.
                with ThreadPoolExecutor(1) as aside:
                    unchanged = aside.submit(self.catalogue.store.check, built)
                    shell = self._start(record, built, limits or self.limits)
                    unchanged.result()
            record = replace(record, state="running", owner=owner, reset_seconds=round(time.monotonic() - started, 3))
            self._records.write(record)
        except BaseException:
            self.destroy(record.name)
            raise
        tell(f"{record.name} answers after {record.reset_seconds} s")
        return Guest(record, shell, self)

    @property
    def gateway(self) -> str:
        """This machine's address in its guests' network."""
        return self._network.addresses.gateway

    @property
    def limits(self) -> Limits:
        """The limits of a guest unless others are given."""
        whole = self.settings.whole
        return Limits(
            processors=whole("worker.processors"),
            memory=whole("worker.memory"),
            disk=whole("worker.disk"),
            processes=whole("worker.processes"),
        )

    def probe(self) -> list[IsolationProbe]:
        """Which isolations work on this host, in the order of preference, and how that is known.

        Where an image is there a guest is really started, once: the answer is kept as long as nothing changes
        that it depends on. Takes up to some minutes the first time.
        """
        names = self.catalogue.store.names()
        image = self.catalogue.image(names[0]) if names else None
        return [self._prober.probe(name, image) for name in isolations.ISOLATIONS]

    @property
    def addresses(self) -> Addresses:
        """The guests' network."""
        return self._network.addresses

    @property
    def proxy(self) -> Proxy:
        """The proxy through which guests reach package mirrors. Raises InfrastructureError when there is none."""
        proxy = self._caching_proxy.current()
        if proxy is None:
            raise InfrastructureError("the proxy for package mirrors does not run")
        return proxy

    def guests(self) -> list[GuestRecord]:
        """All guests that are known, each with what became of it."""
        return [replace(record, state=self._present(record)) for record in self._records.all()]

    def guest(self, name: str) -> Guest:
        """A running guest by name. Raises InputError."""
        record = self._records.read(name)
        if record is None or record.state != "running":
            raise InputError(f"there is no guest {name!r}", hint="see: cleanroom guest list")
        shell = self._shell(record)
        shell.connect(time.monotonic() + 30)
        return Guest(record, shell, self)

    def verify(self, name: str) -> list[str]:
        """How a running guest differs from its image, in words; nothing when it is clean. Raises InputError."""
        guest = self.guest(name)
        image = self.catalogue.store.image(guest.image, guest.digest)
        home = self._records.home(name)
        given = json.loads((home / "given.json").read_text(encoding="utf-8"))
        first_user = idmap.first_user(self._network.addresses.index(guest.address))
        return verify.differences(guest, image, home, dict.fromkeys(given), first_user)

    def state(self, name: str) -> State:
        """What became of a guest."""
        record = self._records.read(name)
        if record is None or record.state == _ENDING:
            return State.DESTROYED
        return self._libvirt(isolations.named(record.isolation).driver).state(name)

    def destroy(self, name: str) -> None:
        """End a guest and take away all it consisted of; nothing happens when it is not there."""
        if name in self._records.names():
            with self._held(name):
                self._dispose(name)

    def reap(self) -> list[str]:
        """End every guest whose owner is gone; returns their names."""
        names = self._records.names()
        if names:
            self._wake()
        reaped = []
        for name in names:
            with attempted(self._lock(name)) as held:
                if held and self._abandoned(name):
                    self._dispose(name)
                    reaped.append(name)
        return reaped

    def close(self) -> None:
        """End this process's connections; guests run on."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def stop(self) -> None:
        """End all guests of this installation, its network, and the daemon that we started."""
        if not self._network.started():
            return
        # A daemon that died has left guests behind, which only a new one can end.
        self._wake()
        for name in self._records.names():
            self.destroy(name)
        with self._starting():
            self._caching_proxy.stop()
            self._network.stop(self._libvirt("lxc"))
            self.close()
            self._daemon.stop()
            if mounts.mounted(self._records.directory):
                mounts.unmount(self._records.directory)

    def _wake(self, *, network: bool = False) -> None:
        """Have the daemon run, and the network where guests are to be started."""
        directory = self._records.directory
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        with self._starting():
            if mounts.make_shared(directory):
                # A daemon from before would not see the guests' root file systems.
                self._daemon.stop()
            self._daemon.ensure()
            self._make_key()
            if network:
                self._network.ensure(self._libvirt("lxc"))

    def _present(self, record: GuestRecord) -> str:
        if record.state != State.RUNNING.value:
            return record.state
        try:
            return self.state(record.name).value
        except LibvirtError:
            return State.DESTROYED.value  # the daemon is not there, and no guest without it

    def _choose(self, image: Image) -> str:
        """The first isolation that works."""
        probes = []
        for name in isolations.ISOLATIONS:
            probes.append(self._prober.probe(name, image))
            if probes[-1].works:
                return name
            if not probes[-1].certain:
                # To go on with the next one would make a passing trouble a guest of another kind.
                raise InfrastructureError(f"isolation {name} does not work just now: {probes[-1].reason}")
        reasons = "; ".join(f"{probe.isolation}: {probe.reason}" for probe in probes)
        raise InfrastructureError(f"no isolation works on this host: {reasons}")

    def _try(self, name: str, image: str) -> None:
        with self.reset(image, isolation=name, network="none", owner=Owner.current()):
            pass

    def _start(self, record: GuestRecord, image: Image, limits: Limits) -> Shell:
        home = self._records.home(record.name)
        addresses = self._network.addresses
        fresh = identity.fresh(record.name, home)
        fresh = replace(fresh, mac=record.mac)
        (home / "known_hosts").write_text(f"{record.address} {fresh.host_key_public}\n", encoding="ascii")
        files = identity.files(
            fresh,
            authorized_key=self._key.with_name("id_ed25519.pub").read_text(encoding="ascii").strip(),
            proxy=None if record.network == "none" else self.proxy.url,
            nameservers=guest_network.nameservers() if record.network == "open" else [],
        )
        (home / "given.json").write_text(json.dumps(sorted(files)), encoding="utf-8")
        plan = Plan(
            name=record.name,
            home=home,
            image=image,
            limits=limits,
            identity=fresh,
            files=files,
            network=addresses.name,
            device=record.device,
            address=record.address,
            gateway=addresses.gateway,
            prefix=addresses.network.prefixlen,
            first_user=idmap.first_user(addresses.index(record.address)),
        )
        way = isolations.named(record.isolation)
        way.prepare(plan)
        libvirt = self._libvirt(way.driver)
        libvirt.start(way.xml(plan))
        way.limit(libvirt, plan)
        shell = self._shell(record)
        deadline = time.monotonic() + way.start_timeout
        shell.wait(deadline, lambda: libvirt.state(record.name) is State.RUNNING)
        shell.connect(deadline)
        return shell

    def _register(self, image: Image, way: str, network: str) -> GuestRecord:
        """Choose a name and an address and write them down, owned by this process until the guest is there."""
        with locked(self._network.lock(), timeout=_LOCK_TIMEOUT):
            used = [record.address for record in self._records.all()]
            address = self._network.allocate(used)
            record = GuestRecord(
                name=f"{_host_name(image.name)}-{secrets.token_hex(4)}",
                image=image.name,
                digest=image.digest,
                isolation=way,
                method=isolations.named(way).method,
                network=network,
                address=address,
                mac="52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3)),
                device=self._network.addresses.device(address),
                started_at=now(),
                state="starting",
                owner=Owner.current(),
                reset_seconds=None,
            )
            self._records.write(record)
            self._network.apply(self._records.all(), self._caching_proxy.current())
        return record

    def _dispose(self, name: str) -> None:
        """Take everything away that a guest consisted of. The caller holds the guest's lock."""
        record = self._records.read(name)
        home = self._records.home(name)
        if record is not None:
            # Whoever still waits for this guest must not take its end for the guest's own doing.
            self._records.write(replace(record, state=_ENDING))
            self._shell(record).close()
            way = isolations.named(record.isolation)
            way.end(self._libvirt(way.driver), name)
            way.release(name)
        for place in mounts.below(home):
            mounts.unmount(place)
        if record is not None:
            self.catalogue.store.release(record.image, name)
        shutil.rmtree(home, ignore_errors=True)
        self._apply_firewall()
        self._lock(name).unlink(missing_ok=True)

    def _abandoned(self, name: str) -> bool:
        """Whether nobody claims a guest: half made, half ended, its owner gone, or lost with its host's restart."""
        record = self._records.read(name)
        if record is None or record.state == _ENDING:
            return True
        if record.owner is not None:
            return not record.owner.alive()
        return self.state(name) is State.DESTROYED

    def _readable_images(self) -> Iterator[Image]:
        """The built images; one that is damaged is told to whoever wants a guest of it, and keeps nobody else."""
        for name in self.catalogue.store.names():
            with contextlib.suppress(InfrastructureError):
                yield self.catalogue.store.image(name)

    def _ensure_proxy(self, images: Iterable[Image | None]) -> None:
        trees = [image.tree for image in images if image is not None and image.tree is not None]
        mirrors = {mirror for tree in trees for mirror in mirrors_of(tree)}
        with locked(self.settings.runtime / "proxy.lock", timeout=_LOCK_TIMEOUT):
            self._caching_proxy.ensure(self._network.addresses.gateway, mirrors)

    def _apply_firewall(self) -> None:
        with locked(self._network.lock(), timeout=_LOCK_TIMEOUT):
            self._network.apply(self._records.all(), self._caching_proxy.current())

    def _check_disk(self) -> None:
        least = self.settings.whole("storage.minimum_free")
        free = shutil.disk_usage(self.settings.state).free >> 20
        if free < least:
            raise DiskFull(
                f"{free} MiB are free below {self.settings.state}, {least} are needed to start a guest",
                hint="make room, or lower storage.minimum_free",
            )

    def _make_key(self) -> None:
        self._key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._key.exists():
            identity.make_key(self._key)

    @property
    def _key(self) -> Path:
        return self.settings.state / "ssh" / "id_ed25519"

    def _shell(self, record: GuestRecord) -> Shell:
        return Shell(
            address=record.address,
            key=self._key,
            known_hosts=self._records.home(record.name) / "known_hosts",
            control=self.settings.runtime / "ssh" / record.name,
        )

    def _libvirt(self, driver: str) -> Libvirt:
        connection = self._connections.get(driver)
        if connection is None or not connection.alive():
            connection = self._connections[driver] = Libvirt(self._daemon.uri(driver))
        return connection

    def _lock(self, name: str) -> Path:
        return self.settings.runtime / "locks" / name

    def _held(self, name: str) -> contextlib.AbstractContextManager[None]:
        return locked(self._lock(name), timeout=_LOCK_TIMEOUT)

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        with locked(self.settings.runtime / "host.lock", timeout=_LOCK_TIMEOUT):
            yield


def _host_name(image: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in image).strip("-")[:40]
