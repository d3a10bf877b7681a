"""A campaign: small releases, one disturbance after the other while they are on their way, and the audit at its end."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from auditor import COLUMNS, FAILED, PASSED, Complaints, Planned
from builds import write_tree
from consumer import Consumer
from disturbances import Disturbance, Scene, clock_right, disarm, everything, one_of_each, services, works
from git_repository import Repository
from handmade import deb
from live_site import LiveSite
from place import Place, end, installed

from cleanroom_db.cluster import database_url
from cleanroom_db.roles import Role

# The consumer fetches the first of these, again and again.
PACKAGES = ("torture-first", "torture-second")
SCRIPTS = ("tortured", "tried", "teased")
# Columns of ours: the auditor knows of no disturbances.
MISSED = "disturbance that did not happen"
STUCK = "release not at its end in time"
_AUDITOR = Path(__file__).with_name("auditor.py")
_SCRIPT = (
    'builder = "script"\ncommands = ["cat answer && sleep 1 && grep -q good verdict && cp answer result.txt"]\n'
    'artifacts = ["result.txt"]\n'
)
_WARMING = 2
# So many of a hundred releases are meant to fail.
_MEANT_TO_FAIL = 15
# Others may work on the machine at the same time. What is late is no complaint, what never comes is one.
_RELEASE_TIMEOUT = 600.0
_QUIET_TIMEOUT = 300.0
_AUDIT_TIMEOUT = 1200
_LOOK = 0.3
# A release that is held for the surroundings' sake is tried again by a person, so often at most.
_BY_HAND = 5


@dataclass
class Round:
    """A disturbance, and what became of the releases that it met."""

    kind: str
    where: str
    releases: list[str]
    happened: bool = False
    missed: str = ""
    seconds: float = 0.0
    by_hand: int = 0
    stuck: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What a campaign did, and what is wrong."""

    seed: int
    again: str
    state: str
    rounds: list[Round] = field(default_factory=list)
    releases: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    minutes: float = 0.0
    updates: int = 0
    complaints: Complaints = field(default_factory=lambda: {column: [] for column in (*COLUMNS, STUCK, MISSED)})

    @property
    def clean(self) -> bool:
        """Whether there is nothing to complain about."""
        return not any(self.complaints.values())

    def missed(self) -> set[str]:
        """The disturbances that did not happen in any of their rounds."""
        names = {f"{one.kind}, {one.where}" for one in self.rounds}
        return names - {f"{one.kind}, {one.where}" for one in self.rounds if one.happened}

    def json(self) -> str:
        """For programs."""
        return json.dumps({**asdict(self), "clean": self.clean}, indent=1)


class Campaign:
    """Releases under disturbances, in an installation that runs."""

    def __init__(self, place: Place, site: LiveSite, seed: int, releases: int, say: Any) -> None:
        self._place = place
        self._site = site
        self._chance = random.Random(seed)
        self._left = releases
        self._say = say
        self._repositories: dict[str, Repository] = {}
        self._numbers: dict[str, int] = {}
        # Those without any disturbance come first, and are good.
        bad = max(1, releases * _MEANT_TO_FAIL // 100)
        self._verdicts = self._chance.sample(range(_WARMING, max(releases, _WARMING + bad)), bad)
        self.planned: list[Planned] = []
        self.guests: set[str] = set()

    # -- products and tags ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Have the products watched; what there is of each does not count."""
        for name in (*PACKAGES, *SCRIPTS):
            self._repositories[name] = self._site.product(name, self._content(name, 0, good=True))
            self._numbers[name] = 0

    @staticmethod
    def _content(name: str, number: int, *, good: bool) -> dict[str, str]:
        answer = f"the answer of {name} {number}"
        verdict = {"verdict": "good\n" if good else "bad\n"}
        if name in SCRIPTS:
            return {"cleanroom.toml": _SCRIPT, "answer": f"{answer}\n", **verdict}
        tree = deb(name, f"{number}.0", answer)
        checked = tree["debian/rules"].replace(
            "\tinstall", "\t@cat answer && sleep 1 && grep -q good verdict\n\tinstall"
        )
        return {**tree, **verdict, "debian/rules": checked}

    def tag(self, name: str, *, good: bool) -> Planned:
        """A new version of a product, tagged."""
        repository = self._repositories[name]
        self._numbers[name] += 1
        number = self._numbers[name]
        write_tree(repository.path, self._content(name, number, good=good))
        repository.git("add", "--force", "--all")
        repository.git("commit", "--quiet", f"--message=Version {number}")
        package = name if name in PACKAGES else None
        planned = Planned(
            name,
            f"v{number}.0",
            f"{number}.0",
            (f"debian-12/{'deb' if package else 'script'}",),
            PASSED if good else FAILED,
            f"the answer of {name} {number}",
            package,
        )
        # Before it is there for anybody: what is on the way must be in the plan.
        self.planned.append(planned)
        repository.tag(planned.ref, "--annotate", f"--message=Version {number}")
        self._left -= 1
        return planned

    # -- rounds --------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """One release of each format without any disturbance: what they need is made ready by them."""
        tagged = [self.tag(name, good=True) for name in (PACKAGES[0], SCRIPTS[0])]
        self._wait(tagged, Round("none", "", []))
        for planned in tagged:
            shown = self._site.show(planned.product, planned.ref) or {"state": "not there", "why": ""}
            if shown["state"] != PASSED:
                raise SystemExit(f"torture: without a disturbance {planned.name} is {shown['state']}: {shown['why']}")

    def run(self, disturbances: Sequence[Disturbance]) -> Iterator[Round]:
        """One round for each disturbance; the releases that are left are spread over them.

        A disturbance that did not happen has another round: its moment may not have come.
        """
        for index, disturbance in enumerate(disturbances):
            share = max(1, math.ceil(self._left / (len(disturbances) - index)))
            done = self._round(disturbance, min(share, len(PACKAGES) + len(SCRIPTS)))
            yield done
            if not done.happened:
                yield self._round(disturbance, 1)

    def _round(self, disturbance: Disturbance, releases: int) -> Round:
        """Push some tags under a disturbance, and wait for the ends of their releases."""
        done = Round(disturbance.kind, disturbance.where, [])
        begun = time.monotonic()
        tagged: list[Planned] = []
        scene = Scene(self._place, self._site, self._chance, lambda: not self._open(tagged))
        with disturbance.apply(scene):
            tagged += [self.tag(name, good=good) for name, good in self._choice(disturbance, releases)]
        done.happened, done.missed = scene.happened, scene.missed
        done.releases = [f"{one.name} ({one.expected})" for one in tagged]
        done.stuck = self._wait(tagged, done)
        clock_right(self._place)
        disarm(self._place)
        self._settle()
        done.seconds = round(time.monotonic() - begun, 1)
        return done

    def _choice(self, disturbance: Disturbance, releases: int) -> list[tuple[str, bool]]:
        """Which products, and which of their releases are good. The first is what the disturbance needs."""
        first = self._chance.choice(PACKAGES if disturbance.needs == "deb" else SCRIPTS)
        others = [name for name in (*SCRIPTS, *PACKAGES) if name != first]
        names = [first, *self._chance.sample(others, releases - 1)]
        begun, must = len(self.planned), disturbance.needs != "any"
        return [(name, self._good(begun + index, must and index == 0)) for index, name in enumerate(names)]

    def _good(self, number: int, must: bool) -> bool:
        if number in self._verdicts and must:
            # Another one is, in its place.
            self._verdicts.append(number + 1)
            return True
        return number not in self._verdicts

    def _open(self, tagged: Sequence[Planned]) -> dict[str, tuple[str, str]]:
        """Those of some releases that have not come to their end: their states, and why."""
        states: dict[str, tuple[str, str]] = {}
        with suppress(psycopg2.Error):
            rows = self._site.sql("SELECT product, ref, state, why FROM cleanroom.release")
            states = {f"{product} {ref}": (state, why) for product, ref, state, why in rows}
        found = {one.name: states.get(one.name, ("not there", "")) for one in tagged}
        return {name: said for name, said in found.items() if said[0] not in (PASSED, FAILED)}

    def _wait(self, tagged: Sequence[Planned], done: Round) -> list[str]:
        """Wait until releases have come to their end; says which did not."""
        deadline = time.monotonic() + _RELEASE_TIMEOUT
        while (left := self._open(tagged)) and time.monotonic() < deadline:
            self.look_at_guests()
            for name, (state, why) in left.items():
                if state == "held" and done.by_hand < _BY_HAND * len(tagged):
                    self._say(f"{name} is held ({why}): tried again by hand")
                    with suppress(subprocess.TimeoutExpired):
                        self._site.run("release", "retry", *name.split())
                    done.by_hand += 1
            time.sleep(_LOOK)
        return [f"{name} is {' '.join(said)}" for name, said in left.items()]

    def _settle(self) -> None:
        """Wait until all services run again, so that one disturbance after the other is what is looked at."""
        deadline = time.monotonic() + _QUIET_TIMEOUT
        while time.monotonic() < deadline:
            self.look_at_guests()
            found = services(self._site)
            if found and all(works(service) for service in found):
                return
            time.sleep(_LOOK)

    # -- the end -------------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Wait until nothing is under way: no release, no guest in use, and none that ended is still taken away."""
        self._wait(self.planned, Round("none", "", [], by_hand=_BY_HAND * len(self.planned)))
        deadline = time.monotonic() + _QUIET_TIMEOUT
        while time.monotonic() < deadline:
            self.look_at_guests()
            states = []
            for file in (self._site.state / "guests").glob("*/guest.json"):
                with suppress(OSError, ValueError):
                    states.append(json.loads(file.read_text())["state"])
            if all(state == "ready" for state in states):
                return
            time.sleep(_LOOK)

    def look_at_guests(self) -> None:
        """Note the names of the guests that there are."""
        self.guests |= {path.name for path in (self._site.state / "guests").glob("*")}

    def plan(self) -> dict[str, Any]:
        """What the auditor has to know."""
        self.look_at_guests()
        settings = self._site.settings
        return {
            "url": database_url(settings, Role.OWNER),
            "state": str(self._place.state),
            "runtime": str(settings.runtime),
            "temporary": str(self._place.temporary),
            "instance": settings.instance,
            "guests": sorted(self.guests),
            "releases": [asdict(one) for one in self.planned],
        }

    def retries(self) -> int:
        """How many attempts there were beyond the first ones."""
        return int(self._site.sql("SELECT count(*) FROM cleanroom.attempt WHERE number > 1")[0][0])


def chosen(releases: int, chance: random.Random, among: Sequence[Disturbance]) -> list[Disturbance]:
    """As many disturbances as there are releases for: one of each kind first, then all others, by chance."""
    first = one_of_each(chance, among)
    chance.shuffle(first)
    known = {(one.kind, one.where) for one in first}
    others = [one for one in among if (one.kind, one.where) not in known]
    chance.shuffle(others)
    return [*first, *others][:releases]


def torture(
    place: Place, seed: int, releases: int, only: Sequence[Disturbance], say: Any, *, minutes: float = math.inf
) -> Report:
    """A whole campaign: the installation, its releases and disturbances, the audit. Says what goes on.

    After so many minutes no further disturbance is begun.
    """
    report = Report(seed, f"make torture SEED={seed} RELEASES={releases}", str(place.state))
    begun = time.monotonic()
    with installed(place, lambda: not report.clean) as site:
        campaign = Campaign(place, site, seed, releases, say)
        campaign.prepare()
        campaign.warm_up()
        consumer = Consumer(place.root / "consumer", PACKAGES[0])
        disturbances = chosen(releases - len(campaign.planned), random.Random(seed), only or everything())
        with _watched(campaign), consumer.running(site.settings.repository_url):
            for done in campaign.run(disturbances):
                report.rounds.append(done)
                say(_line(done))
                if time.monotonic() - begun > minutes * 60:
                    break
            campaign.rest()
        report.updates = consumer.updates
        report.complaints["client"] += consumer.errors
        report.complaints[MISSED] += sorted(report.missed())
        report.complaints[STUCK] += [f"{one.kind}, {one.where}: {name}" for one in report.rounds for name in one.stuck]
        report.retries = campaign.retries()
        plan = place.root / "plan.json"
        plan.write_text(json.dumps(campaign.plan(), indent=1))
        _add(report.complaints, _audit(plan))
        end(place, site)
        _add(report.complaints, _audit(plan, "--ended"))
    expected = [one.expected for one in campaign.planned]
    report.releases = {"all": len(expected), "meant to fail": expected.count(FAILED)}
    report.minutes = round((time.monotonic() - begun) / 60, 1)
    return report


def _line(done: Round) -> str:
    happened = "" if done.happened else f" (did not happen{': ' if done.missed else ''}{done.missed})"
    stuck = f"; stuck: {', '.join(done.stuck)}" if done.stuck else ""
    return f"{done.kind}, {done.where}{happened}: {', '.join(done.releases)} after {done.seconds} s{stuck}"


@contextmanager
def _watched(campaign: Campaign) -> Iterator[None]:
    """Note the names of all guests, also of those that live for a moment."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK):
            campaign.look_at_guests()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _audit(plan: Path, *words: str) -> Complaints:
    """Have the auditor look, as a program that knows nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-I", _AUDITOR, plan, *words],
        capture_output=True,
        text=True,
        timeout=_AUDIT_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"torture: the auditor broke: {done.stderr}")
    found: Complaints = json.loads(done.stdout)
    return found


def _add(complaints: Complaints, more: Complaints) -> None:
    for column, found in more.items():
        complaints[column] += [one for one in found if one not in complaints[column]]
