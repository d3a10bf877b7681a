"""The web status: releases by target, one release, and what is shown when something is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from database_server import DIGEST, Server, add_product, begin, claim
from reading import read
from recorded import F, P, build, claimed, published
from starlette.testclient import TestClient

from cleanroom_db import overview, phases
from cleanroom_db.connection import Database
from cleanroom_db.overview import Filter
from cleanroom_db.phases import NewArtifact, Reset, StepResult
from cleanroom_db.view import release_view
from cleanroom_master import cli
from cleanroom_master.web.application import create
from cleanroom_master.web.site import Site

TWO = ("debian-12/deb", "debian-13/deb")


def test_a_fresh_installation_guides_to_the_first_product(web: TestClient, owner: Database) -> None:
    page = read(web, "/")
    assert "Nothing is watched yet" in page.text
    assert "cleanroom product add mine" in page.text
    add_product(owner)
    page = read(web, "/")
    assert "Nothing is watched yet" not in page.text
    assert "cleanroom ref record PRODUCT TAG" in page.text


def test_releases_are_shown_by_target(web: TestClient, owner: Database) -> None:
    add_product(owner)
    published(owner, "v1", {"a": P}, *TWO)
    release = claimed(owner, "v2", *TWO)
    build(owner, release, {"a": P})
    page = read(web, "/")
    assert [one for one in page.links() if one.startswith("/release/")] == ["/release/hello/v2", "/release/hello/v1"]
    states = [one.get("class") for one in page.all("span") if (one.get("class") or "").startswith("state ")]
    # v2 builds, passed on one target, and waits on the other; v1 is published, and passed on both.
    assert states == ["state busy", "state good", "state calm", "state good", "state good", "state good"]
    assert "published" in page.text
    assert "waiting" in page.text


def test_releases_are_chosen_by_product_channel_and_state(web: TestClient, owner: Database) -> None:
    for product in ("hello", "other"):
        add_product(owner, product)
        published(owner, "v1", {"a": P}, product=product)
    build(owner, claimed(owner, "v2", channel="snapshots"), {"a": F}, failing={"regress": "1 of 1 failed"})

    def shown(query: str) -> list[str]:
        return [one for one in read(web, f"/?{query}").links() if one.startswith("/release/")]

    assert shown("product=oth") == ["/release/other/v1"]
    assert shown("channel=snapshots") == ["/release/hello/v2"]
    assert shown("state=published&product=hello") == ["/release/hello/v1"]
    assert shown("product=&channel=&state=failed") == ["/release/hello/v2"]
    assert "No release is like that" in read(web, "/?product=nothing").text
    assert "must be one of waiting, building" in read(web, "/?state=great", 400).text
    assert read(web, "/?before=much", 400).all("h1")


def test_older_releases_follow(owner: Database) -> None:
    add_product(owner)
    for number in range(5):
        claim(owner, f"v{number}")
    first = overview.matrix(owner, Filter(), limit=2)
    second = overview.matrix(owner, Filter(before=first.next), limit=2)
    last = overview.matrix(owner, Filter(before=second.next), limit=2)
    assert [[one.ref for one in page.releases] for page in (first, second, last)] == [
        ["v4", "v3"],
        ["v2", "v1"],
        ["v0"],
    ]
    assert last.next is None


def test_targets_without_a_column_are_counted(web: TestClient, owner: Database) -> None:
    add_product(owner)
    targets = [f"image-{number}/deb" for number in range(40)]
    build(owner, claimed(owner, "v1", *targets))
    matrix = overview.matrix(owner, Filter(), columns=3)
    [release] = matrix.releases
    assert len(matrix.targets) == 3
    assert sum(matrix.further[release.id].values()) == 37
    page = read(web, "/")
    assert len(page.all("th")) == overview.COLUMNS + 6
    assert "34 not ended" in page.text


def test_what_runs_now_is_estimated_by_its_history(web: TestClient, owner: Database) -> None:
    add_product(owner)
    for number in range(3):
        published(owner, f"v{number}", {"a": P})
    release = claimed(owner, "v9")
    held = begin(owner, release)
    phase = phases.start(owner, held, 0, "build")
    phases.start_step(owner, held, phase, 0, "compile")
    [running] = overview.running(owner)
    assert (running.product, running.ref, running.phase, running.step) == ("hello", "v9", "build", "compile")
    assert running.usual_seconds == 2.0
    page = read(web, "/")
    assert "Running now" in page.text
    assert "compile" in page.text
    assert "usually 2.0 s" in page.text
    [progress] = page.all("progress")
    assert progress["max"] == "2.0"
    # Whoever looks for a product sees what runs of it.
    assert len(read(web, "/?product=hell").all("progress")) == 1
    assert read(web, "/?product=other").all("progress") == []


def test_a_phase_without_history_has_no_estimate(web: TestClient, owner: Database) -> None:
    add_product(owner)
    held = begin(owner, claimed(owner, "v1"))
    phases.start(owner, held, 0, "build")
    page = read(web, "/")
    assert "getting a clean guest" in page.text
    assert "not known how long it takes" in page.text


def test_a_release_says_the_same_as_the_command_line(
    web: TestClient, owner: Database, site: None, capsys: pytest.CaptureFixture[str]
) -> None:
    add_product(owner)
    published(owner, "v1", {"a": P, "b": P}, *TWO)
    release = claimed(owner, "v2", *TWO, gates=("builds", "no-regression"))
    build(owner, release, {"a": F, "b": P}, failing={"regress": "1 of 2 failed"})
    build(owner, release, {"a": P, "b": P})
    view = release_view(owner, "hello", "v2")
    page = read(web, "/release/hello/v2")
    assert view["why"] in page.text
    assert view["next"] in page.text
    for gate in view["gates"]:
        assert gate["why"] in page.text
    assert "regress tests a" in page.text
    assert page.text.index("1 regressed") < page.text.index("the same")
    assert cli.run(["release", "show", "hello", "v2"]) == 0
    told = capsys.readouterr().out
    assert view["why"] in told
    assert view["next"] in told


def test_a_release_shows_steps_artifacts_and_environment(web: TestClient, owner: Database) -> None:
    add_product(owner)
    release = claimed(owner, "v1")
    held = begin(owner, release)
    phase = phases.start(owner, held, 0, "build")
    phases.reset(owner, held, phase, Reset("debian-12", "d" * 64, "container", "mirror", "overlay", 0.25))
    step = phases.start_step(owner, held, phase, 0, "compile")
    phases.finish_step(owner, held, step, StepResult(P, 0, 63.0))
    phases.add_artifacts(
        owner, held, "build", [NewArtifact("hello_1_all.deb", DIGEST, 4096, "deb", "hello", "1", "all")]
    )
    page = read(web, "/release/hello/v1")
    for told in ("compile", "1 min 3 s", "hello_1_all.deb", DIGEST, "4.0 KiB", "d" * 12, "container", "overlay"):
        assert told in page.text, told
    # The phase that runs has a bar, and those ahead are named.
    assert page.all("rect")
    for name in ("install", "upgrade", "regress"):
        assert name in page.text


def test_a_published_package_leads_to_its_provenance(web: TestClient, owner: Database) -> None:
    add_product(owner)
    release = published(owner, "v1", {"a": P})
    assert "Provenance" not in read(web, "/release/hello/v1").text
    with owner.transaction() as cursor:
        cursor.execute(
            "INSERT INTO cleanroom.channel_package"
            " (channel, target, format, name, version, architecture, file, sha256, built_sha256, size, release_id,"
            " added_in) VALUES ('testing', 'debian-12/deb', 'deb', 'hello', '1', 'all', 'hello_1_all.deb',"
            " %(sha256)s, %(sha256)s, 1, %(release)s, 1)",
            sha256=DIGEST,
            release=release.id,
        )
        cursor.execute(
            "INSERT INTO cleanroom.provenance (sha256, attempt_id, statement_sha256, bill_sha256, signed_by)"
            " SELECT %(sha256)s, max(id), %(sha256)s, %(sha256)s, '{F}' FROM cleanroom.attempt",
            sha256=DIGEST,
        )
    links = read(web, "/release/hello/v1").links()
    assert [one for one in links if one.startswith("http://repository.example/apt/pool/") and one.endswith(".cdx.json")]
    assert [one for one in links if one.endswith("hello_1_all.deb.intoto.jsonl")]


def test_of_many_targets_the_failed_ones_are_shown(web: TestClient, owner: Database) -> None:
    add_product(owner)
    targets = [f"image-{number:02}/deb" for number in range(12)]
    release = claimed(owner, "v1", *targets)
    for number in range(12):
        build(owner, release, failing={"build": "no compiler"} if number == 10 else None)
    page = read(web, "/release/hello/v1")
    assert page.text.index("image-10/deb") < page.text.index("image-00/deb")
    assert "4 further targets" in page.text
    other = next(link for link in page.links() if link.startswith("?target="))
    assert "11 further targets" in read(web, f"/release/hello/v1{other}").text


def test_a_release_with_thousands_of_targets_is_a_page_of_bounded_size(web: TestClient, owner: Database) -> None:
    add_product(owner)
    release = claim(owner, "v1")
    with owner.transaction() as cursor:
        cursor.execute(
            "WITH made AS (INSERT INTO cleanroom.build (release_id, target, phases)"
            " SELECT %(release)s, format('image-%%s/deb', n), '{build}'"
            " FROM generate_series(1, 5000) AS n RETURNING id)"
            " INSERT INTO cleanroom.attempt (build_id, number, series_start) SELECT id, 1, 1 FROM made",
            release=release.id,
        )
        cursor.execute(
            "INSERT INTO cleanroom.gate_result (release_id, gate, target, state, why)"
            " SELECT release_id, 'builds', target, 'holds', target FROM cleanroom.build"
        )
    assert "4993 further targets" in read(web, "/release/hello/v1").text
    for address in ("/release/hello/v1", "/", "/hosts"):
        assert len(web.get(address).content) < 100_000


def test_a_hundred_thousand_tests_that_failed_make_no_long_page(web: TestClient, owner: Database) -> None:
    add_product(owner)
    release = claimed(owner, "v1")
    held = build(owner, release, {"adds": F}, failing={"regress": "100001 tests failed"})
    with owner.transaction() as cursor:
        phase = cursor.value(
            "UPDATE cleanroom.phase SET tests_failed = 100001 WHERE attempt_id = %(attempt)s AND name = 'regress'"
            " RETURNING id",
            attempt=held.attempt_id,
        )
        cursor.execute(
            "INSERT INTO cleanroom.test_case (phase_id, step, name, outcome, message)"
            " SELECT %(phase)s, 'tests', format('case %%s %%s', n, repeat('<i>', 40)), 'failed', repeat('&', 2000)"
            " FROM generate_series(1, 100000) AS n",
            phase=phase,
        )
        step = cursor.value("SELECT id FROM cleanroom.step WHERE phase_id = %(phase)s", phase=phase)
    assert "100001 failed" in read(web, "/release/hello/v1").text
    for address in ("/release/hello/v1", "/tests/hello", "/tests/hello?name=adds", f"/log/{step}"):
        assert len(web.get(address).content) < 100_000, address
    answer = web.get(f"/api/v1/phases/{phase}/tests")
    assert len(answer.json()) == 200
    assert 'rel="next"' in answer.headers["Link"]


def test_what_is_published_says_since_when_and_where(web: TestClient, owner: Database) -> None:
    add_product(owner)
    published(owner, "v1", {"a": P})
    page = read(web, "/release/hello/v1")
    assert "testing, generation 1" in page.text
    assert "Consumers of testing get it with their next update" in page.text


@pytest.mark.parametrize(
    "address",
    [
        "/nothing",
        "/release/hello/v9",
        "/release/none/v1",
        "/release/hello/",
        "/release/%00/%ff",
        "/release/a/../../etc",
    ],
)
def test_what_is_not_there_is_said_in_our_words(web: TestClient, owner: Database, address: str) -> None:
    add_product(owner)
    page = read(web, address, 404)
    assert "All releases" in page.text
    assert "Traceback" not in page.text


HOSTILE = 'v1"><script>alert(1)</script>\u202eevil\u2066\u0085{{ 7*7 }}'


def test_hostile_names_are_shown_and_do_nothing(web: TestClient, owner: Database) -> None:
    add_product(owner)
    release = claimed(owner, "v1", gates=("builds", "approval"))
    build(owner, release, {HOSTILE: F, "Grüße 👩‍💻": F}, failing={"regress": HOSTILE})
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.release SET ref = %(ref)s, version = %(ref)s", ref=HOSTILE)
    for address in ("/", next(one for one in read(web, "/").links() if one.startswith("/release/"))):
        answer = web.get(address)
        page = read(web, address)
        assert "<script>alert" not in answer.text
        assert "\u202e" not in answer.text
        assert "\u2066" not in answer.text
        assert "\u0085" not in answer.text
        assert "\\u202eevil" in page.text
        assert "{{ 7*7 }}" in page.text
    assert "Grüße 👩‍💻" in page.text


def test_a_database_that_is_away_is_said_and_comes_back(
    pages: Site, server: Server, name: str, owner: Database
) -> None:
    pages = replace(pages, database=Database(pages.database.url, wait=0.1))
    add_product(owner)
    claim(owner, "v1")
    with TestClient(create(pages)) as web:
        assert read(web, "/release/hello/v1")
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        page = read(web, "/release/hello/v1", 503)
        assert "The database is away" in page.text
        answer = web.get("/")
        assert answer.headers["Retry-After"] == answer.headers["Refresh"] == "5"
        assert "postgresql://" not in answer.text
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert read(web, "/release/hello/v1")


def test_every_answer_carries_the_policy(web: TestClient) -> None:
    for address in ("/", "/nothing", "/static/style.css", "/static/nothing"):
        headers = web.get(address).headers
        assert "unsafe-inline" not in headers["Content-Security-Policy"]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_mistake_of_ours_is_a_page_too(pages: Site) -> None:
    application = create(pages)

    @application.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError("a secret")

    with TestClient(application, raise_server_exceptions=False) as web:
        page = read(web, "/broken", 500)
        assert "This is a mistake in Cleanroom" in page.text
        assert "secret" not in page.text
        assert web.get("/broken").headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_a_page_that_did_not_change_is_not_sent_again(web: TestClient, owner: Database) -> None:
    add_product(owner)
    published(owner, "v1", {"a": P})
    first = web.get("/release/hello/v1")
    # A live page also says with which news it was made, which is not what it says.
    claim(owner, "v2")
    again = web.get("/release/hello/v1", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    releases_page = web.get("/")
    assert "immutable" in web.get(read(web, "/").all("link")[0]["href"] or "").headers["Cache-Control"]
    assert releases_page.headers["Cache-Control"] == "no-cache"


def test_the_web_only_reads(pages: Site) -> None:
    with pytest.raises(Exception, match=r"read-only|permission denied"), pages.database.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.product SET url = 'x'")
