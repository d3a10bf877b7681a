"""Surroundings that fail in mid-work: it is never the product's fault, nothing is lost, and the way goes on."""

from __future__ import annotations

import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest
from live_site import LiveSite, installed, until
from surroundings import IMAGE, kept_between_runs

from cleanroom_workers.proxy import CachingProxy, Proxy

pytestmark = pytest.mark.timeout(300)
MAKE = "echo done > result.txt"


# -- the package mirror ------------------------------------------------------------------------------------------


class Mirror(ThreadingHTTPServer):
    """A proxy for package mirrors that can be down; when it is not, it asks another one."""

    daemon_threads = True

    def __init__(self, upstream: Proxy) -> None:
        # An address of this machine that guests can reach, too.
        super().__init__((upstream.address, 0), _Handler)
        self.url = f"http://{upstream.address}:{self.server_port}"
        self.down = True
        self.refused = 0
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": upstream.url}))

    def handle_error(self, *_: object) -> None:
        """A client that went away is nobody's concern."""


class _Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        if self.server.down:
            self.server.refused += 1
            self.send_error(503)
            return
        asked = urllib.request.Request(self.path)
        for name in ("If-Modified-Since", "Range", "If-Range", "Cache-Control"):
            if value := self.headers[name]:
                asked.add_header(name, value)
        try:
            with self.server.opener.open(asked, timeout=60) as answer:
                content = answer.read()
                self.send_response(answer.status)
                for name in ("Last-Modified", "Content-Type", "Content-Range"):
                    if value := answer.headers[name]:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
        except HTTPError as error:
            self.send_response(error.code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(site: LiveSite) -> Iterator[Mirror]:
    # With a guest comes the installation's own proxy.
    assert site.run("guest", "destroy", site.ask("guest", "reset", IMAGE)["name"]).status == 0
    proxy = CachingProxy(site.settings).current()
    assert proxy is not None
    with Mirror(proxy) as mirror:
        thread = threading.Thread(target=mirror.serve_forever)
        thread.start()
        yield mirror
        mirror.shutdown()
        thread.join(20)


def test_a_mirror_that_is_down_is_not_the_product_s_fault(mirror: Mirror) -> None:
    variable = {"CLEANROOM_NETWORK_MIRROR_PROXY": mirror.url}
    with installed(kept_between_runs() / "acceptance-other", **variable) as other:
        started = other.run("up", "--detach", timeout=180)
        assert started.status == 0, started
        other.script("meets-no-mirror", MAKE).tag("v1")
        first = until(lambda: _ended(other, "meets-no-mirror"), 120, "the first attempt ended")
        assert first["outcome"] == "infrastructure"
        assert "update" in first["why"]
        assert mirror.refused > 0
        mirror.down = False
        [build] = other.published("meets-no-mirror", "v1")["builds"]
        outcomes = [attempt["outcome"] for attempt in build["attempts"]]
        assert outcomes[-1] == "passed"
        assert set(outcomes[:-1]) == {"infrastructure"}


def _ended(site: LiveSite, product: str) -> dict[str, str] | None:
    """The first attempt of a product's release v1, once it ended."""
    shown = site.show(product, "v1")
    attempts = shown["builds"][0]["attempts"] if shown else []
    first: dict[str, str] | None = attempts[0] if attempts and attempts[0]["outcome"] else None
    return first


# -- the disk ----------------------------------------------------------------------------------------------------


@contextmanager
def _full(directory: Path) -> Iterator[None]:
    """Leave nothing free on the small file system that is mounted there."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                break
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def small(site: LiveSite) -> Iterator[LiveSite]:
    """An installation that runs and whose kept files have little room."""
    with installed(kept_between_runs() / "acceptance-other") as small, ExitStack() as mounts:
        for name in ("artifacts", "logs", "repository"):
            directory = small.state / name
            directory.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", directory], check=True)
            mounts.callback(subprocess.run, ["umount", "--lazy", directory], check=True)
        mounts.callback(small.run, "down")
        started = small.run("up", "--detach", timeout=180)
        assert started.status == 0, started
        yield small


def test_a_full_disk_of_the_control_plane_holds_and_goes_on(small: LiveSite) -> None:
    for directory in ("artifacts", "logs"):
        name = f"full-{directory}"
        # More than the blocks that its files and directories may still have.
        repository = small.script(name, "seq 20000; " + MAKE)
        with _full(small.state / directory):
            repository.tag("v1")
            assert small.wait(name, "v1").status == 3
            shown = small.show(name, "v1")
            assert shown["state"] == "held"
            assert {attempt["outcome"] for attempt in shown["builds"][0]["attempts"]} == {"infrastructure"}
            assert "No space left on device" in shown["why"], shown["why"]
        assert small.run("release", "retry", name, "v1").status == 0
        small.published(name, "v1")
        assert not list((small.state / directory).rglob("*.new"))


def test_a_full_disk_of_the_repository_delays_a_publication(small: LiveSite) -> None:
    with _full(small.state / "repository"):
        small.script("full-repository", MAKE).tag("v1")
        until(
            lambda: "the disk is full" in (small.show("full-repository", "v1") or {"why": ""})["why"],
            120,
            "it says why",
        )
        assert small.show("full-repository", "v1")["state"] == "passed"
    small.published("full-repository", "v1")
