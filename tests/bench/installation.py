"""An installation of its own for measuring: its state, its ports, and no settings of the machine but its limits."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cleanroom_base import run
from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_base.settings import Settings, load
from cleanroom_db import cluster
from cleanroom_images import build
from cleanroom_images.catalogue import Catalogue
from cleanroom_images.store import ImageMissing, Store
from cleanroom_master import supervisor
from cleanroom_master.places import Places

IMAGE = "debian-12"
_PLACE = "CLEANROOM_BENCH_STATE"
_RELEASES = "CLEANROOM_BENCH_RELEASES"
_DEFAULT_PLACE = "/var/tmp/cleanroom-bench"
_PORTS = (
    *("CLEANROOM_MASTER_PORT", "CLEANROOM_MASTER_WORKER_PORT"),
    *("CLEANROOM_REPOSITORY_PORT", "CLEANROOM_WEB_PORT"),
)
_START_TIMEOUT = 180.0
_COPY_TIMEOUT = 600.0
_PAUSE = 0.1


def home() -> Path:
    """The directory for everything that measuring leaves; kept between runs because of the image in it."""
    return _HOME


def fewer_releases() -> int | None:
    """How many releases a long measurement is to have, if somebody wants fewer."""
    return _FEWER or None


# Taken out of the environment at once: the programs that are measured would not know these settings.
_HOME = Path(os.environ.pop(_PLACE, _DEFAULT_PLACE))
_FEWER = int(os.environ.pop(_RELEASES, "0"))
_CALLER = dict(os.environ)


def use(state: Path, **further: str) -> Settings:
    """Make `state` the installation of this process and of all that it starts.

    `further` are settings by their variables' names. What the caller set of hosts, guests and network holds,
    but neither the database nor the site nor the ports.
    """
    for name in [name for name in os.environ if name.startswith(("CLEANROOM_DATABASE_", "CLEANROOM_REPOSITORY_"))]:
        del os.environ[name]
    os.environ["CLEANROOM_STATE"] = str(state)
    os.environ["CLEANROOM_SITE"] = str(state / "site")
    with contextlib.ExitStack() as held:
        for name in _PORTS:
            # Held open together, so that no port is chosen twice.
            probe = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            os.environ[name] = str(probe.getsockname()[1])
    # Consumers would take guests of their own while others are measured.
    os.environ.setdefault("CLEANROOM_PUBLISHER_CANARY", "no")
    os.environ.update(further)
    state.mkdir(parents=True, exist_ok=True)
    return load()


def with_image() -> Settings:
    """The lasting installation of the measurements, with the image in it. Takes minutes the first time."""
    ours = home()
    _place_image(ours)
    settings = use(ours)
    # What a killed run left would share the guests with this one, and has other ports than those chosen now.
    supervisor.stop(settings)
    return settings


def _place_image(ours: Path) -> None:
    catalogue = Catalogue(ours)
    with contextlib.suppress(ImageMissing):
        catalogue.image(IMAGE)
        return
    theirs = load(_CALLER).state / "images" / IMAGE
    if Store(theirs.parents[1]).digest(IMAGE) is not None:
        say(f"copying the image {IMAGE}")
        (ours / "images").mkdir(parents=True, exist_ok=True)
        run.run(["cp", "--archive", "--reflink=auto", str(theirs), str(ours / "images")], timeout=_COPY_TIMEOUT)
        # Guests that run from theirs do not run from ours.
        shutil.rmtree(ours / "images" / IMAGE / "users", ignore_errors=True)
    else:
        say(f"building the image {IMAGE}")
        build.build(catalogue, IMAGE)


@contextlib.contextmanager
def everything() -> Iterator[Settings]:
    """The lasting installation with all of its processes running."""
    settings = with_image()
    try:
        # One that does not come up in its time goes on trying, and is ended like one that does.
        supervisor.start_in_background(settings, timeout=_START_TIMEOUT)
        yield settings
    finally:
        supervisor.stop(settings)


@contextlib.contextmanager
def fresh(name: str, **further: str) -> Iterator[Settings]:
    """A new installation without images or processes, with a database; nothing of it is left at the end."""
    settings = use(home() / name, **further)
    _forget(settings)
    settings.state.mkdir(parents=True)
    try:
        supervisor.prepare(settings)
        yield settings
    finally:
        _forget(settings)


@contextlib.contextmanager
def master(settings: Settings) -> Iterator[int]:
    """The real master, without any worker, as a process; gives its number once its pages answer."""
    log = Places(settings).service_log("master")
    process = run.start([sys.executable, "-m", "cleanroom_master.buildbot"], log=log, end_with_parent=True)
    try:
        deadline = time.monotonic() + _START_TIMEOUT
        while not _answers(settings.whole("master.port")):
            if process.poll() is not None:
                raise InfrastructureError(f"the master ended:\n{supervisor.tail(log)}")
            if time.monotonic() > deadline:
                raise TimedOut(f"the master does not answer:\n{supervisor.tail(log)}")
            time.sleep(_PAUSE)
        yield process.pid
    finally:
        process.terminate()
        run.wait(process, supervisor.GRACE)
        run.kill_group(process)


def say(line: str) -> None:
    """Tell a person what is going on."""
    sys.stderr.write(f"bench: {line}\n")
    sys.stderr.flush()


def _forget(settings: Settings) -> None:
    cluster.stop(settings)
    shutil.rmtree(settings.state, ignore_errors=True)
    shutil.rmtree(settings.runtime, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
