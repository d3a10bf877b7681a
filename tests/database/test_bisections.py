"""Bisections on a real record and a real repository; the farm that runs their probes is played."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builds import write_tree
from database_server import record_tags
from git_repository import Repository

from cleanroom_base import settings as site
from cleanroom_base.errors import InputError
from cleanroom_base.settings import Settings
from cleanroom_db import attempts, bisections, phases, products, releases, trials
from cleanroom_db.attempts import Lease, RetryPolicy
from cleanroom_db.bisections import Bisection
from cleanroom_db.connection import Database
from cleanroom_db.phases import NewArtifact, StepResult, TestResult
from cleanroom_db.releases import Planned, PlannedBuild
from cleanroom_db.states import BisectionAxis, BisectionState, TrialPurpose, Verdict
from cleanroom_db.trials import NewTrial
from cleanroom_images.store import Image, Store
from cleanroom_master.bisection import evidence
from cleanroom_master.bisection.driver import Driver
from cleanroom_master.bisection.start import Wish, start
from cleanroom_master.files import FileStore
from cleanroom_master.logs import LogStore
from cleanroom_master.planning import Planner
from cleanroom_master.refs.mirror import Mirror
from cleanroom_recipes.model import Outcome, RefKind
from cleanroom_recipes.plan import EXACT

TARGET = "debian-12/script"
CASE = "the answer"
RECIPE = 'builder = "script"\ncommands = ["true"]\nartifacts = ["check"]\ntests = ["./check"]\n'
ONCE = RetryPolicy(limit=1)
COUNT = 12
CULPRIT = 7


@dataclass
class Farm:
    """Works on what is due: `say` has what a commit does, by its number: pass, fail, break or lose."""

    database: Database
    logs: LogStore
    commits: list[str]
    say: Callable[[int], str]
    worked: list[int] = field(default_factory=list)

    def work(self, *, only: int | None = None) -> int:
        """Work on all that is due, or on so many; returns on how many."""
        due = attempts.due(self.database)[:only]
        for work in due:
            assert work.trial_id is not None
            number = self.commits.index(trials.get(self.database, work.trial_id).commit)
            self.worked.append(number)
            held = Lease(work.id, "farm")
            assert attempts.lease(self.database, held.attempt_id, held.owner, 60)
            self._build(held, work.phases, self.say(number))
        return len(due)

    def _build(self, held: Lease, names: Iterable[str], how: str) -> None:
        outcome, why = Outcome.PASSED, ""
        if how == "lose":
            outcome, why = Outcome.INFRASTRUCTURE, "build: the guest was lost"
        else:
            for position, name in enumerate(names):
                outcome, why = self._phase(held, position, name, how)
                if outcome is Outcome.FAILED:
                    break
        attempts.finish(self.database, held.attempt_id, held.owner, outcome, why, ONCE)

    def _phase(self, held: Lease, position: int, name: str, how: str) -> tuple[Outcome, str]:
        fails = how == "break" if name == "build" else how == "fail"
        phase = phases.start(self.database, held, position, name)
        step = phases.start_step(self.database, held, phase, 0, "command-1" if name == "build" else "test-1")
        if name == "regress":
            told = TestResult(
                CASE, Outcome.FAILED if fails else Outcome.PASSED, 0.1, "41 is not 42" if fails else "", 12
            )
            phases.add_tests(self.database, held, phase, "test-1", [told])
        log = self.logs.open(f"{held.attempt_id}-{name}")
        log.write("".join(f"line {number}\n" for number in range(1, 41)))
        sealed = log.seal()
        how_it_ended = Outcome.FAILED if fails else Outcome.PASSED
        why = f"{'command' if name == 'build' else 'test'}-1 ended with status 1" if fails else ""
        phases.finish_step(
            self.database, held, step, StepResult(how_it_ended, int(fails), 1.0, why, sealed.sha256, sealed.size)
        )
        phases.finish(self.database, held, phase, how_it_ended, why=why, seconds=1, command_seconds=1)
        return how_it_ended, f"{name}: {why}" if fails else ""


@dataclass
class Site:
    """An installation without processes: one product with some commits, of which the first and the last are tagged."""

    settings: Settings
    owner: Database
    master: Database
    repository: Repository
    commits: list[str]

    @property
    def logs(self) -> LogStore:
        return LogStore(self.settings.state / "logs")

    @property
    def driver(self) -> Driver:
        """A new one each time, as after a restart: it knows nothing but the rows."""
        return Driver(self.settings, self.master, Planner(self.settings))

    def farm(self, say: Callable[[int], str] = lambda number: "fail" if number >= CULPRIT else "pass") -> Farm:
        return Farm(self.master, self.logs, self.commits, say)

    def start(self, **wish: Any) -> int:
        asked = {"good": "v1", "bad": "v2", "test": CASE, "phase": "regress", "parallel": 2, **wish}
        return start(self.settings, self.owner, Wish("hello", **asked))

    def run(self, bisection: int, farm: Farm, *, turns: int = 100) -> Bisection:
        """Let the master take turns and the farm work until the bisection has ended."""
        for _ in range(turns):
            self.driver.turn()
            if farm.work() == 0:
                break
        return bisections.get(self.owner, bisection)

    def view(self, bisection: int) -> Any:
        return evidence.view(self.owner, self.logs, bisection)

    def suspects(self, found: Bisection) -> list[int]:
        """The numbers of the commits that are suspected."""
        rows = bisections.candidates(self.owner, found.id)
        return [self.commits.index(rows[position].commit) for position in found.suspects]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, list[str]]:
    repository = Repository.make(tmp_path_factory.mktemp("repositories") / "hello")
    commits = []
    for number in range(COUNT):
        # One of them has a recipe that is none.
        recipe = "builder = 7\n" if number == 3 else RECIPE
        write_tree(repository.path, {"cleanroom.toml": recipe, "check": f"#!/bin/sh\nexit {number}\n"})
        commits.append(repository.commit())
    repository.git("tag", "v1", commits[0])
    repository.git("tag", "v2", commits[-1])
    return repository, commits


@pytest.fixture
def here(tmp_path: Path, owner: Database, master: Database, repository: tuple[Repository, list[str]]) -> Site:
    settings = site.load({"CLEANROOM_STATE": str(tmp_path), "CLEANROOM_SITE": str(tmp_path)})
    products.add(owner, "hello", repository[0].path.as_uri())
    Mirror(settings, "hello", repository[0].path.as_uri()).remote_refs()
    return Site(settings, owner, master, *repository)


def release(here: Site, tag: str, number: int, case: Outcome, *, how: str = "pass", file: Path | None = None) -> int:
    """A release that was built, with one run of the case; returns its id."""
    record_tags(here.owner, tag, commit=here.commits[number])
    names = ("build", "regress")
    planned = Planned((PlannedBuild(TARGET, names),), {"name": "hello"}, "digest", "testing")
    made = releases.claim_next(here.owner, lambda *_: planned)
    assert made is not None
    work = next(work for work in attempts.due(here.owner) if work.release_id == made.id)
    held = Lease(work.id, "farm")
    assert attempts.lease(here.owner, held.attempt_id, held.owner, 60)
    if file is not None:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        size = file.stat().st_size
        FileStore(here.settings.state / "artifacts").take(file, digest)
        phases.add_artifacts(here.owner, held, "build", [NewArtifact("hello_1.buildinfo", digest, size, "buildinfo")])
    farm = Farm(here.owner, here.logs, here.commits, lambda _: "")
    farm._build(held, names, "fail" if case is Outcome.FAILED else how)
    return made.id


@pytest.mark.parametrize("parallel", [1, 3])
def test_the_first_bad_commit_is_found_with_its_evidence(here: Site, parallel: int) -> None:
    bisection = here.start(parallel=parallel)
    farm = here.farm()
    found = here.run(bisection, farm)
    assert (found.state, here.suspects(found)) == (BisectionState.FOUND, [CULPRIT])
    assert found.finished_at is not None
    assert sorted(farm.worked[:2]) == [0, COUNT - 1]
    assert len(farm.worked) == len(set(farm.worked)) <= COUNT // 2 + parallel
    view = here.view(bisection)
    assert (view["first_bad"]["commit"], view["first_bad"]["subject"]) == (here.commits[CULPRIT], "A change")
    assert view["first_bad"]["author"] == "Anna <anna@example.org>"
    assert view["evidence"]["message"] == "41 is not 42"
    # Around the place where it stands in the log.
    assert view["evidence"]["lines"] == [f"line {number}" for number in range(1, 18)]
    assert {probe["verdict"] for probe in view["probes"]} <= {"good", "bad", "skipped"}
    json.dumps(view)
    assert attempts.due(here.master) == []


def test_only_the_phases_that_the_verdict_needs_are_run(here: Site) -> None:
    here.start(phase="build", test=None)
    here.driver.turn()
    assert {work.phases for work in attempts.due(here.master)} == {("build",)}
    trial = trials.list_latest(here.master)[0]
    assert (trial.purpose, trial.subject, trial.channel) == (TrialPurpose.BISECTION, None, "testing")
    # A bad one is not replayed: that would take its time, and only --runs says how often it is looked at.
    assert trial.recipe["replays"] == 0


def test_a_turn_without_news_begins_nothing(here: Site) -> None:
    here.start()
    for _ in range(3):
        here.driver.turn()
    assert len(attempts.due(here.master)) == 2


def test_it_goes_on_after_any_kill(here: Site) -> None:
    """One probe ends at a time, and after each a new driver finds nothing but the rows."""
    bisection = here.start(parallel=3)
    farm = here.farm()
    while bisections.get(here.owner, bisection).state is BisectionState.RUNNING:
        here.driver.turn()
        here.driver.turn()
        farm.work(only=1)
    found = bisections.get(here.owner, bisection)
    assert (found.state, here.suspects(found)) == (BisectionState.FOUND, [CULPRIT])


def test_what_nothing_can_be_learnt_from_is_cancelled(here: Site) -> None:
    here.start(parallel=4)
    farm = here.farm()
    here.driver.turn()
    farm.work()
    here.driver.turn()
    begun = attempts.due(here.master)
    assert len(begun) == 4
    # The one in the middle that is bad makes those behind it needless.
    numbers = {work.id: here.commits.index(trials.get(here.master, work.trial_id or 0).commit) for work in begun}
    middle = sorted(numbers.values())[1]
    farm.say = lambda number: "fail" if number >= middle else "pass"
    first = next(work for work in begun if numbers[work.id] == middle)
    assert attempts.lease(here.master, first.id, "farm", 60)
    farm._build(Lease(first.id, "farm"), first.phases, "fail")
    here.driver.turn()
    ended = {work.id for work in begun} - {work.id for work in attempts.due(here.master)} - {first.id}
    assert {numbers[one] for one in ended} == {number for number in numbers.values() if number > middle}
    assert {attempts.get(here.master, one).outcome for one in ended} == {Outcome.CANCELLED}


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (lambda number: "fail", "the good one fails: v1 (41 is not 42)"),
        (lambda number: "pass", "the bad one passes: v2"),
        (
            lambda number: "fail" if number == 0 else "pass",
            "the good one fails: v1 (41 is not 42); the bad one passes: v2",
        ),
        (
            lambda number: "break" if number == 0 else "fail",
            f"the good one cannot be judged: v1 (there is no test {CASE}; command-1 ended with status 1)",
        ),
    ],
)
def test_ends_that_are_not_what_they_were_said_to_be(here: Site, say: Callable[[int], str], why: str) -> None:
    found = here.run(here.start(), here.farm(say))
    assert (found.state, found.why.replace("build: ", "")) == (BisectionState.REFUSED, why)
    assert attempts.due(here.master) == []


def test_an_end_that_the_infrastructure_spoils_is_nobody_s_verdict(here: Site) -> None:
    found = here.run(here.start(), here.farm(lambda number: "lose" if number == 0 else "fail"))
    assert (found.state, found.why) == (
        BisectionState.SPOILED,
        "the good one cannot be judged: v1 (infrastructure: build: the guest was lost)",
    )


@pytest.mark.parametrize("trouble", ["break", "lose"])
def test_what_cannot_be_judged_is_skipped_and_never_guessed(here: Site, trouble: str) -> None:
    def say(number: int) -> str:
        return trouble if number in (5, 6) else "fail" if number >= CULPRIT else "pass"

    found = here.run(here.start(parallel=1), here.farm(say))
    assert (found.state, here.suspects(found)) == (BisectionState.UNDECIDED, [5, 6, 7])
    view = here.view(found.id)
    assert [one["verdict"] for one in view["suspects"]] == ["skipped", "skipped", "bad"]
    assert view["first_bad"] is None
    assert all(one["why"] for one in view["suspects"])


def test_a_commit_without_a_valid_recipe_is_skipped_without_a_guest(here: Site) -> None:
    farm = here.farm(lambda number: "fail" if number >= 4 else "pass")
    found = here.run(here.start(parallel=1), farm)
    assert (found.state, here.suspects(found)) == (BisectionState.UNDECIDED, [3, 4])
    assert 3 not in farm.worked
    [skipped] = [one for one in bisections.candidates(here.owner, found.id) if one.verdict is Verdict.SKIPPED]
    assert "builder" in skipped.why


def test_a_test_that_fails_now_and_then_is_probed_often(here: Site) -> None:
    tries: dict[int, int] = {}

    def say(number: int) -> str:
        tries[number] = tries.get(number, 0) + 1
        return "fail" if number >= CULPRIT and tries[number] == 3 else "pass"

    found = here.run(here.start(runs=3), here.farm(say))
    assert (found.state, here.suspects(found)) == (BisectionState.FOUND, [CULPRIT])
    assert set(tries.values()) == {3}


def test_cancelling_ends_its_probes(here: Site) -> None:
    bisection = here.start()
    here.driver.turn()
    assert bisections.cancel(here.owner, bisection, "anna", "enough").state is BisectionState.CANCELLED
    assert attempts.due(here.master) == []
    here.driver.turn()
    assert attempts.due(here.master) == []
    with pytest.raises(InputError, match="has ended: it is cancelled"):
        bisections.cancel(here.owner, bisection, "anna", "again")


def test_a_repository_that_is_away_delays_it_and_says_so(here: Site) -> None:
    bisection = here.start()
    mirror = here.settings.state / "mirrors" / "hello.git"
    mirror.rename(mirror.with_name("away.git"))
    here.driver.turn()
    assert "waits, because:" in bisections.get(here.owner, bisection).why
    mirror.with_name("away.git").rename(mirror)
    assert here.run(bisection, here.farm()).state is BisectionState.FOUND


def test_probes_beside_each_other_have_builders_of_their_own(here: Site) -> None:
    first, second = here.start(parallel=2), here.start(parallel=2)
    here.driver.turn()
    lanes = [probe.lane for one in (first, second) for probe in bisections.probes(here.owner, one)]
    assert sorted(lanes) == [1, 2, 3, 4]
    assert bisections.lanes(here.master) == [("hello", TARGET, 4)]
    trial = bisections.probes(here.owner, first)[0].trial_id
    assert bisections.lane(here.master, trial) == 1
    assert bisections.lane(here.master, trial + 1000) == 0


def test_what_fails_in_the_bad_release_is_looked_for(here: Site) -> None:
    release(here, "v1", 0, Outcome.PASSED)
    release(here, "v2", COUNT - 1, Outcome.PASSED, how="break")
    bisection = bisections.get(here.owner, here.start(test=None, phase=None))
    assert (bisection.target, str(bisection.criterion)) == (TARGET, "build/command-1")
    found = here.run(bisection.id, here.farm(lambda number: "break" if number >= CULPRIT else "pass"))
    assert (found.state, here.suspects(found)) == (BisectionState.FOUND, [CULPRIT])


def test_a_test_is_looked_for_where_it_ran(here: Site) -> None:
    release(here, "v1", 0, Outcome.PASSED)
    release(here, "v2", COUNT - 1, Outcome.FAILED)
    bisection = bisections.get(here.owner, here.start(phase=None))
    assert (bisection.target, str(bisection.criterion)) == (TARGET, f"regress: {CASE}")


def test_bad_input_changes_nothing(here: Site) -> None:
    release(here, "v1", 0, Outcome.PASSED)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"good": "v8", "bad": "v9"}, r"--good: there is no tag.*v8.*\n.*--bad: there is no tag.*v9"),
        ({"good": "v2", "bad": "v1"}, "other way round"),
        ({"bad": "v1"}, "same commit"),
        ({"test": "another", "phase": None}, "no release of hello has a test 'another'"),
        ({"phase": None, "test": None}, "v2 was not built: what is looked for"),
        ({"phase": None, "test": None, "bad": "v1", "good": "v2"}, "v1 fails in no phase.*: what is looked for"),
        ({"phase": "upgrade"}, "no phase 'upgrade'\n.*its phases: build, regress"),
        ({"target": "debian-13/deb"}, "no target 'debian-13/deb'"),
        ({"runs": 0, "parallel": 99, "at": "v1"}, r"--runs: must be .*\n.*--parallel: must be .*\n.*--at"),
        (
            {"axis": BisectionAxis.IMAGE},
            r"--good: no phase of hello v1 ran.*\n.*--bad: there is no release of hello v2",
        ),
        ({"axis": BisectionAxis.IMAGE, "bad": "2030-01-31"}, r"--bad: there is no tag.*\n.*--at names what is built"),
        (
            {"axis": BisectionAxis.DEPENDENCIES},
            r"--good: the build of hello v1 .* left no list.*\n.*--bad: there is no",
        ),
    ]
    for wish, message in wrong:
        with pytest.raises(InputError) as raised:
            here.start(**wish)
        assert raised.match(f"(?s){message}"), str(raised.value)
    assert bisections.list_latest(here.owner) == []


def test_an_unknown_bisection_is_bad_input(here: Site) -> None:
    with pytest.raises(InputError, match="there is no bisection 7"):
        bisections.get(here.owner, 7)


DIGESTS = [f"{number:x}" * 64 for number in range(1, 6)]


def run_on(here: Site, release_id: int, digest: str, days: int) -> None:
    """Note that a release's first phase ran on an image, so many days after another time."""
    with here.owner.transaction() as cursor:
        cursor.execute(
            "UPDATE cleanroom.phase SET image = 'debian-12', image_digest = %(digest)s, started_at = %(at)s"
            " WHERE name = 'build' AND attempt_id IN (SELECT attempt.id FROM cleanroom.attempt"
            " JOIN cleanroom.build ON build.id = build_id WHERE release_id = %(release)s)",
            digest=digest,
            at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days),
            release=release_id,
        )


def keep_image(here: Site, digest: str) -> None:
    """An image of that digest in the store."""
    store = Store(here.settings.state)
    with store.building("debian-12") as directory:
        image = Image(
            *("debian-12", digest, directory, "amd64", "debian", "bookworm", ("deb",), "", 0),
            tree=None,
            disk=None,
            disk_format="raw",
            kernel=None,
            initrd=None,
        )
        store.seal(image, directory)


def test_an_image_that_broke_something_is_found_and_all_are_kept_so_long(here: Site) -> None:
    for number, digest in enumerate(DIGESTS):
        run_on(here, release(here, f"r{number}", number + 4, Outcome.PASSED), digest, number)
        if number != 2:
            keep_image(here, digest)
    store = Store(here.settings.state)
    store.switch(store.image("debian-12", DIGESTS[-1]))
    for digest in DIGESTS[:-1]:
        # What was not needed is gone now, so it is put there again.
        if digest != DIGESTS[2]:
            keep_image(here, digest)
    bisection = here.start(axis=BisectionAxis.IMAGE, good="r0", bad="r4", at="v2", parallel=1)
    started: list[str] = []

    def say(number: int) -> str:
        assert number == COUNT - 1
        now = trials.list_latest(here.owner)[0].conditions["image_digest"]
        started.append(now)
        return "fail" if now >= DIGESTS[3] else "pass"

    farm = here.farm(say)
    here.driver.turn()
    assert len(store.users("debian-12")) == 4
    store.settle("debian-12")
    while farm.work(only=1):
        here.driver.turn()
    found = bisections.get(here.owner, bisection)
    assert (found.state, found.suspects) == (BisectionState.UNDECIDED, (2, 3))
    assert started == [DIGESTS[0], DIGESTS[4], DIGESTS[1], DIGESTS[3]]
    assert [one["name"] for one in here.view(bisection)["suspects"]] == [DIGESTS[2], DIGESTS[3]]
    assert store.users("debian-12") == []
    store.settle("debian-12")
    with pytest.raises(InputError, match=r"an end cannot be built again\n.*--good: the image 1111.* is not kept"):
        here.start(axis=BisectionAxis.IMAGE, good=DIGESTS[0][:8], bad="2026-02-01", at="v2")


def listed(here: Site, **versions: str) -> Path:
    """A .buildinfo that lists packages."""
    place = here.settings.state / "lists"
    place.mkdir(exist_ok=True)
    file = place / f"{len(list(place.iterdir()))}"
    packages = ",\n".join(f" {name} (= {version})" for name, version in versions.items())
    file.write_text(f"Format: 1.0\nSource: hello\nInstalled-Build-Depends:\n{packages}\n")
    return file


def test_packages_that_broke_something_are_found(here: Site) -> None:
    states = [
        {"make": "4.3-1", "gcc": "12"},
        {"make": "4.3-1", "gcc": "12"},
        {"make": "4.3-2", "gcc": "12"},
        {"make": "4.3-2", "gcc": "13"},
        {"make": "4.4", "gcc": "13"},
    ]
    for number, state in enumerate(states):
        release(here, f"r{number}", 4 + number, Outcome.PASSED, file=listed(here, **state))
    bisection = here.start(axis=BisectionAxis.DEPENDENCIES, good="r0", bad="r4", parallel=1)
    rows = bisections.candidates(here.owner, bisection)
    assert [row.subject for row in rows] == [
        "r0: 2 packages",
        "r2: make 4.3-1 -> 4.3-2",
        "r3: gcc 12 -> 13",
        "r4: make 4.3-2 -> 4.4",
    ]
    assert {row.commit for row in rows} == {here.commits[8]}

    def say(_: int) -> str:
        return "fail" if trials.list_latest(here.owner)[0].conditions["packages"]["gcc"] == "13" else "pass"

    farm = here.farm(say)
    here.driver.turn()
    while farm.work(only=1):
        here.driver.turn()
    found = bisections.get(here.owner, bisection)
    assert (found.state, found.suspects) == (BisectionState.FOUND, (2,))
    with pytest.raises(InputError, match="had the same packages"):
        here.start(axis=BisectionAxis.DEPENDENCIES, good="r0", bad="r1")


def night(here: Site, number: int, **versions: str) -> None:
    """The product is tested on a night, so many days after another time; `regress` ends with these packages."""
    recipe = {"name": "hello"}
    builds = [(TARGET, ("regress",))]
    asked = ("hello", "r0", here.commits[4], RefKind.TAG, recipe, "testing", builds, "schedule", {})
    trial = trials.request(here.owner, NewTrial(TrialPurpose.NIGHTLY, *asked))
    [work] = [work for work in attempts.due(here.owner) if work.trial_id == trial]
    held = Lease(work.id, "farm")
    assert attempts.lease(here.owner, held.attempt_id, held.owner, 60)
    row = phases.start(here.owner, held, 0, "regress")
    phases.set_packages(here.owner, held, row, versions)
    phases.finish(here.owner, held, row, Outcome.PASSED, seconds=1, command_seconds=1)
    attempts.finish(here.owner, held.attempt_id, held.owner, Outcome.PASSED, "", ONCE)
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    with here.owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.phase SET started_at = %(at)s WHERE id = %(id)s", at=at, id=row)


def test_packages_that_nights_had_are_looked_at(here: Site) -> None:
    release(here, "r0", 4, Outcome.PASSED, file=listed(here, make="4.3"))
    with here.owner.transaction() as cursor:
        # What the product itself made is no dependency.
        cursor.execute("UPDATE cleanroom.artifact SET package = 'hello'")
    night(here, 1, hello="1", library="1.0", perl="5")
    night(here, 2, hello="2", library="1.0", perl="5")
    night(here, 3, hello="2", library="2.0", perl="5", **{"rpm:x": "1"})
    night(here, 4, hello="2", library="2.0", perl="6")
    night(here, 5, hello="2", library="2.1", perl="6")
    asked = {"axis": BisectionAxis.DEPENDENCIES, "at": "v2", "parallel": 1}
    bisection = here.start(good="2026-01-02T12:00", bad="2026-01-06T12:00", **asked)
    rows = bisections.candidates(here.owner, bisection)
    assert [row.subject for row in rows] == [
        "r0: 2 packages",
        "r0: library 1.0 -> 2.0",
        "r0: perl 5 -> 6",
        "r0: library 2.0 -> 2.1",
    ]
    assert rows[1].conditions["packages"] == {"library": "2.0", "perl": "5"}

    def say(_: int) -> str:
        return "pass" if trials.list_latest(here.owner)[0].conditions["packages"]["library"] == "1.0" else "fail"

    farm = here.farm(say)
    here.driver.turn()
    while farm.work(only=1):
        here.driver.turn()
    found = bisections.get(here.owner, bisection)
    assert (found.state, found.suspects) == (BisectionState.FOUND, (1,))
    # A phase that builds is looked at by what builds had, of which there is one here.
    with pytest.raises(InputError, match="said which packages it had before 2026-01-02"):
        here.start(good="2026-01-02T12:00", bad="2027-01-06T12:00", phase="build", test=None, **asked)


def test_packages_that_the_mirror_has_no_more_cannot_be_judged(here: Site) -> None:
    for number, version in enumerate(("1", "2", "3")):
        release(here, f"r{number}", 4 + number, Outcome.PASSED, file=listed(here, make=version))
    found = here.start(axis=BisectionAxis.DEPENDENCIES, good="r0", bad="r2", phase="build", test=None, parallel=1)
    here.driver.turn()
    [work] = attempts.due(here.master)
    held = Lease(work.id, "farm")
    assert attempts.lease(here.master, held.attempt_id, held.owner, 60)
    phase = phases.start(here.master, held, 0, "build")
    step = phases.start_step(here.master, held, phase, 1, EXACT)
    gone = StepResult(Outcome.FAILED, 1, 1.0, "these versions cannot be had together any more: make")
    phases.finish_step(here.master, held, step, gone)
    phases.finish(here.master, held, phase, Outcome.FAILED, why=gone.why, seconds=1, command_seconds=1)
    attempts.finish(here.master, held.attempt_id, held.owner, Outcome.FAILED, f"build: {gone.why}", ONCE)
    here.driver.turn()
    ended = bisections.get(here.owner, found)
    assert (ended.state, ended.why) == (
        BisectionState.REFUSED,
        f"the good one cannot be judged: r0 ({gone.why})",
    )
