"""What is published is brought to a remote: no client there is ever broken, and it goes on from where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from database_server import Server
from mirror_reader import missing, packages
from remote_server import RemoteServer, remote_server
from shop import Shop
from tiny_packages import make_deb, make_rpm

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import load
from cleanroom_db import deliveries
from cleanroom_db.roles import Role
from cleanroom_master import cli
from cleanroom_master.delivery import tree
from cleanroom_master.delivery.__main__ import push_if_needed
from cleanroom_master.delivery.push import AnotherPush, Pushed, _only_one, push
from cleanroom_master.delivery.remote import Denied, Remote


class Ended(BaseException):
    """The process that pushes is gone."""


class Road:
    """A shop, and the remote to which its goods are brought."""

    def __init__(self, shop: Shop, server: RemoteServer) -> None:
        self.shop, self.server = shop, server
        self.pauses: list[float] = []

    def publish(self, tag: str, *files: Path) -> None:
        for file in files:
            self.shop.passed(f"{tag}-{file.name}", file, kind=file.suffix[1:])
        assert self.shop.settle() == len(files)

    def push(self, **how: str) -> Pushed:
        remote = Remote(self.server.url, pause=self.pauses.append, **how)
        return push(self.shop.database, self.shop.home / "repository", remote)

    @property
    def places(self) -> list[str]:
        return [place for method, place in self.server.asked if method == "PUT"]


@pytest.fixture
def road(shop: Shop, tmp_path: Path) -> Iterator[Road]:
    with remote_server(tmp_path / "mirror") as server:
        yield Road(shop, server)


@pytest.fixture
def watched(road: Road) -> Callable[[], list[str]]:
    """What a client would have missed at any moment so far: it looks after each file."""
    found: list[str] = []
    road.server.seen = lambda place: found.extend(f"after {place}: {name}" for name in missing(road.server.root))
    return lambda: found


def test_a_client_of_the_remote_finds_all_that_is_named_at_any_moment(
    road: Road, tmp_path: Path, watched: Callable[[], list[str]]
) -> None:
    road.publish("v1", make_deb(tmp_path), make_rpm(tmp_path))
    first = road.push()
    number = road.shop.repository().current()
    assert (first.remote, first.generation, first.removed) == (road.server.url, number, 0)
    assert packages(road.server.root) == {"tiny_1.0_amd64.deb", "tiny-1.0-1.noarch.rpm"}
    road.publish("v2", make_deb(tmp_path, version="2.0"))
    # One leaves, and its file is removed once no generation needs it.
    road.push()
    assert packages(road.server.root) == {"tiny_1.0_amd64.deb", "tiny_2.0_amd64.deb", "tiny-1.0-1.noarch.rpm"}
    assert watched() == []
    assert len(road.places) > 20
    assert road.pauses == []


def test_only_what_changed_is_brought_and_what_is_gone_is_removed_at_the_very_end(
    road: Road, tmp_path: Path, watched: Callable[[], list[str]]
) -> None:
    road.publish("v1", make_deb(tmp_path))
    road.push()
    before = len(road.server.asked)
    assert road.push().files == 0
    assert len(road.server.asked) == before
    deliveries.brought(road.shop.database, road.server.url, [("apt/pool/old/x/old.deb", "1-1"), ("gone", "1-1")])
    (road.server.root / "apt/pool/old/x").mkdir(parents=True)
    (road.server.root / "apt/pool/old/x/old.deb").touch()
    road.publish("v2", make_deb(tmp_path, version="2.0"))
    pushed = road.push()
    # The listing of what was there before goes as well. What the remote had lost already is as good as removed.
    assert pushed.removed == 3
    assert not (road.server.root / "apt/pool/old/x/old.deb").exists()
    done = road.server.asked[before:]
    assert [method for method, _ in done] == ["PUT"] * pushed.files + ["DELETE"] * 2
    assert done[pushed.files - 1][1] == "generation.json"
    assert not [place for place in road.places[before:] if place.endswith("tiny_1.0_amd64.deb")]
    assert watched() == []


class Dying(Remote):
    """A remote whose user is ended after some files."""

    left = 7

    def put(self, place: str, path: Path) -> None:
        self.left -= 1
        if self.left < 0:
            raise Ended
        super().put(place, path)


def test_one_that_was_ended_goes_on_where_it_stopped(
    road: Road, tmp_path: Path, watched: Callable[[], list[str]]
) -> None:
    road.publish("v1", *(make_deb(tmp_path, f"tiny{number}") for number in range(3)))
    ends = 0
    while True:
        try:
            push(road.shop.database, road.shop.home / "repository", Dying(road.server.url))
        except Ended:
            ends += 1
            continue
        break
    assert ends >= 2
    assert len(road.places) > 7 * ends
    assert len(road.places) == len(set(road.places))
    assert watched() == []
    assert road.push().files == 0
    # Taken, but not noted any more before the end: it is brought again, and that is all.
    deliveries.removed(road.shop.database, road.server.url, road.places[-3:])
    assert road.push().files == 3
    assert watched() == []


def test_what_fails_on_the_way_is_tried_again_with_growing_pauses(road: Road, tmp_path: Path) -> None:
    road.publish("v1", make_deb(tmp_path))
    answers = {"index.html": [503, 500, 429]}
    road.server.fail = lambda _, place: answers[place].pop(0) if answers.get(place) else None
    road.push()
    assert road.pauses == [0.5, 1.0, 2.0]
    assert "index.html" in road.places


def test_a_remote_that_stays_away_is_told_and_nothing_is_lost(
    road: Road, tmp_path: Path, watched: Callable[[], list[str]]
) -> None:
    road.publish("v1", make_deb(tmp_path))
    road.server.fail = lambda _, place: 503 if place.endswith("/InRelease") else None
    with pytest.raises(InfrastructureError, match=r"bringing apt/dists/testing/InRelease: .* in 7 tries: status 503"):
        road.push()
    [one] = deliveries.all_of(road.shop.database)
    assert (one.generation, one.bringing) == (None, 1)
    assert "InRelease" in one.problem
    brought = len(road.places)
    road.server.fail = lambda method, place: None
    road.push()
    assert len(set(road.places)) == len(road.places) > brought
    [one] = deliveries.all_of(road.shop.database)
    assert (one.generation, one.bringing, one.problem) == (1, None, "")
    assert watched() == []


def test_directories_are_made_where_the_remote_wants_them(road: Road, tmp_path: Path) -> None:
    road.publish("v1", make_deb(tmp_path))
    road.server.has_directories = True
    road.push()
    assert ("MKCOL", "apt/dists/testing") in road.server.asked
    assert packages(road.server.root) == {"tiny_1.0_amd64.deb"}


def test_caches_behind_the_remote_are_told_what_they_may_keep(road: Road, tmp_path: Path) -> None:
    road.publish("v1", make_deb(tmp_path))
    road.push()
    headers = road.server.headers
    (deb,) = [place for place in headers if place.endswith(".deb")]
    assert "immutable" in headers[deb]["Cache-Control"]
    assert headers[deb]["Content-Type"] == "application/vnd.debian.binary-package"
    assert headers["apt/dists/testing/InRelease"]["Cache-Control"] == "no-cache"


def test_credentials_go_to_the_remote_and_nowhere_else(
    road: Road,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    server: Server,
    name: str,
) -> None:
    road.publish("v1", make_deb(tmp_path))
    road.server.credentials = "anna", "hunter2"
    with pytest.raises(Denied) as denied:
        road.push(user="anna", password="wrong-one")
    assert "wrong-one" not in str(denied.value) and "delivery.password" in str(denied.value)
    for name_, value in {
        "DATABASE_URL": server.url(Role.OWNER, name),
        "STATE": str(road.shop.home),
        "SITE": str(tmp_path),
        "DELIVERY_URL": road.server.url,
        "DELIVERY_USER": "anna",
        "DELIVERY_PASSWORD": "hunter2",
    }.items():
        monkeypatch.setenv(f"CLEANROOM_{name_}", value)
    assert cli.run(["repository", "push", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["remote"], answer["generation"]) == (road.server.url, 1)
    assert answer["files"] > 5
    assert cli.run(["repository", "show"]) == 0
    assert cli.run(["config", "show"]) == 0
    told = capsys.readouterr()
    assert f"{road.server.url} has generation 1" in told.out
    assert "hunter2" not in told.out + told.err
    assert cli.run(["repository", "push", "--all", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == answer["files"]


@pytest.mark.parametrize("url", ["ftp://x/", "packages.example.org", "https://", "https://x/?token=1"])
def test_a_remote_is_an_address(url: str) -> None:
    with pytest.raises(InputError, match="a remote is an address such as"):
        Remote(url)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match=r"delivery\.password") as refused:
        Remote("https://anna:hunter2@example.org/x")
    assert "hunter2" not in str(refused.value)


def test_what_several_links_lead_to_is_brought_once(road: Road, tmp_path: Path) -> None:
    road.publish("v1", make_deb(tmp_path))
    root = road.shop.home / "repository/current"
    (root / "apt/zzz").symlink_to("pool")
    (root / "apt/round").symlink_to("..")
    assert not [file.place for file in tree.files(root.resolve()) if "zzz" in file.place or "round" in file.place]
    [package] = road.shop.repository().read(1).packages
    [deb] = [file.place for file in tree.files(root.resolve()) if file.place.endswith(".deb")]
    assert deb == f"apt/{package.path}"


def test_two_pushes_do_not_meet(road: Road, tmp_path: Path) -> None:
    road.publish("v1", make_deb(tmp_path))
    with _only_one(road.shop.home / "repository"), pytest.raises(AnotherPush):
        road.push()
    assert road.push().generation == 1


def test_a_site_with_a_remote_brings_each_generation_by_itself(road: Road, tmp_path: Path) -> None:
    settings = load({"CLEANROOM_STATE": str(road.shop.home), "CLEANROOM_SITE": str(tmp_path)})
    remote = Remote(road.server.url)
    # Nothing is published yet.
    assert not push_if_needed(settings, road.shop.database, remote)
    road.publish("v1", make_deb(tmp_path))
    assert push_if_needed(settings, road.shop.database, remote)
    assert not push_if_needed(settings, road.shop.database, remote)
    road.publish("v2", make_deb(tmp_path, version="2.0"))
    assert push_if_needed(settings, road.shop.database, remote)
    assert packages(road.server.root) == {"tiny_1.0_amd64.deb", "tiny_2.0_amd64.deb"}
