"""A day of releases, compressed: what grows in processes, tables and on the disk, and how long releases wait.

Every release is a tag of a product that is one short command, so what is measured is the way itself. They come as on a
working day, few at night and many in the afternoon, an hour of it being as long as it takes to have the whole day's
releases fill a share of what the one worker can do. CLEANROOM_BENCH_RELEASES=N measures fewer.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figures import Row, summary
from installation import everything, fewer_releases, say

from cleanroom_base import run
from cleanroom_base.errors import TimedOut
from cleanroom_base.settings import Settings
from cleanroom_db import cluster, ref_events
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.ref_events import NewRef, RefDetails
from cleanroom_db.roles import Role
from cleanroom_db.states import TagKind
from cleanroom_master import supervisor
from cleanroom_master.refs import repositories
from cleanroom_master.web import plots

RELEASES = 2000
# A process that has grown by more than this share, from the beginning to the end, is marked.
GROWTH = 0.10
# What each hour of a working day brings, in parts of the whole.
_DAY = (1, 1, 1, 1, 1, 2, 3, 6, 10, 12, 12, 10, 8, 11, 13, 13, 12, 9, 6, 4, 3, 2, 2, 1)
_LOAD = 0.7
_PRODUCTS = ("short", "shorter", "shortest")
_RECIPE = 'builder = "script"\ncommands = ["echo done > result.txt"]\nartifacts = ["result.txt"]\n'
_WARMING = 12
_TIMEOUT = 1800.0
_LOOK = 0.5
_COMMAND = 60.0
_AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Bench"), ("EMAIL", "bench@example.invalid"))
}
_SVG = Path("endurance.svg")
# What a release leaves on the disk, by directory of the state.
_PLACES = ("artifacts", "buildbot", "logs", "mirrors", "postgresql", "repository", "run", "worker")
_ENDED = "('published', 'failed', 'held', 'cancelled', 'withdrawn')"


@dataclass
class Sample:
    """The memory of processes at a moment, in MiB: resident, and the proportional share of what is shared."""

    releases: int
    resident: dict[str, float] = field(default_factory=dict)
    share: dict[str, float] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)


def measure(runs: int | None = None) -> dict[str, Any]:
    """One day with so many releases."""
    releases = runs or fewer_releases() or RELEASES
    with everything() as settings:
        database = open_database(settings, Role.OWNER)
        day = _Day(settings, database)
        seconds = day.warm_up()
        say(f"endurance: {releases} releases; one takes {seconds:.2f} s where several are on their way")
        before = _left(settings, database)
        samples = day.go(releases, seconds)
        after = _left(settings, database)
        waits = day.waits()
        database.close()
    _SVG.write_text(drawn(samples))
    return {
        "day": {"releases": releases, "seconds_each": round(seconds, 2), "minutes": round(day.seconds / 60, 1)},
        "queue": [{"waits": "INSERT until a worker has it", **summary(waits)}],
        "memory": memory_rows(samples),
        "left": left_rows(before, after, releases),
        "samples": [vars(sample) for sample in samples],
    }


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    return [
        ("a day of releases", [measured["day"]]),
        ("how long they waited for a worker, in seconds", measured["queue"]),
        (f"memory in MiB (proportional share), see {_SVG}; more than {GROWTH:.0%} is marked", measured["memory"]),
        ("what a release leaves: rows, and KiB on the disk", measured["left"]),
    ]


def shares(releases: int) -> list[int]:
    """How many releases each hour of the day brings, all of them together."""
    whole = sum(_DAY)
    until = [round(releases * part / whole) for part in itertools.accumulate(_DAY)]
    return [here - before for before, here in itertools.pairwise([0, *until])]


def memory_rows(samples: Sequence[Sample]) -> list[Row]:
    """Each process at the beginning, in the middle and at the end. One that was started anew has no growth."""
    first, middle, last = samples[0], samples[len(samples) // 2], samples[-1]
    rows: list[Row] = []
    for name in sorted(first.share.keys() & middle.share.keys() & last.share.keys()):
        growth = last.share[name] / first.share[name] - 1 if first.share[name] else 0.0
        same = len({sample.processes.get(name) for sample in samples}) == 1
        rows.append(
            {
                "process": name,
                "resident": round(last.resident[name], 1),
                "beginning": round(first.share[name], 1),
                "middle": round(middle.share[name], 1),
                "end": round(last.share[name], 1),
                "growth": f"{growth:+.1%}" if same else "started anew",
                "grown": "yes" if same and growth > GROWTH else "",
            }
        )
    return rows


def left_rows(before: dict[str, int], after: dict[str, int], releases: int) -> list[Row]:
    """What grew, the most first, for one release."""
    grown = {name: (after[name] - before.get(name, 0)) / releases for name in after}
    ordered = sorted(grown.items(), key=lambda one: (not one[0].startswith("rows"), -one[1]))
    return [{"what": name, "each": round(value, 2)} for name, value in ordered if abs(value) >= 0.01]


def drawn(samples: Sequence[Sample]) -> str:
    """The memory of each process over the day, as SVG: one plot below the other."""
    names = sorted(set().union(*(sample.share for sample in samples)))
    height = plots.HEIGHT + 30
    parts = []
    for index, name in enumerate(names):
        plot = plots.dots([sample.share.get(name) for sample in samples])
        said = f"{name}: {plot.numbers.last or 0:.1f} MiB at the end, at most {plot.numbers.most or 0:.1f}"
        parts.append(
            f'<g transform="translate(0 {index * height})"><text y="20">{said}</text>'
            f'<g transform="translate(0 26)"><path d="M0 {plot.line}H{plots.WIDTH}" stroke="#bbb" fill="none"/>'
            f'<path d="{plot.path}" stroke="#06c" stroke-width="6" stroke-linecap="round" fill="none"/></g></g>'
        )
    size = f'viewBox="0 0 {plots.WIDTH} {height * len(names)}" width="{plots.WIDTH}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="14">'
    return f"{head}{''.join(parts)}</svg>\n"


class _Day:
    """Releases that are recorded as they come, and looked after."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._prefix = f"v{int(time.time())}"
        self._numbers = itertools.count(1)
        self._first_event: int | None = None
        # The installation stays from one measurement to the next.
        self._products = [f"{name}-{self._prefix}" for name in _PRODUCTS]
        self._commits = {name: self._watched(name) for name in self._products}
        self.seconds = 0.0

    def _watched(self, name: str) -> str:
        """A product with one commit, that has its recipe; its id."""
        tree = self._tree(name)
        tree.mkdir(parents=True)
        (tree / "cleanroom.toml").write_text(_RECIPE)
        self._git(name, "init", "--quiet", "--initial-branch=main")
        self._git(name, "add", ".")
        self._git(name, "commit", "--quiet", "--message", "Be short")
        repositories.add(self._settings, self._database, name, tree.as_uri(), tag_patterns=("v*",))
        return self._git(name, "rev-parse", "HEAD").strip()

    def _tree(self, name: str) -> Path:
        return self._settings.state / "endurance" / name

    def _git(self, name: str, *words: str) -> str:
        return run.run(["git", "-C", self._tree(name), *words], timeout=_COMMAND, environment=_AUTHOR).text

    def record(self, count: int) -> None:
        """So many tags at once, of all products in turns."""
        for _ in range(count):
            number = next(self._numbers)
            name = self._products[number % len(self._products)]
            tag = f"{self._prefix}.{number}"
            self._git(name, "tag", "--annotate", "--message", tag, tag)
            details = RefDetails(commit=self._commits[name], tag_kind=TagKind.ANNOTATED)
            new = [NewRef(tag, details)]
            [event] = ref_events.record_many(self._database, name, new, recorded_by="bench")
            self._first_event = self._first_event or event

    def warm_up(self) -> float:
        """Some releases that do not count; returns what one takes when several are on their way."""
        self.record(_WARMING // 2)
        self._wait()
        begun = time.monotonic()
        self.record(_WARMING)
        self._wait()
        self._first_event = None
        return (time.monotonic() - begun) / _WARMING

    def go(self, releases: int, each: float) -> list[Sample]:
        """The day; a sample of memory at its beginning and after each hour."""
        hour = releases * each / _LOAD / len(_DAY)
        samples = [self._sample(0)]
        begun, done = time.monotonic(), 0
        for index, count in enumerate(shares(releases)):
            for number in range(count):
                self._sleep_until(begun + hour * (index + number / count))
                self.record(1)
            self._sleep_until(begun + hour * (index + 1))
            done += count
            samples.append(self._sample(done))
            say(f"endurance: hour {index + 1} of {len(_DAY)}, {done} of {releases} recorded")
        self._wait()
        samples.append(self._sample(done))
        self.seconds = time.monotonic() - begun
        return samples

    @staticmethod
    def _sleep_until(moment: float) -> None:
        time.sleep(max(0.0, moment - time.monotonic()))

    def _wait(self) -> None:
        """Wait until all that was recorded has come to its end. Raises TimedOut."""
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            with self._database.transaction() as cursor:
                left = cursor.value(
                    "SELECT count(*) FROM cleanroom.ref_event AS event LEFT JOIN cleanroom.release"
                    " ON ref_event_id = event.id WHERE event.id >= %(first)s AND event.state <> 'ignored'"
                    f" AND (release.id IS NULL OR release.state NOT IN {_ENDED})",
                    first=self._first_event,
                )
            if left == 0:
                return
            time.sleep(_LOOK)
        raise TimedOut(f"{left} releases have not come to their end, see {self._settings.state / 'run'}")

    def waits(self) -> list[float]:
        """For each release, the seconds from its record until a worker had it."""
        with self._database.transaction() as cursor:
            rows = cursor.rows(
                "SELECT extract(epoch FROM attempt.started_at - event.recorded_at)::double precision AS waited"
                "  FROM cleanroom.ref_event AS event JOIN cleanroom.release ON ref_event_id = event.id"
                "  JOIN cleanroom.build ON build.release_id = release.id"
                "  JOIN cleanroom.attempt ON build_id = build.id AND attempt.number = 1"
                " WHERE event.id >= %(first)s AND attempt.started_at IS NOT NULL",
                first=self._first_event,
            )
        return [row["waited"] for row in rows]

    def _sample(self, releases: int) -> Sample:
        sample = Sample(releases)
        for name, process in _processes(self._settings).items():
            with contextlib.suppress(OSError, KeyError):
                sample.resident[name], sample.share[name] = memory(process)
                sample.processes[name] = process
        return sample


def memory(process: int) -> tuple[float, float]:
    """What a process has in memory, in MiB: resident, and its share. Source: /proc/PID/smaps_rollup, proc(5)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    found = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return found["Rss"] / 1024, found["Pss"] / 1024


def _processes(settings: Settings) -> dict[str, int]:
    """The processes that last, by their names."""
    found = {
        str(one["name"]): int(str(one["process"])) for one in supervisor.service_states(settings) if one["process"]
    }
    for name, number in (
        ("supervisor", supervisor.running(settings)),
        ("database", cluster.status(settings).process_id),
    ):
        if number is not None:
            found[name] = number
    with contextlib.suppress(OSError, ValueError):
        found["libvirtd"] = int((settings.runtime / "libvirt/libvirtd.pid").read_text(encoding="ascii"))
    return found


def _left(settings: Settings, database: Database) -> dict[str, int]:
    """How many rows each table has, and how many KiB each directory takes."""
    with database.transaction() as cursor:
        tables_of = cursor.rows(
            "SELECT schemaname AS schema, relname AS name FROM pg_stat_user_tables"
            " WHERE schemaname IN ('cleanroom', 'buildbot')"
        )
        rows = {
            f"rows of {row['schema']}.{row['name']}": int(
                cursor.value(f'SELECT count(*) FROM {row["schema"]}."{row["name"]}"')
            )
            for row in tables_of
        }
    return {**rows, **{f"KiB in {name}": _size(settings.state / name) for name in _PLACES}}


def _size(directory: Path) -> int:
    """What the files below a directory take on the disk, in KiB."""
    blocks = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                blocks += Path(place, name).lstat().st_blocks
    return math.ceil(blocks / 2)
