"""Nights in real guests: an image and a dependency change under what is published, and what changed is found.

Two products pass and are published. Before each of the nights that follow an image is built anew and a library gets a
new version: first neither matters, then both break a test, then neither matters again. So a night tells of each failure
what changed since the night before, and a search over all nights comes to the same image and the same version.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from builds import write_tree
from git_repository import Repository
from handmade import deb
from live_site import LiveSite, installed, until
from surroundings import of_this_process

TIMEOUT = 1800.0
pytestmark = pytest.mark.timeout(5 * TIMEOUT)

IMAGE = "surrounding-12"
IMAGE_TARGET = f"{IMAGE}/deb"
CASE = "the surroundings"
CHECK = """if {holds}; then echo 'PASS: {case}'; else echo 'FAIL: {case}'; exit 1; fi
"""
PROVISION = """#!/bin/sh
set -eu
echo {number} > "$1/etc/surrounding"
"""
# The nights by what is planted in them.
BROKEN = (False, False, True, True)


@dataclass(frozen=True)
class Past:
    """All that happened: the digests of the image and the nights, in their order, and when it was over."""

    digests: list[str]
    nights: list[Any]
    over: str


@pytest.fixture(scope="module")
def site() -> Iterator[LiveSite]:
    """An installation of its own: whatever else were published would be tested too."""
    # What breaks a product that depends on it would not be published at all.
    settings = {"CLEANROOM_IMAGES_KEEP": "5", "CLEANROOM_MASTER_DEPENDENTS": "0"}
    with installed(of_this_process("acceptance-nights"), **settings) as site:
        site.run("image", "remove", IMAGE, "--force")
        started = site.run("up", "--detach", timeout=180)
        assert started.status == 0, started
        yield site
        site.run("down")
        site.run("image", "remove", IMAGE, "--force")


def build_image(site: LiveSite, number: int) -> str:
    """Describe the image so that it is another one, and have it built, tried and taken; returns its digest."""
    folder = site.site / "guest_images" / IMAGE
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.toml").write_text('extends = "debian-12"\nprovision = "provision"\n')
    program = PROVISION.format(number=number) + ('touch "$1/etc/broken"\n' if BROKEN[number] else "")
    (folder / "provision").write_text(program)
    (folder / "provision").chmod(0o755)
    answer = site.run("image", "refresh" if number else "build", IMAGE, timeout=TIMEOUT)
    assert answer.status == 0, answer
    return str(site.ask("image", "show", IMAGE)["digest"])


def publish_library(site: LiveSite, number: int, repository: Repository | None) -> Repository:
    """The next version of the library."""
    content = deb("library", f"1.{number}", "41" if BROKEN[number] else "42")
    if repository is None:
        repository = site.product("library", content)
    else:
        write_tree(repository.path, content)
        repository.commit()
    repository.tag(f"v1.{number}")
    site.published("library", f"v1.{number}", timeout=TIMEOUT)
    return repository


def product(site: LiveSite, name: str, holds: str, recipe: str = "", depends: str = "") -> None:
    """A product that tests its surroundings, published."""
    recipe = f'{recipe}\ntests = ["sh check.sh"]'
    content = {**deb(name, "1.0", "yes", recipe, depends=depends), "check.sh": CHECK.format(holds=holds, case=CASE)}
    site.product(name, content).tag("v1.0")
    site.published(name, "v1.0", timeout=TIMEOUT)


def night(site: LiveSite) -> Any:
    """Have all tested now, and return how that went."""
    site.ask("channel", "test", "testing")
    until(lambda: site.ask("channel", "history", "testing")[0]["state"] != "running", TIMEOUT, "the night is over")
    return site.ask("channel", "history", "testing")[0]


@pytest.fixture(scope="module")
def past(site: LiveSite) -> Past:
    digests, nights = [build_image(site, 0)], []
    library = publish_library(site, 0, None)
    product(site, "guarded", "[ ! -e /etc/broken ]", f'targets = ["{IMAGE_TARGET}"]')
    product(site, "user", "grep -qx 42 /usr/share/library/answer", depends="library")
    for number in range(len(BROKEN)):
        if number:
            digests.append(build_image(site, number))
            publish_library(site, number, library)
        nights.append(night(site))
    return Past(digests, nights, datetime.now(UTC).isoformat(timespec="seconds"))


def results(night: Any) -> dict[str, Any]:
    return {result["product"]: result for result in night["results"]}


def test_a_night_says_what_changed_around_what_fails(site: LiveSite, past: Past) -> None:
    assert [night["state"] for night in past.nights] == ["passed", "passed", "failed", "failed"]
    assert [night["failed"] for night in past.nights] == [0, 0, 2, 2]
    bad = results(past.nights[2])
    assert {name: one["outcome"] for name, one in bad.items()} == {
        "guarded": "failed",
        "library": "passed",
        "user": "failed",
    }
    guarded, user = bad["guarded"], bad["user"]
    assert (guarded["phase"], user["phase"]) == ("regress", "regress")
    assert guarded["changed"]["image"] == {"name": IMAGE, "before": past.digests[1], "now": past.digests[2]}
    assert guarded["changed"]["upgraded"] == []
    assert user["changed"]["image"] is None
    assert user["changed"]["upgraded"] == [{"name": "library", "before": "1.1", "now": "1.2"}]
    shown = site.run("channel", "history", "testing").out
    assert f"image {IMAGE} {past.digests[1][:12]} -> {past.digests[2][:12]}" in shown
    assert "library 1.1 -> 1.2" in shown
    # In the night after that it still is compared with the last good one.
    later = results(past.nights[3])
    assert later["guarded"]["changed"]["image"]["before"] == past.digests[1]
    assert later["user"]["changed"]["upgraded"] == [{"name": "library", "before": "1.1", "now": "1.3"}]
    # What is published is what it was: neither is the product's fault.
    assert {site.show(name, "v1.0")["state"] for name in ("guarded", "user")} == {"published"}


def bisect(site: LiveSite, name: str, axis: str, past: Past) -> Any:
    words = ("--good", "v1.0", "--bad", past.over, "--at", "v1.0", "--axis", axis, "--test", CASE)
    begun = time.monotonic()
    answer = site.run("bisect", name, *words, "--format", "json", timeout=2 * TIMEOUT)
    assert answer.status == 0, answer
    found = answer.json
    print(f"{axis}: {len(found['probes'])} probes of {found['candidates']}, {time.monotonic() - begun:.0f} s")
    assert "FAIL: the surroundings" in found["evidence"]["lines"]
    assert {probe["verdict"] for probe in found["probes"]} <= {"good", "bad", "skipped"}
    return found


def test_the_image_that_broke_it_is_found_among_former_ones(site: LiveSite, past: Past) -> None:
    # They are still there although no guest needs them.
    assert site.ask("image", "show", IMAGE)["former"] == past.digests[:-1]
    found = bisect(site, "guarded", "image", past)
    assert (found["state"], found["first_bad"]["name"]) == ("found", past.digests[2])


def test_the_version_that_broke_it_is_found_among_what_nights_had(site: LiveSite, past: Past) -> None:
    found = bisect(site, "user", "dependencies", past)
    assert found["state"] == "found"
    assert found["first_bad"]["subject"].endswith(": library 1.1 -> 1.2")
