"""What others show of us: feeds, badges, and what Prometheus asks for."""

from __future__ import annotations

from xml.etree import ElementTree

from database_server import add_product, begin
from prometheus_client.parser import text_string_to_metric_families
from recorded import F, P, build, claimed, published
from starlette.testclient import TestClient

from cleanroom_db import attempts, phases, services
from cleanroom_db.connection import Database
from cleanroom_master.web.application import create
from cleanroom_master.web.site import Site
from cleanroom_recipes.model import Outcome

ATOM = "{http://www.w3.org/2005/Atom}"
SVG = "{http://www.w3.org/2000/svg}"
BOUNDS = ("1", "2.5", "+Inf")
HOSTILE = "v1<script>alert(1)</script>&\u202e😀"


def hostile(owner: Database) -> None:
    """A release whose version is no good name."""
    published(owner, "v1", {"a": P})
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.release SET version = %(version)s", version=HOSTILE)


def test_a_feed_has_an_entry_for_each_state(web: TestClient, owner: Database) -> None:
    add_product(owner)
    hostile(owner)
    answer = web.get("/product/hello/feed.atom")
    assert answer.headers["content-type"] == "application/atom+xml"
    feed = ElementTree.fromstring(answer.content)
    entries = feed.findall(f"{ATOM}entry")
    states = [entry.find(f"{ATOM}category").get("term") for entry in entries]
    assert states == ["published", "passed", "building", "waiting"]
    ids = [entry.find(f"{ATOM}id").text for entry in entries]
    assert len(set(ids)) == 4
    assert entries[0].find(f"{ATOM}title").text == "hello v1<script>alert(1)</script>&\\u202e😀 is published"
    assert entries[0].find(f"{ATOM}link").get("href").endswith("/release/hello/v1")
    assert feed.find(f"{ATOM}updated").text == entries[0].find(f"{ATOM}updated").text
    assert web.get("/product/hello/feed.atom", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert web.get("/product/none/feed.atom").status_code == 404


def test_a_badge_says_how_a_product_stands(web: TestClient, owner: Database) -> None:
    add_product(owner)

    def shown(query: str = "") -> str:
        answer = web.get(f"/product/hello/badge.svg{query}")
        assert answer.headers["content-type"] == "image/svg+xml"
        assert answer.headers["cache-control"] == "public, max-age=60"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        return str(ElementTree.fromstring(answer.content).find(f"{SVG}title").text)

    assert shown() == "hello: none"
    hostile(owner)
    assert shown() == "hello: v1<script>alert(1)</script>&\\u202e😀 published"
    build(owner, claimed(owner, "v2"), {"a": F}, failing={"regress": "failed"})
    assert shown() == "hello: v2 failed"
    assert shown("?channel=testing").startswith("hello testing: v1<script>")
    assert shown("?channel=%3Cscript%3E") == "hello <script>: none"
    assert "<script>" not in web.get("/product/hello/badge.svg?channel=testing").text


def test_measures_are_what_the_rows_say(web: TestClient, owner: Database) -> None:
    add_product(owner)
    published(owner, "v1", {"a": P})
    release = claimed(owner, "v2")
    held = begin(owner, release)
    phases.start(owner, held, 0, "build")
    attempts.finish(owner, held.attempt_id, held.owner, Outcome.INFRASTRUCTURE, "lost", attempts.RetryPolicy())
    services.host_seen(owner, 'al"pha\n', ("container",), 2, 2048, services.Guests(places=4, ready=2, running=1))
    services.heartbeat(owner, "web", "running", 1)
    answer = web.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["cleanroom_database_up",] == 1
    assert found["cleanroom_attempts_total", "passed"] == 1
    assert found["cleanroom_attempts_total", "infrastructure"] == 1
    assert found["cleanroom_queue_length",] == 1
    assert found["cleanroom_publications_total", "testing"] == 1
    assert found["cleanroom_releases", "building"] == 1
    assert found["cleanroom_host_processors", 'al"pha\n'] == 2
    guests = {word: found["cleanroom_guests", *sorted(('al"pha\n', word))] for word in ("free", "ready", "running")}
    assert guests == {"free": 3, "ready": 2, "running": 1}
    assert found["cleanroom_service_silent_seconds", "web"] >= 0
    # Four phases took two seconds each: over one, within two and a half.
    buckets = {bound: found["cleanroom_phase_duration_seconds_bucket", *sorted((bound, "regress"))] for bound in BOUNDS}
    assert buckets == {"1": 0, "2.5": 1, "+Inf": 1}
    assert found["cleanroom_phase_duration_seconds_sum", "regress"] == 2.0


def test_a_bound_is_within(web: TestClient, owner: Database) -> None:
    add_product(owner)
    published(owner, "v1", {"a": P})
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.phase SET seconds = 1.0")
    assert 'cleanroom_phase_duration_seconds_bucket{le="1",phase="build"} 1.0' in web.get("/metrics").text


def test_measures_say_that_the_database_is_away(pages: Site) -> None:
    away = Database(pages.database.url.replace("host=", "host=/nowhere&was="), wait=0.1)
    site = Site(away, pages.logs, pages.artifacts, "http://w", "http://r", "http://b")
    with TestClient(create(site)) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200
    assert "cleanroom_database_up 0.0" in answer.text
