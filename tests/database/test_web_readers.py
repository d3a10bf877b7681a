"""A closed site shows a reader of some products those, and of all others nothing, not even that they are there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import pytest
from database_server import add_product, begin
from fastapi import FastAPI
from people import Person, entries, join, settings_of
from reading import Document
from recorded import F, P, build, claimed, published
from starlette.testclient import TestClient
from test_web_live import PATIENCE, listening, told

from cleanroom_db import (
    accounts,
    dependencies,
    phases,
    readable,
    releases,
    requests,
    services,
    tokens,
    trials,
)
from cleanroom_db.connection import Database, DatabaseRefused
from cleanroom_db.roles import Role
from cleanroom_db.states import AccountRole, RequestKind, TrialPurpose
from cleanroom_master.web.application import create
from cleanroom_master.web.site import Site
from cleanroom_master.web.templating import NAVIGATION
from cleanroom_master.web.visitors import Visitor

API = "/api/v1"
OURS, THEIRS = "orchard", "quarry"
# What a reader of some products may read without a look at each row: it names none, or is found by what is looked at.
WHOLE = {"generation", "test_case", "product_dependency"}


@dataclass(frozen=True)
class Recorded:
    """What there is of a product; most are ids."""

    name: str
    release: int
    running: int
    step: int
    phase: int
    attempt: int
    request: int
    environment: str

    @property
    def addresses(self) -> list[str]:
        """Where something of it is shown, and nothing else."""
        test = quote(f"a test of {self.name}")
        return [
            *(f"/product/{self.name}{more}" for more in ("", "/feed.atom", "/badge.svg")),
            *(f"/release/{self.name}/{ref}" for ref in ("v1", "v2", "v3")),
            *(f"/tests/{self.name}", f"/tests/{self.name}?name={test}", f"/trends?product={self.name}"),
            *(f"/log/{self.step}{more}" for more in ("", "/download", "/live")),
            *(f"/environment/{self.environment}", f"/requests/{self.request}", f"/actions/hold/{self.running}"),
            *(f"{API}/products/{self.name}", f"{API}/products/{self.name}/release?ref=v1"),
            *(f"{API}/products/{self.name}/test?name={test}", f"{API}/attempts/{self.attempt}"),
            *(f"{API}/releases/{self.release}", f"{API}/releases/{self.release}/comparison"),
            *(f"{API}/phases/{self.phase}/tests", f"{API}/steps/{self.step}", f"{API}/steps/{self.step}/log"),
        ]


def fill(owner: Database, pages: Site, name: str) -> Recorded:
    """A product with some of everything, all of which has its name."""
    log = pages.logs.open(f"{name}-log")
    log.write(f"a line of {name}\n")
    sealed, environment = log.seal(), hashlib.sha256(name.encode()).hexdigest()
    published(owner, "v1", {f"a test of {name}": P}, product=name)
    failed = claimed(owner, "v2", product=name)
    held = build(owner, failed, {f"a test of {name}": F}, failing={"regress": f"{name} is broken"})
    going = claimed(owner, "v3", product=name)
    phases.start(owner, begin(owner, going), 0, "build")
    builds = [("debian-12/deb", ["build"])]
    trials.request(
        owner,
        trials.NewTrial(
            *(
                TrialPurpose.DEPENDENT,
                name,
                "v1",
                failed.commit,
                failed.kind,
                {"name": name},
                "testing",
                builds,
                "x",
                {},
            ),
            subject=going.id,
        ),
    )
    asked = requests.ask(
        owner, RequestKind.WITHDRAW, actor="root", subject=name, reason=f"{name} is bad", release_id=failed.id
    )
    with owner.transaction() as cursor:
        cursor.execute(
            "INSERT INTO cleanroom.package_state (digest, packages) VALUES (%(digest)s, %(packages)s)",
            digest=environment,
            packages={name: "1.0"},
        )
        phase = cursor.value(
            "UPDATE cleanroom.phase SET package_state = %(digest)s, image = 'debian-12', image_digest = repeat('d', 64)"
            ", reset_seconds = 0.1, isolation = 'container', reset_method = 'overlay'"
            " WHERE attempt_id = %(attempt)s AND name = 'regress' RETURNING id",
            digest=environment,
            attempt=held.attempt_id,
        )
        step = cursor.value(
            "UPDATE cleanroom.step SET log_sha256 = %(sha256)s, log_size = 1 WHERE phase_id = %(phase)s RETURNING id",
            sha256=sealed.sha256,
            phase=phase,
        )
        cursor.execute(
            "INSERT INTO cleanroom.channel_package (channel, target, format, name, version, architecture, file, sha256,"
            " built_sha256, size, release_id, added_in) SELECT there.channel, 'debian-12/deb', 'deb', %(name)s, '1',"
            " 'all', %(name)s || '.deb', %(digest)s, %(digest)s, 1, release_id, added_in"
            " FROM cleanroom.channel_release AS there JOIN cleanroom.release ON release.id = release_id"
            " WHERE product = %(name)s",
            name=name,
            digest=environment,
        )
        cursor.execute(
            "UPDATE cleanroom.generation SET reason = %(reason)s"
            " WHERE number = (SELECT max(number) FROM cleanroom.generation)",
            reason=f"{name} v1",
        )
    return Recorded(name, failed.id, going.id, step, phase, held.attempt_id, asked.id, environment)


@pytest.fixture
def recorded(owner: Database, pages: Site) -> dict[str, Recorded]:
    """Two products that need each other and wait for each other."""
    for name in (OURS, THEIRS):
        add_product(owner, name)
    found = {name: fill(owner, pages, name) for name in (OURS, THEIRS)}
    services.host_seen(owner, "alpha", ("container",), 2, 2048)
    with owner.transaction() as cursor:
        dependencies.declare(cursor, {OURS: [THEIRS], THEIRS: [OURS]})
        cursor.execute(
            "INSERT INTO cleanroom.release_wait SELECT one.id, other.id FROM cleanroom.release AS one"
            " JOIN cleanroom.release AS other ON one.ref = 'v3' AND other.ref = 'v3' AND one.product <> other.product"
        )
    return found


@pytest.fixture
def closed(pages: Site, tmp_path: Path) -> Iterator[FastAPI]:
    """The web status of a site that is not shown to everybody."""
    assert pages.access is not None
    settings = settings_of(tmp_path, CLEANROOM_WEB_ANONYMOUS="none")
    made = create(replace(pages, access=replace(pages.access, settings=settings)))
    with TestClient(made):
        yield made


def somebody(owner: Database, site: FastAPI, name: str, role: AccountRole, *of: str | None) -> Person:
    """Somebody who is signed in and has a role for some products."""
    join(owner, name)
    for product in of:
        accounts.grant(owner, name, role, product, actor="root")
    person = Person(site)
    assert person.sign_in(name).status_code == 303
    return person


def test_nothing_is_shown_of_what_may_not_be_read(
    closed: FastAPI, owner: Database, recorded: dict[str, Recorded]
) -> None:
    ours, theirs = recorded[OURS], recorded[THEIRS]
    all_of_it = somebody(owner, closed, "anna", AccountRole.READER, None)
    part = somebody(owner, closed, "bob", AccountRole.MANAGER, OURS)
    known = everything(all_of_it.web, ours, theirs)
    telling = [one for one in known if THEIRS in all_of_it.web.get(one).text]
    assert len(telling) > 40, telling
    for address in known:
        answer = part.web.get(address)
        assert answer.status_code in (200, 404), (address, answer.status_code)
        # What is not there is named as it was asked for.
        said = answer.text if THEIRS not in address else answer.text.replace(f"&#39;{THEIRS}&#39;", "")
        assert answer.status_code == 404 or THEIRS not in said, (address, said)
    for address in ours.addresses:
        assert part.web.get(address).status_code == 200, address
    for address in ("/", "/queue", "/products", "/hosts", "/repository", f"{API}/releases", f"{API}/running"):
        assert OURS in part.web.get(address).text or address in ("/hosts", "/repository"), address


def everything(web: TestClient, *of: Recorded) -> list[str]:
    """The addresses of all pages that lead from one to the next, and of what programs ask for."""
    found = [address for _, address in NAVIGATION]
    lists = ["products", "releases", "channels", "generations", "queue", "running", "hosts", "images", "targets"]
    found += [f"{API}/{one}" for one in lists] + [f"{API}/services", f"{API}/generations/2", f"{API}/generations/1"]
    found += [f"{API}/generations/2/packages", f"{API}/generations/2/difference?since=1"]
    found += [address for one in of for address in one.addresses if not address.endswith("/live")]
    for address in found:
        answer = web.get(address)
        if answer.headers["content-type"].startswith("text/html") and answer.status_code == 200:
            for link in Document(answer.text).links():
                there = urlsplit(urljoin(address, link))
                local = there.path + (f"?{there.query}" if there.query else "")
                if not there.netloc and local not in found and not local.startswith(("/static", "/sign", "/actions")):
                    found.append(local)
    return found


def test_what_may_not_be_read_is_not_there(closed: FastAPI, owner: Database, recorded: dict[str, Recorded]) -> None:
    theirs = recorded[THEIRS]
    part = somebody(owner, closed, "bob", AccountRole.ADMINISTRATOR, OURS)
    for address in theirs.addresses:
        answer = part.web.get(address)
        assert answer.status_code == 404, (address, answer.status_code)
        # It says what it says of a product that never was.
        if THEIRS in address:
            never = part.web.get(address.replace(THEIRS, "nobody"))
            assert answer.text.replace(THEIRS, "nobody") == never.text, address
    assert part.web.get("/metrics").status_code == 404
    assert part.web.get(f"/changes?release={theirs.running}").status_code == 404
    fields = part.fields("/account", "/sign-out")
    token = {"token": fields["token"], "name": "ci", "role": "reader", "days": "1"}
    made = part.send("/account/tokens", {**token, "product": THEIRS})
    assert (made.status_code, made.text.count(THEIRS)) == (400, made.text.replace("nobody", "").count(THEIRS))
    assert f"there is no product &#39;{THEIRS}&#39;" in made.text
    answer = part.send(f"/actions/hold/{theirs.running}", {"token": fields["token"], "reason": "why not"})
    assert answer.status_code == 404
    assert releases.get(owner, theirs.running).hold_reason is None
    [refused] = entries(owner, action="release hold")
    assert (refused.actor, refused.allowed, refused.subject) == ("bob", False, f"release {theirs.running}")


def test_a_token_reads_what_it_is_for(closed: FastAPI, owner: Database, recorded: dict[str, Recorded]) -> None:
    join(owner, "anna", AccountRole.MANAGER)
    later = datetime.now(UTC) + timedelta(days=1)
    for product, seen in ((OURS, {OURS}), (None, {OURS, THEIRS})):
        _, secret = tokens.add(
            *(owner, accounts.get(owner, "anna").id, "anna", f"for-{product or 'all'}"),
            role=AccountRole.READER, product=product, expires_at=later, actor="root",
        )  # fmt: skip
        authorization = {"Authorization": f"Bearer {secret}"}
        answer = TestClient(closed).get(f"{API}/releases", headers=authorization)
        assert {one["product"] for one in answer.json()} == seen
        assert TestClient(closed).get("/metrics", headers=authorization).status_code == (404 if product else 200)


def test_an_open_site_is_shown_to_everybody(pages: Site, owner: Database, recorded: dict[str, Recorded]) -> None:
    application = create(pages)
    with TestClient(application):
        part = somebody(owner, application, "bob", AccountRole.READER, OURS)
        assert part.web.get(f"/product/{THEIRS}").status_code == 200
        assert pages.access is not None
        assert pages.access.part_of(Visitor(None, None, "")) is None


def test_the_server_refuses_what_is_not_for_readers(
    owner: Database, connect: Callable[[Role], Database], recorded: dict[str, Recorded]
) -> None:
    nobody = connect(Role.READER)
    part = readable.of(nobody, {OURS, "never was"})
    with nobody.transaction() as cursor:
        # Nothing, where nobody said what.
        assert cursor.value("SELECT count(*) FROM cleanroom.release") == 0
    with part.transaction() as cursor:
        assert {row["product"] for row in cursor.rows("SELECT product FROM cleanroom.release")} == {OURS}
    with nobody.transaction() as cursor:
        assert cursor.value("SELECT count(*) FROM cleanroom.product") == 0
    for statement in (
        "SELECT * FROM cleanroom.account",
        "SELECT * FROM cleanroom.audit",
        "DELETE FROM cleanroom.release",
    ):
        with pytest.raises(DatabaseRefused), nobody.transaction() as cursor:
            cursor.execute(f"SET TRANSACTION READ WRITE; {statement}")
    with owner.transaction() as cursor:
        unguarded = cursor.rows(
            "SELECT relname FROM pg_class WHERE relnamespace = 'cleanroom'::regnamespace AND relkind IN ('r', 'v')"
            " AND NOT relrowsecurity AND has_table_privilege('cleanroom_reader', oid, 'SELECT')"
        )
    # Whoever grants more to it says why it needs no policy.
    assert {row["relname"] for row in unguarded} == WHOLE


def test_an_open_page_is_told_of_what_its_reader_may_read(
    owner: Database, connect: Callable[[Role], Database], recorded: dict[str, Recorded]
) -> None:
    part = readable.of(connect(Role.READER), {OURS})
    ours, theirs = recorded[OURS], recorded[THEIRS]

    async def run() -> None:
        async with listening(connect(Role.WEB).url) as news:
            events = news.follow(None, news.number(), part)
            assert await anext(events) == "retry: 1000\n\n"
            waiting = asyncio.create_task(told(events))
            before = news.number()
            await asyncio.to_thread(releases.hold, owner, theirs.running, "anna", "wait")
            async with asyncio.timeout(PATIENCE):
                while news.number() == before:
                    await asyncio.sleep(0.01)
            # It was looked at, and is not for this reader.
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await asyncio.to_thread(releases.hold, owner, ours.running, "anna", "wait")
            assert "event: change" in await waiting
            waiting = asyncio.create_task(told(events))
            await asyncio.to_thread(services.host_seen, owner, "beta", ("container",), 2, 2048)
            assert "event: change" in await waiting
            await events.aclose()

    asyncio.run(run())
