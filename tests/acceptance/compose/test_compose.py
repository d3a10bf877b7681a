"""The services of docker-compose.yml: one release from a tag into a consumer's container, while services are killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from builds import write_tree
from containers import BASE, PROJECT, SERVICES, Stack, engine, until
from git_repository import Repository
from handmade import deb

from cleanroom_master import consumer_page
from cleanroom_master.publish import addresses
from cleanroom_recipes.model import Builder, Target

pytestmark = pytest.mark.timeout(5400)
TARGET = Target("debian-12", Builder.DEB)
# What a plain container is told: what stands on the consumer's page, copied to where the page says.
INSTALL = """
set -eu
sh -eu /told/key
install -D -m 644 /told/source "$(cat /told/place)"
apt-get -qq update
apt-get -qq -y --no-install-recommends install answering >/dev/null
cat /usr/share/answering/answer
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All services, healthy; nothing of them is left."""
    with engine() as environment:
        stack = Stack(tmp_path_factory.mktemp("compose"), environment)
        stack.prepare()
        stack.down()
        stack.build()
        try:
            stack.up()
            yield stack
        finally:
            stack.down()


@pytest.fixture(scope="module")
def released(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Releases that were published although services were killed while they were built, by the service."""
    tree = Repository.make(tmp_path_factory.mktemp("trees") / "answering")
    tags = {service: f"v1.{number}" for number, service in enumerate(("master", "worker", "postgresql"))}
    for service, tag in tags.items():
        files = deb("answering", tag.removeprefix("v"), "42")
        # Long enough for a kill.
        files["debian/rules"] = files["debian/rules"].replace(
            "build-indep binary-arch:", "build-indep binary-arch:\n\tsleep 15"
        )
        write_tree(tree.path, files)
        tree.commit()
        tree.tag(tag)
        stack.deliver("answering", tree.path)
        if service == "master":
            # What was tagged before it is watched is not built.
            stack.cleanroom("product", "add", "answering", "file:///srv/repositories/answering.git", "--existing")
        until(lambda: _builds(stack), 300, f"it is built, before {service} is killed", stack.told)
        stack.kill(service)
        # What was begun is given up, or goes on where only the database was away.
        stack.docker("kill", stack.container("publisher"))
        stack.docker("start", stack.container("publisher"))
        stack.recovered()
    return {service: _published(stack, tag) for service, tag in tags.items()}


def _published(stack: Stack, tag: str) -> Any:
    """A release once guests have installed it from nginx, too: that is the way through the worker."""
    words = ("release", "wait", "answering", tag, "--installed", "--timeout", "1500", "--format", "json")
    waited = stack.cleanroom(*words, timeout=1560, check=False)
    assert waited.status == 0, f"{waited}\n{stack.told()}"
    return waited.json


def _builds(stack: Stack) -> bool:
    return stack.sql("SELECT count(*) FROM cleanroom.step WHERE outcome IS NULL") != "0"


def test_only_what_makes_guests_is_root(stack: Stack) -> None:
    users = {name: stack.inside(name, "id", "--user").out.strip() for name in SERVICES}
    assert {name for name, user in users.items() if user == "0"} == {"worker"}
    for name in set(users) - {"worker"}:
        status = stack.inside(name, "grep", "-E", "^Cap(Prm|Eff|Bnd)", "/proc/self/status").out
        assert {line.split()[1] for line in status.splitlines()} == {"0" * 16}, name


def test_no_container_has_a_secret_that_is_not_its_own(stack: Stack) -> None:
    assert stack.inside("refs", "ls", "/run/secrets").out.split() == ["database-refs"]
    for name in ("refs", "master", "notifications", "web", "worker"):
        assert stack.inside(name, "ls", "/var/lib/cleanroom/publisher/gnupg", check=False).status != 0, name
    assert stack.inside("worker", "ls", "/run/secrets", check=False).out == ""


def test_a_stopped_process_is_unhealthy(stack: Stack) -> None:
    find = (
        "for p in /proc/[0-9]*; do grep -qz [c]leanroom_master.notifications $p/cmdline && kill -STOP ${p#/proc/}; done"
    )
    stack.inside("notifications", "sh", "-c", find, check=False)
    stuck = stack.inside("notifications", "cleanroom", "health", "notifications", "--format", "json", check=False)
    stack.inside("notifications", "sh", "-c", find.replace("-STOP", "-CONT"), check=False)
    assert (stuck.status, stuck.json[0]["state"]) == (1, "stuck")
    assert stack.inside("notifications", "cleanroom", "health", "notifications").status == 0


def test_a_release_is_published_although_services_are_killed(released: dict[str, Any]) -> None:
    for release in released.values():
        assert release["state"] == "published", release
        [build] = release["builds"]
        assert (build["outcome"], build["isolation"]) == ("passed", "container")
        assert {attempt["outcome"] for attempt in build["attempts"][:-1]} <= {"infrastructure"}, build
    # A worker that is killed takes an attempt with it, whosever it is: one that was given up may be built again then.
    assert sum(len(release["builds"][0]["attempts"]) for release in released.values()) > len(released)


def test_a_plain_container_installs_it_as_the_page_says(stack: Stack, released: Any, tmp_path: Path) -> None:
    page = requests.get(f"http://{stack.address('repository')}:8080/", timeout=30)
    told = consumer_page.read(page.text, "http://repository:8080", "testing", TARGET)
    (tmp_path / "key").write_text(told.key)
    (tmp_path / "source").write_text(told.source)
    (tmp_path / "place").write_text(told.place)
    command = [
        "run",
        "--rm",
        f"--network={PROJECT}_outside",
        f"--volume={tmp_path}:/told:ro",
        BASE,
        "sh",
        "-c",
        INSTALL,
    ]
    assert stack.docker(*command, timeout=600).out.strip().endswith("42")


# Of a yum repository, which this release has none of: what its addresses look like, beside what was published.
YUM = {
    "mirrorlist": "http://repository:8080/yum/debian-12/testing/states/1/\nhttp://repository:8080/yum/debian-12/testing/",
    "repodata/repomd.xml": "<repomd/>",
    "repodata/repomd.xml.asc": "signature",
    f"repodata/{'0' * 64}-primary.xml.gz": "packed",
    f"states/{'0' * 64}/repodata/repomd.xml": "<repomd/>",
    "pool/ab/tiny-1.0-1.x86_64.rpm": "package",
    "pool/ab/tiny-1.0-1.x86_64.rpm.intoto.jsonl": "{}",
}
COMPARED = (
    *("Content-Type", "Content-Length", "Content-Encoding", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified"),
    *("Cache-Control", "X-Content-Type-Options", "Content-Security-Policy"),
)
# Of what is not there only that is said, and of what the client has only what identifies it.
OF_STATUS = {
    # That parts are to be had, who got one knows.
    206: tuple(name for name in COMPARED if name != "Accept-Ranges"),
    304: ("ETag", "Cache-Control"),
    404: (),
    405: (),
}


def _answer(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[object, ...]:
    answer = requests.request(method, url, headers={"Accept-Encoding": "gzip", **(headers or {})}, timeout=30)
    said = {name: answer.headers.get(name) for name in OF_STATUS.get(answer.status_code, COMPARED)}
    return answer.status_code, said, answer.content if answer.status_code in (200, 206) else b""


@contextmanager
def _own_server(stack: Stack) -> Iterator[str]:
    """The repository server of the embedded mode, over the same volume."""
    shared = [f"--network={PROJECT}_outside", f"--volume={PROJECT}_repository:/var/lib/cleanroom/repository:ro"]
    told = ["--env=CLEANROOM_REPOSITORY_BIND=0.0.0.0", "--env=CLEANROOM_REPOSITORY_URL=http://repository:8080"]
    options = ["--rm", "--detach", "--tmpfs=/run/user/10001:uid=10001", *shared, *told]
    container = stack.docker("run", *options, f"{PROJECT}/control:local", "service", "run", "repository").out.strip()
    try:
        own = f"http://{stack.address_of(container)}:9480"
        until(lambda: _listens(own), 120, "our own server listens")
        yield own
    finally:
        stack.docker("kill", container)


def _listens(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_nginx_answers_as_our_own_server(stack: Stack, released: Any) -> None:
    """Every file of the tree, whole, conditionally and in part."""
    for place, content in YUM.items():
        file = f"/var/lib/cleanroom/repository/current/yum/debian-12/testing/{place}"
        write = 'mkdir -p "${0%/*}" && printf %s "$1" > "$0"'
        stack.inside("publisher", "sh", "-c", write, file, content)
    tree = stack.inside("repository", "sh", "-c", "cd /srv/repository/current/ && find -L . -type f").out.split()
    places = sorted(place.removeprefix("./") for place in tree)
    assert {"apt/dists/testing/InRelease", "index.html", "keys/cleanroom.asc"} <= set(places)
    nginx = f"http://{stack.address('repository')}:8080"
    with _own_server(stack) as own:
        for place in [*places, "", "apt", "apt/", "no/such/file", "generations", "current", ".alive"]:
            assert _answer(f"{nginx}/{place}") == _answer(f"{own}/{place}"), place
        for place in places:
            tag = str(requests.head(f"{own}/{place}", timeout=30).headers["ETag"])
            for headers in (
                {"If-None-Match": tag},
                {"If-None-Match": f'"other", W/{tag}'},
                {"If-None-Match": "*"},
                {"Range": "bytes=0-0"},
                {"Range": "bytes=0-0", "If-Range": '"other"'},
                {"Range": "bytes=0-0", "If-Range": tag},
            ):
                assert _answer(f"{nginx}/{place}", headers) == _answer(f"{own}/{place}", headers), (place, headers)
        for method in ("HEAD", "POST"):
            assert _answer(f"{nginx}/index.html", method=method) == _answer(f"{own}/index.html", method=method), method
    for place in places:
        assert requests.head(f"{nginx}/{place}", timeout=30).headers["Cache-Control"] == addresses.caching(place)


def test_guests_are_told_the_address_by_which_they_ask(stack: Stack, released: Any) -> None:
    mirrorlist = f"http://{stack.address('repository')}:9480/yum/debian-12/testing/mirrorlist"
    status, said, content = _answer(mirrorlist, {"Host": "10.231.0.1:9480"})
    assert (status, content) == (200, YUM["mirrorlist"].replace("repository:8080", "10.231.0.1:9480").encode())
    assert isinstance(said, dict)
    assert (said["Content-Type"], said["Cache-Control"]) == ("text/plain; charset=utf-8", "no-cache")
    assert said["ETag"] is None


def test_consumers_may_come_by_tls(stack: Stack, released: Any) -> None:
    port = stack.docker("port", stack.container("repository"), "8443").out.rpartition(":")[2].strip()
    certificate = str(stack.place / "tls/certificate.pem")
    url = f"https://localhost:{port}/apt/dists/testing/InRelease"
    assert requests.get(url, timeout=30, verify=certificate).headers["Cache-Control"] == "no-cache"
