"""A host: the machine that holds images, libvirt and guests. One object per process; processes share the state.

Everything a guest consists of is named in its record before it is made, so that whoever finds the record can
take all of it away, whatever became of the process that wrote it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.store import Image, now
from cleanroom_workers import console, identity, idmap, isolations, mounts, room, verify
from cleanroom_workers import network as guest_network
from cleanroom_workers.console import Console
from cleanroom_workers.daemon import Daemon
from cleanroom_workers.guest import Guest
from cleanroom_workers.layers import Layer, Layers, owned_as_in_image
from cleanroom_workers.libvirt_access import Libvirt, LibvirtError, State
from cleanroom_workers.locks import attempted, locked
from cleanroom_workers.network import Addresses
from cleanroom_workers.plan import Limits, Plan
from cleanroom_workers.platforms import foreign
from cleanroom_workers.pool import READY, Bell, Demand, Kind, kept
from cleanroom_workers.probe import IsolationProbe, Prober
from cleanroom_workers.proxy import CachingProxy, Proxy, mirrors_of
from cleanroom_workers.records import GuestRecord, Owner, Records
from cleanroom_workers.saved_states import SavedStates, Subject
from cleanroom_workers.shell import Shell
from cleanroom_workers.snapshots import METHOD, Snapshots

Observer = Callable[[str], None]

_LOCK_TIMEOUT = 120.0
_ENDING = "ending"


class Host:
    """This machine as a place for guests."""

    def __init__(self, settings: Settings, catalogue: Catalogue | None = None) -> None:
        self.settings = settings
        self.catalogue = catalogue or Catalogue.of(settings)
        self._daemon = Daemon(settings)
        self._network = guest_network.Network(settings)
        self._caching_proxy = CachingProxy(settings)
        self._records = Records(settings.state / "guests")
        self._prober = Prober(settings.state / "probes.json", self._daemon, self._try)
        self._connections: dict[str, Libvirt] = {}
        self._snapshots = Snapshots(settings, self._template)
        self._awake = False
        # The proxy that each guest of this process was told of.
        self._proxies: dict[str, str] = {}
        self.demand = Demand(settings.state / "pool")
        self._layers = Layers(settings.state / "layers")
        self.bell = Bell(settings.runtime / "pool.bell")
        self.pool_lock = settings.runtime / "pool.lock"

    @classmethod
    def open(cls, settings: Settings) -> Host:
        """Have everything that guests need run, and connect. Raises InfrastructureError."""
        host = cls(settings)
        host.wake()
        return host

    def wake(self) -> None:
        """Have everything that guests need run: libvirt, network, proxy, firewall. Raises InfrastructureError."""
        self.settings.runtime.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._wake(network=True)
        self._ensure_proxy(self._readable_images())
        self._apply_firewall()
        self._awake = True

    def reset(
        self,
        image: str,
        *,
        isolation: str = "auto",
        network: str = "mirror",
        owner: Owner | None = None,
        limits: Limits | None = None,
        preparation: tuple[str, ...] = (),
        declared: tuple[str, ...] = (),
        observer: Observer | None = None,
    ) -> Guest:
        """A clean guest of an image that answers: one that was kept ready, or else started now.

        `preparation` are programs that may already have run in it, and `declared` further ones that install what one
        product declares, see `layers`; `limits` are the site's unless given.
        """
        started = time.monotonic()
        wanted = self.settings.text("worker.isolation") if isolation == "auto" else isolation
        kind = Kind(image, wanted, guest_network.check_policy(network), limits or self.limits, preparation, declared)
        tell = observer or (lambda _: None)
        guest = self._take_noted(kind, owner, started)
        if guest is None and declared and not self.has_layer(kind):
            # One of those that serve every product will do as well, and may be ready.
            kind = replace(kind, declared=())
            guest = self._take_noted(kind, owner, started)
        self.bell.ring()
        if guest is None:
            if not self._awake:
                self.wake()
            guest = self._fresh(kind, State.RUNNING.value, owner, started, tell)
        tell(f"{guest.name} answers after {guest.reset_seconds} s")
        return guest

    def start(self, kind: Kind) -> Guest:
        """A guest that starts now, for this process alone; that it was wanted is not remembered."""
        return self._fresh(kind, State.RUNNING.value, Owner.current(), time.monotonic(), lambda _: None)

    def prepare(self, kind: Kind) -> GuestRecord:
        """Start a guest that is kept ready, by this process, for whoever asks for one of its kind."""
        return self._fresh(kind, READY, Owner.current(), time.monotonic(), lambda _: None).record

    def ready(self) -> list[GuestRecord]:
        """The guests that are kept ready."""
        return [record for record in self._records.all() if record.state == READY]

    def outdated(self, records: Iterable[GuestRecord], kinds: Mapping[str, Kind]) -> list[GuestRecord]:
        """Those of the ready guests of this process that are not what would be started now, or ended by themselves."""
        found = []
        images: dict[str, Image | None] = {}
        proxy = self._caching_proxy.current()
        for record in records:
            if record.image not in images:
                images[record.image] = self._sound(record.image)
            image, kind = images[record.image], kinds.get(record.kind or "")
            alive = record.first is None or record.first.alive()
            same_proxy = self._proxies.get(record.name) == (proxy and proxy.url)
            same_layer = (
                image is not None and kind is not None and record.layer == self._layer_name(record, image, kind)
            )
            if image is None or record.digest != image.digest or not (alive and same_proxy and same_layer):
                found.append(record)
        return found

    def lacks_layer(self, kind: Kind) -> bool:
        """Whether guests of a kind are prepared by programs, and there is no layer yet, or an old one."""
        image = self._sound(kind.image) if kind.programs and kind.network != "none" else None
        if image is None:
            return False
        layer = self._layers.find(image, kind.programs)
        if layer is not None and layer.made_at > self._layers_since():
            return False
        way = self._prober.choose(image) if kind.isolation == "auto" else kind.isolation
        return isolations.named(way).layered

    def has_layer(self, kind: Kind) -> bool:
        """Whether guests of a kind can start from a layer with what its product declares."""
        layered = kind.isolation == "auto" or isolations.named(isolations.check(kind.isolation)).layered
        with contextlib.suppress(InputError, InfrastructureError):
            return layered and self._declared_layer(self.catalogue.image(kind.image), kind) is not None
        return False

    def make_layer(self, kind: Kind) -> None:
        """Make the layer that guests of a kind start from, unless another process makes layers now.

        Raises InfrastructureError.
        """
        with self._layers.making() as alone:
            if not alone:
                return
            present = {self.catalogue.store.digest(name) for name in self.catalogue.store.names()}
            self._layers.sweep(self._used_layers, present)
            self.wake()
            image = self.catalogue.image(kind.image)
            plain = replace(kind, network="mirror", preparation=(), declared=())
            with self.start(plain) as guest:
                for program in kind.programs:
                    guest.prepare(program)
                # Its files stay until it is taken away; nothing writes to them any more.
                way = isolations.named(guest.isolation)
                way.end(self._libvirt(way.driver), guest.name)
                home = self._records.home(guest.name)
                given = json.loads((home / "given.json").read_text(encoding="utf-8"))
                first_user = idmap.first_user(self._network.addresses.index(guest.address))
                with owned_as_in_image(home / "store/upper", first_user, home / "mapped") as upper:
                    self._layers.add(image, kind.programs, upper, given, declared=bool(kind.declared))
            self.demand.layered(kind)
        self.bell.ring()

    def discard(self, name: str) -> None:
        """End a guest that is still kept ready; one that was taken meanwhile is left alone."""
        with self._held(name):
            record = self._records.read(name)
            if record is not None and record.state == READY:
                self._dispose(name)

    def discard_ready(self, image: str) -> None:
        """End all ready guests of an image, before it is removed for example."""
        for record in self.ready():
            if record.image == image:
                self.discard(record.name)

    def dismiss(self, name: str) -> None:
        """End a guest at once. What is left of it is taken away by the pool's process where there is one."""
        record = self._records.read(name)
        if record is None or record.first is None or not kept(self.pool_lock):
            self.destroy(name)
            return
        with self._held(name):
            # Whoever still waits for this guest must not take its end for the guest's own doing.
            self._records.write(replace(record, state=_ENDING))
            if record.first.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.first.process, signal.SIGKILL)
        self.bell.ring()

    @property
    def gateway(self) -> str:
        """This machine's address in its guests' network."""
        return self._network.addresses.gateway

    @property
    def repository(self) -> str:
        """Where guests find the published repository, if their network lets them."""
        return f"http://{self.gateway}:{self.settings.whole('repository.port')}"

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
        # One for another architecture says nothing of this host.
        native = [image for image in self._readable_images() if foreign(image) is None]
        image = native[0] if native else None
        return [self._prober.probe(name, image) for name in isolations.ISOLATIONS]

    def known_isolations(self) -> tuple[str, ...]:
        """The isolations that were seen to work, or that the site wants, without trying any."""
        seen = {*self._prober.known(), self.settings.text("worker.isolation")}
        seen |= {record.isolation for record in self._records.all()}
        return tuple(name for name in isolations.ISOLATIONS if name in seen)

    def recorded(self) -> list[GuestRecord]:
        """The records of all guests, without looking what became of them."""
        return self._records.all()

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

    def console(self, name: str) -> Console:
        """The console of a guest that is there, if it answers or not. Raises InputError."""
        record = self._records.read(name)
        if record is None:
            raise _no_guest(name)
        libvirt = self._libvirt(isolations.named(record.isolation).driver)
        recorded = record.isolation != "container"
        return Console(name, self._records.home(name), libvirt.console(name), recorded)

    @contextlib.contextmanager
    def saved_states(self, name: str) -> Iterator[SavedStates]:
        """The states that are kept of a running guest, to be worked with under its lock. Raises InputError."""
        self._running(name)
        with self._held(name):
            record = self._running(name)
            first_user = idmap.first_user(self._network.addresses.index(record.address))
            libvirt = self._libvirt(isolations.named(record.isolation).driver)
            home, shell = self._records.home(name), self._shell(record)
            dispose, room_for = partial(self._dispose, name), partial(room.check, self.settings)
            yield SavedStates(Subject(record, home, libvirt, shell, first_user, self._records.write, dispose, room_for))

    def _running(self, name: str) -> GuestRecord:
        record = self._records.read(name)
        if record is None or record.state != State.RUNNING.value:
            raise _no_guest(name)
        return record

    def guest(self, name: str) -> Guest:
        """A running guest by name. Raises InputError, DiskFull."""
        record = self._running(name)
        if record.isolation != "container" and not self._libvirt("qemu").goes_on(name):
            raise room.DiskFull(f"{name} stands still: this host has no room for what it writes", hint="make room")
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
        listed = image.manifest if guest.record.layer is None else self._layers.manifest(guest.record.layer)
        return verify.differences(guest, image, listed, home, dict.fromkeys(given), first_user)

    def state(self, name: str) -> State:
        """What became of a guest."""
        record = self._records.read(name)
        if record is None or record.state == _ENDING:
            return State.DESTROYED
        return self._libvirt(isolations.named(record.isolation).driver).state(name)

    def damaged(self, name: str) -> bool:
        """Whether a guest's disk lost something because this host's was full; a machine waits for room instead."""
        return mounts.damaged(self._records.home(name) / "store")

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
            console.bound(self._records.home(name))
            with attempted(self._lock(name)) as held:
                if held and self._abandoned(name):
                    self._dispose(name)
                    reaped.append(name)
        self._snapshots.tidy(self.catalogue.store.digest)
        self._layers.bound(self._used_layers, self._layers_since())
        self.catalogue.store.tidy()
        return reaped

    def unclaimed(self) -> list[str]:
        """The guests that `reap` would end now. Raises InfrastructureError where that cannot be seen."""
        left = []
        for name in self._records.names():
            with attempted(self._lock(name)) as held:
                if held and self._abandoned(name):
                    left.append(name)
        return left

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
            self._snapshots.stop()
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

    def _try(self, name: str, image: str) -> None:
        """Start and end a guest. A machine is booted: whether it boots is the question, and not to make a snapshot."""
        settings = replace(self.settings, values={**self.settings.values, "worker.snapshots": "no"})
        booting = Host(settings, self.catalogue)
        kind = Kind(image, name, "none", self.limits)
        booting.start(kind).destroy()
        booting.close()

    def _take_noted(self, kind: Kind, owner: Owner | None, started: float) -> Guest | None:
        """A ready guest, as `_take` gives it; that it was wanted is remembered."""
        together = self._together(kind)
        guest = self._take(kind, owner, started)
        self.demand.note(kind, together)
        return guest

    def _take(self, kind: Kind, owner: Owner | None, started: float) -> Guest | None:
        """A ready guest, from now on the caller's; None when there is none."""
        digest: str | None = None
        for found in self.ready():
            if found.kind != kind.key:
                continue
            digest = digest or self.catalogue.image(kind.image).digest
            with attempted(self._lock(found.name)) as held:
                record = self._records.read(found.name) if held else None
                if record is None or record.digest != digest or not self._fit(record):
                    continue
                taken = round(time.monotonic() - started, 3)
                record = replace(
                    record,
                    state=State.RUNNING.value,
                    owner=owner,
                    method=f"{record.method}, kept ready",
                    started_at=now(),
                    reset_seconds=taken,
                )
                self._records.write(record)
                return Guest(record, self._shell(record), self)
        return None

    def _fit(self, record: GuestRecord) -> bool:
        """Whether a guest is still kept ready, by a process that lives, and answers as far as one can tell."""
        kept_ready = record.state == READY and record.owner is not None and record.owner.alive()
        return kept_ready and (record.first is None or record.first.alive()) and self._shell(record).control.is_socket()

    def _together(self, kind: Kind) -> int:
        """How many guests of a kind are used now, with one that is being asked for."""
        return 1 + sum(
            record.kind == kind.key and record.state == State.RUNNING.value for record in self._records.all()
        )

    def _template(self, isolation: str, like: Plan, directory: Path, tell: Observer) -> Guest:
        """A guest to take a snapshot of, with its files in `directory`."""
        kind = Kind(like.image.name, isolation, "none", like.limits)
        return self._fresh(kind, "template", Owner.current(), time.monotonic(), tell, directory)

    def _fresh(
        self,
        kind: Kind,
        state: str,
        owner: Owner | None,
        started: float,
        tell: Observer,
        template: Path | None = None,
    ) -> Guest:
        """Start a guest and wait until it answers; then it is in that state and has that owner."""
        room.check(self.settings)
        with self.catalogue.store.held(kind.image):
            built = self.catalogue.image(kind.image)
            self._ensure_proxy([built])
            way = self._prober.choose(built) if kind.isolation == "auto" else isolations.check(kind.isolation)
            with self._layers.choosing():
                layer = self._layer(way, built, kind)
                record = self._register(built, way, kind, layer)
            self.catalogue.store.claim(built, record.name)
        try:
            with self._held(record.name):
                tell(f"starting {record.name}")
                # Looking whether the image is what was sealed goes on while the guest starts.
                with ThreadPoolExecutor(1) as aside:
                    unchanged = aside.submit(self.catalogue.store.check, built)
                    shell, first, method = self._start(record, built, kind.limits, layer, tell, template)
                    unchanged.result()
            seconds = round(time.monotonic() - started, 3)
            record = replace(record, state=state, owner=owner, reset_seconds=seconds, first=first, method=method)
            self._records.write(record)
        except BaseException:
            self.destroy(record.name)
            raise
        return Guest(record, shell, self)

    def _layer(self, way: str, image: Image, kind: Kind) -> Layer | None:
        """The layer that a guest of a kind would start from now."""
        if not (kind.programs and isolations.named(way).layered):
            return None
        return self._declared_layer(image, kind) or self._layers.find(image, kind.preparation)

    def _declared_layer(self, image: Image, kind: Kind) -> Layer | None:
        """A layer with what a kind's product declares. An old one is not used: what the packages of then needed may be
        in it, and those of today may not need it."""
        return self._layers.find(image, kind.programs, self._layers_since()) if kind.declared else None

    def _layers_since(self) -> float:
        """Layers that were made before this moment (seconds since the epoch) are old."""
        return time.time() - self.settings.number("worker.layer_age")

    def _used_layers(self) -> set[str]:
        return {record.layer for record in self._records.all() if record.layer}

    def _layer_name(self, record: GuestRecord, image: Image, kind: Kind) -> str | None:
        layer = self._layer(record.isolation, image, kind)
        return None if layer is None else layer.name

    def _sound(self, image: str) -> Image | None:
        """An image, None when it is gone or not what was sealed."""
        with contextlib.suppress(InputError, InfrastructureError):
            built = self.catalogue.image(image)
            self.catalogue.store.check(built)
            return built
        return None

    def _start(
        self,
        record: GuestRecord,
        image: Image,
        limits: Limits,
        layer: Layer | None,
        tell: Observer,
        template: Path | None,
    ) -> tuple[Shell, Owner | None, str]:
        home = self._records.home(record.name)
        addresses = self._network.addresses
        fresh = identity.fresh(record.name, home)
        fresh = replace(fresh, mac=record.mac)
        (home / "known_hosts").write_text(f"{record.address} {fresh.host_key_public}\n", encoding="ascii")
        proxy = self.proxy.url
        self._proxies[record.name] = proxy
        way = isolations.named(record.isolation)
        identifying = identity.files(
            fresh,
            authorized_key=self._key.with_name("id_ed25519.pub").read_text(encoding="ascii").strip(),
            proxy=None if record.network == "none" else proxy,
            nameservers=guest_network.nameservers() if record.network == "open" else [],
        )
        files = {**identifying, **way.files}
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
            layer=None if layer is None else layer.tree,
            template=template,
        )
        libvirt = self._libvirt(way.driver)
        shell = self._shell(record)

        def wait(seconds: float) -> None:
            deadline = time.monotonic() + seconds
            shell.open(deadline, lambda: libvirt.state(record.name) is State.RUNNING)

        restored = self._snapshots.start(libvirt, record.isolation, plan, wait, tell)
        first = way.first_process(libvirt, record.name)
        return shell, None if first is None else Owner.of(first), METHOD if restored else record.method

    def _register(self, image: Image, way: str, kind: Kind, layer: Layer | None) -> GuestRecord:
        """Choose a name and an address and write them down, owned by this process until the guest is there."""
        if kind.network == "repository":
            # What cannot be found now is not the fault of what would be tested in that guest.
            self._network.repository()
        with locked(self._network.lock(), timeout=_LOCK_TIMEOUT):
            used = [record.address for record in self._records.all()]
            address = self._network.allocate(used)
            record = GuestRecord(
                name=f"{_host_name(image.name)}-{secrets.token_hex(4)}",
                image=image.name,
                digest=image.digest,
                isolation=way,
                method=isolations.named(way).method if layer is None else layer.method,
                network=kind.network,
                address=address,
                mac="52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3)),
                device=self._network.addresses.device(address),
                started_at=now(),
                state="starting",
                owner=Owner.current(),
                reset_seconds=None,
                kind=kind.key,
                layer=None if layer is None else layer.name,
            )
            self._records.write(record)
            self._network.apply(self._records.all(), self._caching_proxy.current())
        if layer is not None:
            self._layers.used(layer)
        return record

    def _dispose(self, name: str) -> None:
        """Take everything away that a guest consisted of. The caller holds the guest's lock."""
        record = self._records.read(name)
        home = self._records.home(name)
        if record is not None:
            # Whoever still waits for this guest must not take its end for the guest's own doing. Where the disk is full
            # this cannot be written down, and the guest's end makes room.
            with contextlib.suppress(OSError):
                self._records.write(replace(record, state=_ENDING))
            self._shell(record).close()
            way = isolations.named(record.isolation)
            way.end(self._libvirt(way.driver), name)
            way.release(name)
        self._daemon.forget(name)
        for place in mounts.below(home):
            mounts.abandon(place)
        if record is not None:
            self.catalogue.store.release(record.image, name)
        shutil.rmtree(home, ignore_errors=True)
        # Who is killed after this leaves nothing of the guest; the firewall is made right with the next one.
        self._lock(name).unlink(missing_ok=True)
        self._apply_firewall()

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


def _no_guest(name: str) -> InputError:
    return InputError(f"there is no guest {name!r}", hint="see: cleanroom guest list")


def _host_name(image: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in image).strip("-")[:40]
