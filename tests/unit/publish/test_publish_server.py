from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from tiny_packages import make_deb, make_rpm, sha256
from twisted.internet.address import IPv4Address
from twisted.web.test.requesthelper import DummyRequest

from cleanroom_base.settings import load
from cleanroom_master.publish.package import Package
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import Signer
from cleanroom_master.publish.site import repository_directory
from cleanroom_master.repository_server import PublishedTree

SERVE = """
import sys
from cleanroom_base.settings import load
from cleanroom_master.repository_server import main
main(load(dict(CLEANROOM_STATE=sys.argv[1], CLEANROOM_SITE=sys.argv[1], CLEANROOM_REPOSITORY_PORT=sys.argv[2],
    CLEANROOM_REPOSITORY_BIND="127.0.0.2")))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def packages(state: Path, signer: Signer) -> list[Package]:
    settings = load({"CLEANROOM_STATE": str(state), "CLEANROOM_SITE": str(state)})
    repository = Repository(repository_directory(settings), signer, origin="Test", url="http://repository.example")
    packages = []
    for file in (make_deb(state), make_rpm(state)):
        added = repository.add_to_pool(file, sha256(file))
        packages.append(added.published_in("testing", f"debian-12/{added.format}"))
    repository.build(1, packages)
    repository.switch(1)
    return packages


@pytest.fixture(scope="module")
def port(state: Path, packages: list[Package]) -> Iterator[int]:
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(state), str(port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.2", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        assert server.wait(timeout=20) == 0


def raw(port: int, line: str) -> bytes:
    """The answer to a request line that no library would send."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_it_answers_at_every_address(port: int):
    for address in ("127.0.0.1", "127.0.0.2"):
        answer = requests.get(f"http://{address}:{port}/", timeout=10)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


def test_what_may_change_is_asked_for_again_and_what_cannot_is_kept(port: int, packages: list[Package]):
    deb, rpm = packages
    url = f"http://127.0.0.1:{port}"
    repomd = requests.get(f"{url}/yum/debian-12/testing/repodata/repomd.xml", timeout=10).text
    primary = next(part for part in repomd.split('"') if part.endswith("-primary.xml.gz"))
    release = requests.get(f"{url}/apt/dists/testing/Release", timeout=10).text
    checksum = next(line.split()[0] for line in release.splitlines() if line.endswith("binary-amd64/Packages.gz"))
    for place, kept in {
        "": False,
        "apt/dists/testing/InRelease": False,
        "apt/dists/testing/debian-12/binary-amd64/Packages.gz": False,
        f"apt/dists/testing/debian-12/binary-amd64/by-hash/SHA256/{checksum}": True,
        f"apt/{deb.path}": True,
        "yum/debian-12/testing/repodata/repomd.xml": False,
        f"yum/debian-12/testing/{primary}": True,
        f"yum/debian-12/testing/{rpm.path}": True,
    }.items():
        answer = requests.get(f"{url}/{place}", timeout=10)
        assert answer.status_code == 200, place
        assert ("immutable" in answer.headers["Cache-Control"]) == kept, place
        assert ("no-cache" in answer.headers["Cache-Control"]) != kept, place
        assert "Content-Encoding" not in answer.headers, place


@pytest.fixture
def following(state: Path, signer: Signer, packages: list[Package]) -> Iterator[Repository]:
    """A second generation, to be switched to; afterwards the first one is shown again."""
    settings = load({"CLEANROOM_STATE": str(state), "CLEANROOM_SITE": str(state)})
    repository = Repository(repository_directory(settings), signer, origin="Test", url="http://repository.example")
    repository.build(2, packages[:1])
    yield repository
    repository.switch(1)
    repository.remove_generations(keep={1})


def signed(tmp_path: Path, signer: Signer, content: bytes, signature: bytes) -> bool:
    """Whether this is the signature of that content."""
    for name, value in (("key", signer.keyring()), ("content", content), ("content.asc", signature)):
        (tmp_path / name).write_bytes(value)
    words = ["gpgv", "--keyring", tmp_path / "key", tmp_path / "content.asc", tmp_path / "content"]
    return subprocess.run(words, check=False, capture_output=True, timeout=30).returncode == 0


def test_who_began_with_one_generation_gets_its_signature(
    tmp_path: Path, port: int, signer: Signer, following: Repository
):
    """As dnf does, by the mirrorlist and without it, with a switch in the worst moment."""
    base = f"http://127.0.0.1:{port}"
    repository = f"{base}/yum/debian-12/testing/"
    mirrors = requests.get(f"{repository}mirrorlist", timeout=10)
    assert "no-cache" in mirrors.headers["Cache-Control"]
    one_state = mirrors.text.splitlines()[0].replace("http://repository.example", base)
    before = requests.get(f"{repository}repodata/repomd.xml", timeout=10).content
    following.switch(2)
    assert signed(tmp_path, signer, before, requests.get(f"{repository}repodata/repomd.xml.asc", timeout=10).content)
    repomd, signature = (
        requests.get(f"{one_state}repodata/{name}", timeout=10) for name in ("repomd.xml", "repomd.xml.asc")
    )
    assert repomd.content == before
    assert "immutable" in repomd.headers["Cache-Control"]
    assert signed(tmp_path, signer, before, signature.content)
    # Who begins now gets what is now.
    after = requests.get(f"{repository}repodata/repomd.xml", timeout=10).content
    assert after != before
    assert signed(tmp_path, signer, after, requests.get(f"{repository}repodata/repomd.xml.asc", timeout=10).content)


@pytest.mark.parametrize(("client", "found"), [("10.0.0.7", "10.0.0.1:9480"), ("127.0.0.1", "repository.example")])
def test_guests_are_led_to_the_address_by_which_they_ask(state: Path, packages: list[Package], client: str, found: str):
    request = DummyRequest([b"yum", b"debian-12", b"testing", b"mirrorlist"])
    request.requestHeaders.addRawHeader("host", "10.0.0.1:9480")
    request.getHost = lambda: IPv4Address("TCP", "127.0.0.1", 9480)
    request.getClientAddress = lambda: IPv4Address("TCP", client, 40000)
    tree = PublishedTree(state / "repository", "http://repository.example")
    written = tree.render(request)
    text = (written if isinstance(written, bytes) else b"".join(request.written)).decode()
    assert text.splitlines()[1] == f"http://{found}/yum/debian-12/testing/"


def test_ranges_and_unchanged_files(port: int):
    url = f"http://127.0.0.1:{port}/apt/dists/testing/InRelease"
    whole = requests.get(url, timeout=10)
    part = requests.get(url, headers={"Range": "bytes=5-14"}, timeout=10)
    assert (part.status_code, part.content) == (206, whole.content[5:15])
    same = requests.get(url, headers={"If-Modified-Since": whole.headers["Last-Modified"]}, timeout=10)
    assert (same.status_code, same.content) == (304, b"")
    head = requests.head(url, timeout=10)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(whole.content)))


def test_what_a_client_has_is_known_by_its_tag(port: int):
    url = f"http://127.0.0.1:{port}/apt/dists/testing/InRelease"
    whole = requests.get(url, timeout=10)
    tag, time_ = whole.headers["ETag"], whole.headers["Last-Modified"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        for method in ("GET", "HEAD"):
            same = requests.request(method, url, headers={"If-None-Match": known}, timeout=10)
            assert (same.status_code, same.content) == (304, b""), known
            assert (same.headers["ETag"], same.headers["Cache-Control"]) == (tag, "no-cache")
    # Where tags are compared, times are not.
    other = requests.get(url, headers={"If-None-Match": '"other"', "If-Modified-Since": time_}, timeout=10)
    assert (other.status_code, other.content) == (200, whole.content)


def test_only_who_has_the_beginning_of_the_same_file_gets_the_rest(port: int):
    url = f"http://127.0.0.1:{port}/apt/dists/testing/InRelease"
    whole = requests.get(url, timeout=10)
    for begun in (whole.headers["ETag"], whole.headers["Last-Modified"]):
        part = requests.get(url, headers={"Range": "bytes=5-", "If-Range": begun}, timeout=10)
        assert (part.status_code, part.content) == (206, whole.content[5:])
    for begun in ('"other"', "Thu, 01 Jan 1970 00:00:00 GMT", "nonsense"):
        part = requests.get(url, headers={"Range": "bytes=5-", "If-Range": begun}, timeout=10)
        assert (part.status_code, part.content) == (200, whole.content), begun
    beyond = requests.get(url, headers={"Range": "bytes=99999999-"}, timeout=10)
    assert beyond.status_code == 416


def test_a_file_is_as_old_as_it_is_also_between_two_seconds(port: int, state: Path) -> None:
    """A client that goes on names the time that it was told; the library would have told a later one."""
    file = state / "repository" / "current" / "keys" / "cleanroom.asc"
    os.utime(file, (1_700_000_000.7, 1_700_000_000.7))
    url = f"http://127.0.0.1:{port}/keys/cleanroom.asc"
    whole = requests.get(url, timeout=10)
    assert whole.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    headers = {"Range": "bytes=5-", "If-Range": whole.headers["Last-Modified"]}
    part = requests.get(url, headers=headers, timeout=10)
    assert (part.status_code, part.content) == (206, whole.content[5:])


@pytest.mark.parametrize(
    "place",
    [
        "/../generations/1/index.html",
        "/..%2f..%2f..%2f..%2f..%2fetc/passwd",
        "/apt/../../../../../../etc/passwd",
        "//etc/passwd",
        "/%2e%2e/%2e%2e/facts",
        "/apt/%00",
        "/apt/pool/../../../pool",
        "/index.html/",
        "/index.html%00.txt",
        "/apt",
        "/apt/",
        "/apt/pool/",
        "/" + "a" * 5000,
        "/%ff%fe",
    ],
)
def test_nothing_else_is_served(port: int, place: str):
    assert b" 404 " in raw(port, f"GET {place} HTTP/1.1").partition(b"\r\n")[0]


def test_a_link_out_of_the_repository_is_not_followed(port: int, state: Path):
    (state / "secret").write_text("secret")
    current = state / "repository/current"
    (current / "inside").symlink_to("index.html")
    (current / "outside").symlink_to(state / "secret")
    (current / "private").symlink_to("../../facts")
    url = f"http://127.0.0.1:{port}"
    assert requests.get(f"{url}/inside", timeout=10).status_code == 200
    assert requests.get(f"{url}/outside", timeout=10).status_code == 404
    fact = next((state / "repository/facts").glob("*/*"))
    assert requests.get(f"{url}/private/{fact.parent.name}/{fact.name}", timeout=10).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_written(port: int, method: str):
    assert requests.request(method, f"http://127.0.0.1:{port}/", timeout=10).status_code in (405, 501)


def test_a_port_that_is_taken_is_said_with_the_setting_to_change(state: Path, port: int):
    words = [sys.executable, "-c", SERVE, str(state), str(port)]
    second = subprocess.run(words, check=False, capture_output=True, text=True, timeout=30)
    assert f"InfrastructureError: the repository cannot be served at 127.0.0.2, port {port}: " in second.stderr
    assert "CLEANROOM_REPOSITORY_PORT" in second.stderr
