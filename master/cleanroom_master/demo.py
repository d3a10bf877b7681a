"""The demonstration: two products from a git tag through clean guests into a signed repository and a fresh guest.

It uses Cleanroom as a site would: repositories with a hook, products by `product add`, releases by pushing a
tag. A second run pushes a new version of each, which goes through the upgrade phase as well.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from cleanroom_base import run
from cleanroom_base.errors import InfrastructureError, InputError, ProductError, TimedOut
from cleanroom_base.settings import Settings
from cleanroom_db import products
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.roles import Role
from cleanroom_db.view import release_view
from cleanroom_images.catalogue import Catalogue
from cleanroom_master import supervisor
from cleanroom_master.consumer import Consumer, Installation
from cleanroom_master.logs import LogStore
from cleanroom_master.places import Places
from cleanroom_master.refs import repositories
from cleanroom_recipes import loader, places

IMAGE = "debian-12"
CHANNEL = "testing"
_LOOK = 0.5
_START_TIMEOUT = 180.0
_GIT_TIMEOUT = 300.0
_AUTHOR = {
    "GIT_AUTHOR_NAME": "Cleanroom demo",
    "GIT_AUTHOR_EMAIL": "demo@localhost.localdomain",
    "GIT_COMMITTER_NAME": "Cleanroom demo",
    "GIT_COMMITTER_EMAIL": "demo@localhost.localdomain",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}
_HOOK = """#!/bin/sh
# Tell Cleanroom of every tag that is pushed here.
while read -r old new ref; do
	case $ref in
	refs/tags/*) CLEANROOM_STATE='{state}' '{command}' ref record '{product}' "${{ref#refs/tags/}}" ;;
	esac
done
"""


@dataclass(frozen=True)
class Tagged:
    """A release that was pushed."""

    product: str
    tag: str
    version: str


class Demo:
    """One run of the demonstration."""

    def __init__(self, settings: Settings, *, timeout: float, say: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._deadline = time.monotonic() + timeout
        self._say = say or _say
        self._home = settings.state / "demo"

    def run(self) -> None:
        """Do everything. Raises CleanroomError that says which part failed, with the end of its log."""
        self._require_image()
        if supervisor.running(self._settings) is None and not supervisor.service_states(self._settings):
            self._say("starting Cleanroom: database, ref watch, master, worker, publisher, repository")
            supervisor.start_in_background(self._settings, timeout=_START_TIMEOUT)
        database = open_database(self._settings, Role.OWNER)
        self._say("preparing two products: tally (ours, as deb and rpm) and Debian's hello")
        # The longest first, so that nothing waits for it at the end.
        prepared = [self.hello(), self.tally()]
        for repository in prepared:
            self.watch(database, repository)
        pushed = [repository.release() for repository in prepared]
        for one in pushed:
            self._say(f"pushed {one.product} {one.tag}")
        self._follow(database, pushed)
        installed = self._install()
        self._tell(self._tried(database, pushed), installed)

    def _require_image(self) -> None:
        Catalogue.of(self._settings).image(IMAGE)

    def tally(self) -> DemoRepository:
        """The small C product that comes with Cleanroom, in a repository of its own."""
        return DemoRepository(
            self._settings, self._home, "tally", lambda tree: shutil.copytree(places.products() / "tally", tree), "v"
        )

    def hello(self) -> DemoRepository:
        """Debian's hello, its source package imported into a repository."""
        return DemoRepository(self._settings, self._home, "hello", self._fetch_hello, "debian/")

    def _fetch_hello(self, tree: Path) -> None:
        image = Catalogue.of(self._settings).image(IMAGE)
        assert image.tree is not None
        fetch_source("hello", tree, of=image.tree, work=self._home / "fetch")

    def watch(self, database: Database, repository: DemoRepository) -> None:
        """Record the repository as a product, unless it is one."""
        try:
            if products.get(database, repository.name).removed_at is None:
                return
        except InputError:
            pass
        shipped = places.products() / f"{repository.name}.toml"
        recipe = loader.read(shipped, name=repository.name, url=repository.url) if shipped.exists() else None
        repositories.add(
            self._settings,
            database,
            repository.name,
            repository.url,
            recipe=None if recipe is None else loader.to_json(recipe),
            tag_patterns=("*",) if recipe is None else recipe.tags,
        )

    def _follow(self, database: Database, pushed: Sequence[Tagged]) -> None:
        """Show what happens until everything is published."""
        said: dict[tuple[str, str], str] = {}
        while True:
            views = [view for one in pushed if (view := _view(database, one)) is not None]
            for view in views:
                self._say_news(view, said)
            if len(views) == len(pushed) and all(view["published"] for view in views):
                return
            for view in views:
                if view["state"] in ("failed", "held", "cancelled", "withdrawn"):
                    raise self._failure(view)
            if time.monotonic() > self._deadline:
                states = ", ".join(
                    f"{view['product']} {view['ref']}: {view['state']} ({view['why']})" for view in views
                )
                raise TimedOut(
                    f"the demonstration took too long: {states}", hint="cleanroom status, cleanroom release show"
                )
            time.sleep(_LOOK)

    def _say_news(self, view: Mapping[str, Any], said: dict[tuple[str, str], str]) -> None:
        name = f"{view['product']} {view['ref']}"
        for build in view["builds"]:
            for phase in build["phases"]:
                key = (f"{name} {build['target']} {build['attempt']}", phase["name"])
                news = _progress(phase)
                if said.get(key) != news:
                    said[key] = news
                    self._say(f"{name:<24} {build['target']:<14} {phase['name']:<8} {news}")
        for published in view["published"]:
            key = (name, published["channel"])
            if key not in said:
                said[key] = "published"
                self._say(f"{name:<24} published in {published['channel']}, generation {published['generation']}")

    def _failure(self, view: Mapping[str, Any]) -> ProductError | InfrastructureError:
        lines = [f"{view['product']} {view['ref']} is {view['state']}: {view['why']}"]
        logs = LogStore(Places(self._settings).logs)
        for build in view["builds"]:
            for phase in build["phases"]:
                for step in phase["steps"]:
                    if step["outcome"] not in (None, "passed", "skipped") and step["log"]["sha256"]:
                        text = logs.read(step["log"]["sha256"]).decode(errors="replace").splitlines()[-25:]
                        lines += [f"the end of the log of {build['target']} {phase['name']} {step['name']}:", *text]
        kind = ProductError if view["state"] == "failed" else InfrastructureError
        return kind("\n".join(lines))

    def _install(self) -> list[Installation]:
        """Be a consumer, twice: with apt and with dnf, in fresh guests."""
        self._say("installing from the repository in fresh guests, as its page says: apt and dnf")
        consumer = Consumer(self._settings, image=IMAGE, channel=CHANNEL)
        try:
            with ThreadPoolExecutor(2) as pool:
                by_apt = pool.submit(consumer.apt, ["hello", "tally"], [["hello"], ["tally", "--version"]])
                by_dnf = pool.submit(consumer.dnf, ["tally"], [["tally", "--version"]])
                return [by_apt.result(), by_dnf.result()]
        finally:
            consumer.close()

    def _tried(self, database: Database, pushed: Sequence[Tagged]) -> list[Mapping[str, Any]]:
        """The releases, once the canary has installed them too, or the time is over."""
        while True:
            views = [view for one in pushed if (view := _view(database, one)) is not None]
            told = [(view, one) for view in views for one in view["canaries"]]
            if all(one["state"] not in ("waits", "leaving") for _, one in told) or time.monotonic() > self._deadline:
                for view, one in told:
                    self._say(f"{view['product']} {view['ref']}: canary: {one['said']}")
                return views
            time.sleep(_LOOK)

    def _tell(self, views: Sequence[Mapping[str, Any]], installed: Sequence[Installation]) -> None:
        from cleanroom_master.cli.frame import table

        apt_seconds = installed[0].seconds
        rows = [time_line(view, apt_seconds) for view in views]
        self._say("")
        sys.stdout.write(table(rows, ["release", *(name for name in rows[0] if name != "release")]) + "\n\n")
        for one in installed:
            packages = " ".join(one.packages)
            sys.stdout.write(f"{one.client} installed {packages} in {one.seconds:.1f} s; the programs say:\n")
            sys.stdout.write("".join(f"  {line}\n" for line in one.printed.splitlines()))
        sys.stdout.write(
            f"\nweb         {self._settings.web_url}/\nrepository  {self._settings.repository_url}/\n"
            f"buildbot    {self._settings.buildbot_url}/\n"
            f"look        .venv/bin/cleanroom status\nstop        .venv/bin/cleanroom down\n"
        )


class DemoRepository:
    """A bare git repository with a hook, and the tree from which the demonstration pushes to it."""

    def __init__(self, settings: Settings, home: Path, name: str, fetch: Callable[[Path], object], prefix: str) -> None:
        self.name = name
        self._prefix = prefix
        self._tree = home / name
        self._bare = home / f"{name}.git"
        self._settings = settings
        if not self._bare.is_dir():
            self._create(fetch)

    @property
    def url(self) -> str:
        """Its address."""
        return self._bare.as_uri()

    def release(self) -> Tagged:
        """Push the next version: the one that the tree has at first, later a new one made from it."""
        count = len(self._git("tag", "--list").text.split())
        if count:
            self._raise_version(count + 1)
        version = self._version()
        tag = self._prefix + version.replace("~", "_").replace(":", "%")
        self._git("tag", "--annotate", "--message", f"{self.name} {version}", tag)
        self._git("push", "--quiet", "origin", "main", tag)
        return Tagged(self.name, tag, version)

    def _create(self, fetch: Callable[[Path], object]) -> None:
        shutil.rmtree(self._tree, ignore_errors=True)
        self._tree.parent.mkdir(parents=True, exist_ok=True)
        fetch(self._tree)
        fresh = self._bare.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        run.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", fresh], timeout=_GIT_TIMEOUT)
        hook = fresh / "hooks" / "post-receive"
        command = Path(sysconfig.get_path("scripts")) / "cleanroom"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(_HOOK.format(state=self._settings.state, command=command, product=self.name))
        hook.chmod(0o755)
        self._git("init", "--quiet", "--initial-branch=main")
        self._git("remote", "add", "origin", str(self._bare))
        packaged = (self._tree / "debian").is_dir() and self.name == "hello"
        if packaged:
            # As far as one source package tells the history: the upstream release, then Debian's packaging.
            self._git("add", "--force", "--", ".", ":!debian")
            self._git("commit", "--quiet", "--message", f"Import upstream release of {self.name}")
        self._git("add", "--force", ".")
        self._git("commit", "--quiet", "--message", f"Import {self.name} {self._version()}")
        fresh.rename(self._bare)
        self._git("push", "--quiet", "origin", "main")

    def _version(self) -> str:
        changelog = self._tree / "debian" / "changelog"
        return run.run(["dpkg-parsechangelog", "--file", changelog, "--show-field", "Version"], timeout=60).text.strip()

    def _raise_version(self, number: int) -> None:
        old = self._version()
        if self.name == "hello":
            new = f"{old.partition('+demo')[0]}+demo{number}"
        else:
            new = f"1.0.{number}"
            for file, pattern in (
                ("Makefile", r"^(VERSION = ).*$"),
                ("tally.spec", r"^(Version:\s*).*$"),
            ):
                path = self._tree / file
                path.write_text(re.sub(pattern, rf"\g<1>{new}", path.read_text(), flags=re.MULTILINE))
        changelog = self._tree / "debian" / "changelog"
        moment = format_datetime(datetime.now(UTC))
        entry = (
            f"{self.name} ({new}) unstable; urgency=medium\n\n  * Another release for the demonstration.\n\n"
            f" -- Cleanroom demo <demo@localhost.localdomain>  {moment}\n\n"
        )
        changelog.write_text(entry + changelog.read_text())
        self._git("commit", "--quiet", "--all", "--message", f"Release {new}")

    def _git(self, *words: str) -> run.Completed:
        return run.run(["git", "-C", self._tree, *words], timeout=_GIT_TIMEOUT, environment=_AUTHOR)


def fetch_source(package: str, tree: Path, *, of: Path, work: Path) -> None:
    """Unpack a Debian source package into `tree`, its patches not applied.

    It comes from the mirror that the root file system `of` uses, and is of that Debian. `work` is a directory
    that may be removed. Raises InfrastructureError.
    """
    shutil.rmtree(work, ignore_errors=True)
    for directory in ("lists/partial", "archives/partial", "source"):
        (work / directory).mkdir(parents=True)
    listed = (of / "etc/apt/sources.list").read_text()
    (work / "sources.list").write_text(re.sub(r"^deb ", "deb-src ", listed, flags=re.MULTILINE))
    options = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::trustedparts": of / "etc/apt/trusted.gpg.d",
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work,
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", *(f"-o{key}={value}" for key, value in options.items())]
    run.run([*apt, "update"], timeout=_GIT_TIMEOUT)
    run.run([*apt, "source", "--download-only", package], timeout=_GIT_TIMEOUT, cwd=work / "source")
    (description,) = (work / "source").glob("*.dsc")
    run.run(["dpkg-source", "--skip-patches", "--no-check", "--extract", description, tree], timeout=_GIT_TIMEOUT)
    shutil.rmtree(work)


def time_line(view: Mapping[str, Any], installed: float) -> dict[str, object]:
    """Where the time of a release went, in seconds: waiting, resets, kinds of steps over all builds, publication.

    `total` is from the record of the tag to its publication; builds run side by side, so the parts may sum to more.
    `canary` is from then until consumers had installed it (None: not yet, or nobody does).
    """
    steps: dict[str, float] = {"update": 0.0, "dependencies": 0.0, "build": 0.0, "tests": 0.0}
    resets = 0.0
    for build in view["builds"]:
        for phase in build["phases"]:
            resets += phase["reset_seconds"] or 0.0
            for step in phase["steps"]:
                kind = step["name"] if step["name"] in ("update", "dependencies") else "tests"
                if kind == "tests" and phase["name"] == "build":
                    kind = "build"
                steps[kind] += step["seconds"] or 0.0
    recorded, claimed = _moment(view["recorded_at"]), _moment(view["claimed_at"])
    finished, published = _moment(view["finished_at"]), _moment(view["published"][0]["at"])
    tried = [one["finished_at"] for one in view["canaries"]]
    return {
        "release": f"{view['product']} {view['ref']}",
        "recorded": (claimed - recorded).total_seconds(),
        "reset": resets,
        **steps,
        "published": (published - finished).total_seconds(),
        "installed": installed,
        "total": (published - recorded).total_seconds(),
        "canary": max(((_moment(one) - published).total_seconds() for one in tried if one), default=None),
    }


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _view(database: Database, one: Tagged) -> Mapping[str, Any] | None:
    try:
        return release_view(database, one.product, one.tag)
    except InputError:
        return None


def _progress(phase: Mapping[str, Any]) -> str:
    if phase["outcome"] is not None:
        tests = phase["tests"]
        counted = f", tests {tests['passed']} passed {tests['failed']} failed" if any(tests.values()) else ""
        why = f": {phase['why']}" if phase["why"] else ""
        return f"{phase['outcome']} after {phase['seconds'] or 0:.1f} s{counted}{why}"
    if phase["steps"]:
        return f"{phase['steps'][-1]['name']} ..."
    return "getting a clean guest ..."


def _say(line: str) -> None:
    sys.stdout.write(f"{datetime.now().astimezone():%H:%M:%S}  {line}\n" if line else "\n")
    sys.stdout.flush()
