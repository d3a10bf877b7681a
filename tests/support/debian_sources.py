"""Debian's own source packages as products: fetched, watched, tagged, and changed as a packager changes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from git_repository import Repository
from live_site import LiveSite
from surroundings import IMAGE

from cleanroom_images.catalogue import Catalogue
from cleanroom_master.demo import fetch_source
from cleanroom_master.logs import LogStore

_ENTRY = """{name} ({version}) bookworm; urgency=medium

  * {what}

 -- Nobody <nobody@example.org>  Sat, 31 Jan 2026 12:00:00 +0000

"""
# lintian says nothing about tests, and to install it takes longer than to build a small package.
_DEB = 'builder = "deb"\n{more}[phases.build]\nwithout = ["lint"]\n{tables}'
_REPRODUCIBLE = 'gates = ["reproducible"]\n'
RECIPES = {
    # It is looked at as a regression: built once more when it fails is enough for that.
    "cjson": _DEB.format(more="replays = 1\n", tables=""),
    "datefudge": _DEB.format(more=_REPRODUCIBLE, tables=""),
    # By itself pytest prints one dot a test. What autopkgtest runs are the same tests again.
    "jinja2": _DEB.format(more="", tables='[environment]\nPYTEST_ADDOPTS = "-v"\n[phases.regress]\nenabled = false\n'),
    # It is about bytes: what its tests say of open files in a container is another thing.
    "lsof": _DEB.format(more=_REPRODUCIBLE, tables='[environment]\nDEB_BUILD_OPTIONS = "nocheck"\n'),
}
_OTHERS = _DEB.format(more="", tables="")


@dataclass(frozen=True)
class Source:
    """A source package in a repository that is watched; `tag` is the release that Debian made."""

    name: str
    repository: Repository
    version: str
    tag: str

    def change(self, version: str, what: str) -> str:
        """Commit what is changed as a new version of the package, and return its tag."""
        changelog = self.repository.path / "debian" / "changelog"
        entry = _ENTRY.format(name=self.name, version=version, what=what)
        changelog.write_text(entry + changelog.read_text())
        self.repository.git("commit", "--quiet", "--all", f"--message={what}")
        tag = f"debian/{version}"
        self.repository.tag(tag)
        return tag


@dataclass(frozen=True)
class Case:
    """A test case as it is recorded; `said` is the line of the step's log that is its place."""

    phase: str
    step: str
    name: str
    outcome: str
    said: str | None


def add_source(site: LiveSite, name: str, place: Path) -> Source:
    """Fetch a source package of the image's Debian, and have its repository watched; the tag is pushed."""
    image = Catalogue(site.state).image(IMAGE)
    assert image.tree is not None
    tree, file = place / name, place / f"{name}.toml"
    fetch_source(name, tree, of=image.tree, work=place / "work")
    file.write_text(RECIPES.get(name, _OTHERS))
    repository = site.product(name, tree, "--file", str(file))
    version = (tree / "debian/changelog").read_text().partition("(")[2].partition(")")[0]
    # As DEP-14 writes a version in a tag.
    tag = f"debian/{version.replace('~', '_').replace(':', '%')}"
    repository.tag(tag)
    return Source(name, repository, version, tag)


def recorded_cases(site: LiveSite, product: str, ref: str) -> list[Case]:
    """All cases of the first runs of a release's phases, each with what the log has at its place."""
    rows = site.sql(
        "SELECT phase.name, test_case.step, test_case.name, test_case.outcome, test_case.line, step.log_sha256"
        " FROM cleanroom.test_case JOIN cleanroom.phase ON phase.id = test_case.phase_id"
        " JOIN cleanroom.step ON step.phase_id = phase.id AND step.name = test_case.step"
        " JOIN cleanroom.attempt ON attempt.id = attempt_id JOIN cleanroom.build ON build.id = build_id"
        " JOIN cleanroom.release ON release.id = release_id"
        " WHERE product = %s AND ref = %s AND phase.replay = 0 ORDER BY test_case.id",
        product,
        ref,
    )
    store = LogStore(site.state / "logs")
    logs = {
        sha256: store.read(sha256).decode(errors="replace").split("\n") for sha256 in {row[5] for row in rows} - {None}
    }
    return [
        Case(phase, step, name, outcome, logs[sha256][line - 1] if line is not None and sha256 in logs else None)
        for phase, step, name, outcome, line, sha256 in rows
    ]


class Sources:
    """The source packages that are products already, each fetched and tagged once."""

    def __init__(self, site: LiveSite, place: Path) -> None:
        self._site = site
        self._place = place
        self._known: dict[str, Source] = {}

    def get(self, name: str) -> Source:
        """A source package, with the tag of Debian's release on its way."""
        if name not in self._known:
            self._known[name] = add_source(self._site, name, self._place)
        return self._known[name]
