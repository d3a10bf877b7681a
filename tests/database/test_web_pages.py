"""The web status: products, tests, environments, repository, queue, hosts and trends."""

from __future__ import annotations

import re

import pytest
from database_server import add_product, begin, claim
from reading import read
from recorded import F, L, P, build, claimed, published
from starlette.testclient import TestClient

from cleanroom_db import overview, phases, products, services, workers
from cleanroom_db.connection import Database
from cleanroom_db.phases import Reset

EMPTY = {
    "/products": "Nothing is watched yet",
    "/queue": "Nothing is under way",
    "/repository": "Nothing is published yet",
    "/hosts": "No host has said anything yet",
    "/trends": "No release has ended yet",
}


@pytest.mark.parametrize("address", EMPTY)
def test_a_page_with_nothing_says_what_to_do(web: TestClient, address: str) -> None:
    page = read(web, address)
    assert EMPTY[address] in page.text
    assert [one.get("aria-current") for one in page.all("a") if one.get("href") == address].count("page") == 1


def test_products_are_listed_with_their_latest_release(web: TestClient, owner: Database) -> None:
    for name in ("alpha", "beta"):
        add_product(owner, name)
    published(owner, "v1", {"a": P}, product="beta")
    products.looked(owner, "alpha", "cannot be reached")
    page = read(web, "/products")
    assert "cannot be read" in page.text
    assert {"/product/alpha", "/product/beta", "/release/beta/v1"} <= set(page.links())
    assert "/product/alpha" not in read(web, "/products?name=bet").links()
    assert "No product is called like that" in read(web, "/products?name=nothing").text


def test_many_products_are_read_page_by_page(web: TestClient, owner: Database) -> None:
    with owner.transaction() as cursor:
        cursor.execute(
            "INSERT INTO cleanroom.product (name, url) SELECT 'p' || lpad(n::text, 3, '0'), 'https://example.org'"
            " FROM generate_series(1, 130) AS n"
        )
    first = read(web, "/products")
    assert sum(link.startswith("/product/") for link in first.links()) == overview.PRODUCTS
    further = next(link for link in first.links() if "after=" in link)
    assert sum(link.startswith("/product/") for link in read(web, further).links()) == 30


def test_a_product_says_what_is_published_and_hides_passwords(web: TestClient, owner: Database) -> None:
    products.add(owner, "hello", "https://me:secret@example.org/hello.git")
    published(owner, "v1", {"a": P})
    page = read(web, "/product/hello")
    assert "since generation 1" in page.text
    assert "https://example.org/hello.git" in page.text
    assert "secret" not in page.text
    read(web, "/product/nothing", 404)


def test_a_test_has_its_history(web: TestClient, owner: Database) -> None:
    add_product(owner)
    published(owner, "v1", {"adds": P, "<i>": P})
    build(owner, claimed(owner, "v2"), {"adds": F, "<i>": L}, failing={"regress": "1 failed"})
    build(owner, claimed(owner, "v3"), {"adds": F, "<i>": P}, failing={"regress": "1 failed"})
    listed = read(web, "/tests/hello")
    assert {"?name=adds", "?name=%3Ci%3E"} <= set(listed.links())
    page = read(web, "/tests/hello?name=adds")
    assert "Passed in 33 % of 3 runs" in page.text
    assert "failing since hello v2" in page.text
    assert [link for link in page.links() if link.startswith("/release/")][1:] == [
        *("/release/hello/v3", "/release/hello/v2", "/release/hello/v1")
    ]
    assert "flaky in 33 %" in read(web, "/tests/hello?name=%3Ci%3E").text
    read(web, "/tests/hello?name=nothing", 404)
    read(web, "/tests/nothing", 404)


def test_generations_are_compared(web: TestClient, owner: Database) -> None:
    add_product(owner)
    published(owner, "v1", {"a": P})
    published(owner, "v2", {"a": P})
    page = read(web, "/repository")
    assert "current" in page.text
    assert "/repository/diff?first=1&second=2" in page.links()
    assert "/release/hello/v2" in read(web, "/repository/diff?first=1&second=2").links()
    assert "Went : 1 releases" in read(web, "/repository/diff?first=2&second=1").text.replace("Went:", "Went :")
    read(web, "/repository/diff?first=1&second=9", 404)
    read(web, "/repository/diff?first=1", 400)


def test_the_queue_says_what_waits(web: TestClient, owner: Database) -> None:
    add_product(owner)
    claim(owner, "v1")
    begin(owner, claim(owner, "v2"))
    page = read(web, "/queue")
    assert "2 under way" in page.text
    assert "a worker" in page.text
    assert {"/release/hello/v1", "/release/hello/v2"} <= set(page.links())


def test_the_queue_guesses_when_a_release_is_built(web: TestClient, owner: Database) -> None:
    add_product(owner)
    published(owner, "v1", {"a": P})
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.attempt SET started_at = finished_at - interval '200 s'")
    claimed(owner, "v2")
    running = begin(owner, claimed(owner, "v3", "debian-12/deb", "debian-13/deb"))
    assert "-" in [one.strip() for one in read(web, "/queue").parts]  # its second target was never built
    with owner.transaction() as cursor:
        cursor.execute(
            "UPDATE cleanroom.attempt SET started_at = now() - interval '80 s' WHERE id = %(id)s", id=running.attempt_id
        )
    # One at a time: the other begins when that one has ended, after 120 s, and takes 200.
    assert re.search(r"5 min (20|1\d) s", read(web, "/queue").text)


def test_images_say_which_packages_changed(web: TestClient, owner: Database) -> None:
    add_product(owner)
    held = begin(owner, claim(owner, "v1"))
    for number, (digest, packages) in enumerate(
        (("a" * 64, {"gcc": "12.2", "old": "1"}), ("b" * 64, {"gcc": "12.3", "x": "1"}), ("b" * 64, {"gcc": "12.3"}))
    ):
        phase = phases.start(owner, held, number, f"phase-{number}")
        phases.reset(owner, held, phase, Reset("debian-12", digest, "container", "mirror", "overlay", 0.02))
        phases.set_packages(owner, held, phase, packages)
    [link] = [one for one in read(web, "/hosts").links() if one.startswith("/image/")]
    assert link == f"/image/debian-12?before={'a' * 64}&now={'b' * 64}"
    page = read(web, link)
    # What only one of its phases had is not the image's.
    assert "2 packages differ" in page.text
    for told in ("gcc", "12.2", "12.3", "old"):
        assert told in page.text, told
    read(web, f"/image/debian-12?before={'c' * 64}&now={'b' * 64}", 404)


def test_hosts_say_how_long_a_reset_takes(web: TestClient, owner: Database) -> None:
    add_product(owner)
    services.host_seen(owner, "host-1", ("container", "emulated"), 4, 8192)
    held = begin(owner, claim(owner, "v1"))
    for number, seconds in enumerate((0.02, 0.03, 2.0)):
        phase = phases.start(owner, held, number, f"phase-{number}")
        phases.reset(owner, held, phase, Reset("debian-12", "d" * 64, "container", "mirror", "overlay", seconds))
    page = read(web, "/hosts")
    for told in ("host-1", "4 processors", "container, overlay", "median 0.03 s", "2.0 s", "debian-12/deb"):
        assert told in page.text, told
    assert len(page.all("rect")) == 3


def test_a_host_whose_worker_is_too_old_says_so(web: TestClient, owner: Database) -> None:
    services.host_seen(owner, "host-1", ("container",), 4, 8192)
    workers.attached(owner, "host-1", 1, "bring <b>its host</b> up to date")
    assert "Gets nothing to do: bring <b>its host</b> up to date." in read(web, "/hosts").text


def test_trends_have_a_plot_and_its_numbers(web: TestClient, owner: Database) -> None:
    for name in ("hello", "other"):
        add_product(owner, name)
        published(owner, "v1", {"a": P, "b": P}, product=name)
    build(owner, claimed(owner, "v2"), {"a": F, "b": P}, failing={"regress": "1 failed"})
    page = read(web, "/trends?product=hello")
    assert "The latest 2 releases" in page.text
    assert "/release/other/v1" not in page.links()
    assert "75.0 %" in page.text  # the median of 100 % and 50 %
    assert len(page.all("svg")) == 3
    assert "The latest 3 releases" in read(web, "/trends").text
    read(web, "/trends?product=nothing", 404)


def test_environments_are_listed_and_compared(web: TestClient, owner: Database) -> None:
    add_product(owner)
    held = begin(owner, claim(owner, "v1"))
    digests = []
    for number, packages in enumerate(({"gcc": "12.2", "old": "1"}, {"gcc": "12.3", "new <1>": "1"})):
        phase = phases.start(owner, held, number, f"phase-{number}")
        phases.set_packages(owner, held, phase, packages)
    with owner.transaction() as cursor:
        digests = [row["package_state"] for row in cursor.rows("SELECT package_state FROM cleanroom.phase ORDER BY id")]
    first, second = digests
    page = read(web, f"/environment/{second}")
    assert "2 packages" in page.text
    assert "new <1>" in page.text
    assert "/release/hello/v1" in page.links()
    assert "3 packages differ" in read(web, f"/environment/{second}?since={first}").text
    assert f"/environment/{second}" in read(web, "/release/hello/v1").links()
    read(web, f"/environment/{'0' * 64}", 404)
    read(web, "/environment/nothing", 404)
