"""Every page in a real browser: whole, readable by everybody, and live."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from browsing import Reader, Served, reader
from database_server import DIGEST, add_product, begin
from playwright.sync_api import Browser, expect
from recorded import F, L, P, build, claimed, published

from cleanroom_db import phases, services
from cleanroom_db.attempts import Lease
from cleanroom_db.connection import Database
from cleanroom_db.phases import NewArtifact, Reset, StepResult
from cleanroom_master.logs import log_name

TWO = ("debian-12/deb", "debian-13/deb")
HOSTILE = 'parses "<b>"\u202e & more'
_tags = (f"v9.{number}" for number in itertools.count())

PAGES = {
    "releases": "/",
    "no release like that": "/?product=nothing",
    "a release that failed": "/release/hello/v1.1",
    "a release that is published": "/release/hello/v1.0",
    "a log": "/log/{log}?find=error",
    "products": "/products",
    "a product": "/product/hello",
    "tests": "/tests/hello",
    "a test": "/tests/hello?name=adds",
    "queue": "/queue",
    "repository": "/repository",
    "generations compared": "/repository/diff?first=1&second=2",
    "hosts and targets": "/hosts",
    "an image": f"/image/debian-12?before={'d' * 64}&now={'e' * 64}",
    "an environment": "/environment/{environment}",
    "trends": "/trends",
    "what is not there": "/nothing",
}
# These have all that the style sheet has, so that other colours are tried on them alone.
STYLES = ("releases", "a release that failed", "a log", "a test", "trends")
_OUT_OF_SIGHT = """[...document.querySelectorAll(".flow, .phases")].filter(table => table.offsetWidth > 0)
    .filter(table => table.parentElement.scrollWidth > table.parentElement.clientWidth)
    .map(table => table.parentElement.ariaLabel)"""
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def log(served: Served) -> int:
    """A record in which something of everything happened; the step with a log."""
    return fill(served)


@pytest.fixture(scope="module")
def environment(served: Served, log: int) -> str:
    """What was installed at the end of a phase."""
    with served.owner.transaction() as cursor:
        return str(cursor.value("SELECT package_state FROM cleanroom.phase WHERE package_state IS NOT NULL LIMIT 1"))


def fill(served: Served) -> int:
    owner = served.owner
    add_product(owner)
    add_product(owner, "other")
    published(owner, "v1.0", {"adds": P, HOSTILE: P, "now and then": P}, *TWO)
    published(owner, "v1.0.1", {"adds": P, HOSTILE: P, "now and then": L}, *TWO)
    release = claimed(owner, "v1.1", *TWO, gates=("builds", "no-regression", "approval"))
    build(owner, release, {"adds": F, HOSTILE: F, "now and then": P}, failing={"regress": "2 of 3 tests failed"})
    build(owner, release, {"adds": P, HOSTILE: P, "now and then": P})
    services.host_seen(owner, "host-1", ("container",), 2, 24_000, services.Guests(4, 2, 1))
    images(owner)
    services.heartbeat(owner, "publisher", "running", 1)
    step = running_step(served)
    step.write("one\n\x1b[1;31mfoo.c:3: error: no such thing\x1b[0m\n\x1b[42m ok \x1b[0m \x1b[33mwarning\x1b[0m\n")
    step.end()
    return step.id


def images(owner: Database) -> None:
    """Two contents of an image, and what phases in them had."""
    held = begin(owner, claimed(owner, next(_tags)))
    for number, digest in enumerate("de"):
        phase = phases.start(owner, held, number, f"phase-{number}")
        phases.reset(owner, held, phase, Reset("debian-12", digest * 64, "container", "mirror", "overlay", 0.03))
        phases.set_packages(owner, held, phase, {"gcc": f"12.{number}", HOSTILE: "1"})


class RunningStep:
    """A step that runs, as the master has it."""

    def __init__(self, served: Served, held: Lease) -> None:
        self.owner, self.held = served.owner, held
        self.phase = phases.start(self.owner, held, 0, "build")
        how = Reset("debian-12", "d" * 64, "container", "mirror", "overlay", 0.03)
        phases.reset(self.owner, held, self.phase, how)
        self.id = phases.start_step(self.owner, held, self.phase, 0, "compile")
        self._log = served.site.logs.open(log_name(held.attempt_id, "build", 0, "compile"))
        self.write = self._log.write

    def end(self) -> None:
        sealed = self._log.seal()
        phases.finish_step(
            self.owner, self.held, self.id, StepResult(F, 1, 3.5, "exit status 1", sealed.sha256, sealed.size)
        )
        phases.add_artifacts(
            self.owner, self.held, "build", [NewArtifact("hello.deb", DIGEST, 4096, "deb", "hello", "1")]
        )


def running_step(served: Served) -> RunningStep:
    return RunningStep(served, begin(served.owner, claimed(served.owner, next(_tags))))


@pytest.fixture(scope="module")
def people(browser: Browser, served: Served) -> Iterator[Reader]:
    """Somebody who goes from page to page."""
    found = reader(browser, served, color_scheme="light", viewport=WIDE)
    yield found
    found.page.context.close()


@pytest.fixture
def person(browser: Browser, served: Served, log: int) -> Iterator[Callable[..., Reader]]:
    """Makes a reader for one test, who must not meet an error."""
    made: list[Reader] = []

    def make(**how: object) -> Reader:
        made.append(reader(browser, served, **how))
        return made[-1]

    yield make
    for one in made:
        one.page.context.close()
        assert one.problems == []


@pytest.mark.parametrize("name", PAGES)
def test_every_page_can_be_read_by_everybody(people: Reader, log: int, environment: str, name: str) -> None:
    people.problems.clear()
    page = people.open(PAGES[name].format(log=log, environment=environment))
    assert people.violations() == []
    assert not people.sideways()
    # The same page on another screen: it need not be loaded again.
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(NARROW)
    try:
        assert name not in STYLES or people.violations() == []
        assert not people.sideways()
        # Whoever looks for a state or a reason need not move a table.
        assert page.evaluate(_OUT_OF_SIGHT) == []
    finally:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(WIDE)
    assert people.problems == []


def test_a_change_shows_in_an_open_page(person: Callable[..., Reader], served: Served) -> None:
    someone = person()
    release = claimed(served.owner, next(_tags), gates=("builds", "approval"))
    page = someone.open(f"/release/hello/{release.ref}")
    expect(page.locator("#standing")).to_contain_text("waiting")
    overview = person().open("/")
    expect(page.locator("#liveness")).to_have_text("Live")
    build(served.owner, release, {"adds": P})
    expect(page.locator("#standing")).to_contain_text("waits for approval")
    expect(overview.locator("tr", has_text=release.ref)).to_contain_text("held")


def test_what_a_reader_opened_stays_open(person: Callable[..., Reader], served: Served) -> None:
    release = claimed(served.owner, next(_tags))
    held = begin(served.owner, release)
    first = phases.start(served.owner, held, 0, "build")
    phases.finish(served.owner, held, first, P, why="", seconds=1.0, command_seconds=1.0)
    page = person().open(f"/release/hello/{release.ref}")
    details = page.locator("details", has_text="build:")
    assert details.get_attribute("open") is None
    details.locator("summary").click()
    expect(page.locator("#liveness")).to_have_text("Live")
    phases.start(served.owner, held, 1, "install")
    expect(page.locator("#target-1")).to_contain_text("install")
    expect(page.locator("#target-1 .phases")).to_contain_text("running")
    assert details.get_attribute("open") is not None


def test_an_open_page_is_right_again_after_the_database_was_away(person: Callable[..., Reader], served: Served) -> None:
    release = claimed(served.owner, next(_tags))
    page = person().open(f"/release/hello/{release.ref}")
    expect(page.locator("#liveness")).to_have_text("Live")
    served.server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cleanroom_web'")
    build(served.owner, release)
    expect(page.locator("#standing")).to_contain_text("waits for publication")


def test_a_log_grows_before_the_reader_s_eyes(person: Callable[..., Reader], served: Served) -> None:
    step = running_step(served)
    step.write("first\n")
    page = person().open(f"/log/{step.id}")
    expect(page.locator("#L1")).to_contain_text("first")
    expect(page.locator("#liveness")).to_have_text("Live")
    step.write("<b>second</b>\n\x1b[31mthird\x1b[0m\n")
    expect(page.locator("#L2")).to_contain_text("<b>second</b>")
    expect(page.locator("#L3 .ink-1")).to_have_text("third")
    step.end()
    expect(page.get_by_text("exit status 1", exact=False).first).to_be_visible()
    expect(page.locator(".line")).to_have_count(3)


def test_pages_are_whole_without_javascript(person: Callable[..., Reader], log: int) -> None:
    someone = person(java_script_enabled=False)
    page = someone.open("/")
    page.get_by_role("link", name="hello v1.1").first.click()
    expect(page.locator("#standing")).to_contain_text("regressed since")
    page.get_by_role("link", name="Repository").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Repository")
    page = someone.open("/?state=published")
    page.get_by_label("State").select_option("failed")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr").first).to_contain_text("v1.1")


def test_times_are_in_the_reader_s_zone(person: Callable[..., Reader]) -> None:
    page = person(timezone_id="Asia/Tokyo", locale="en-GB").open("/release/hello/v1.0")
    time = page.locator("time").first
    utc = time.get_attribute("title") or ""
    assert utc.endswith(" UTC")
    shown = page.evaluate(
        "at => new Intl.DateTimeFormat('en-GB', {dateStyle: 'medium', timeStyle: 'short', timeZone: 'Asia/Tokyo'})"
        ".format(new Date(at))",
        time.get_attribute("datetime"),
    )
    expect(time).to_have_text(shown)


def test_everything_is_reached_by_keyboard(person: Callable[..., Reader]) -> None:
    page = person().open("/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    outlined = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        outlined.add(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
    assert outlined == {"solid"}


def test_a_database_that_is_away_is_said_until_it_is_back(person: Callable[..., Reader], served: Served) -> None:
    someone = person()
    name = served.owner.url.rsplit("/", 1)[1].split("?")[0]

    def allow(word: str) -> None:
        served.server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {word}")

    allow("false")
    try:
        served.server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        # Nobody has asked for this one a moment ago; the browser's clock is ours, so that nobody waits for it.
        someone.page.clock.install()
        page = someone.open("/?product=other")
        expect(page.get_by_role("heading", level=1)).to_have_text("The database is away")
        assert someone.violations() == []
    finally:
        allow("true")
    page.clock.run_for(5_000)
    expect(page.get_by_role("heading", level=1)).to_have_text("Releases")
