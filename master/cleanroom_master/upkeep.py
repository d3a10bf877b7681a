"""The repository's upkeep: is it still what was published, and what of it does nobody need any more.

What somebody edited by hand is made anew from the pool and the kept artifacts, in a new generation. What no
generation has goes, after the time that is promised to readers of older ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from cleanroom_base.errors import InputError, Problem
from cleanroom_base.settings import Settings
from cleanroom_db import generations, requests
from cleanroom_db.connection import Database
from cleanroom_db.generations import ChannelPackage, Leaving
from cleanroom_db.requests import Request
from cleanroom_db.states import Removal, RequestState
from cleanroom_master import attesting, retention, stores
from cleanroom_master.files import FileStore
from cleanroom_master.making import Change, make, published
from cleanroom_master.publish.repository import Collected, Repository
from cleanroom_master.retention import Rule

# So many differences are kept with a request: its row is read by people.
_TOLD = 1000


@dataclass(frozen=True)
class Keeping:
    """What a site keeps: so many generations at least, all of the last `grace`, and of channels what rules say."""

    generations: int = 32
    grace: timedelta = timedelta(days=3)
    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Keeping:
        """As the site's settings say."""
        return cls(
            settings.whole("repository.keep"),
            timedelta(hours=settings.number("repository.grace")),
            retention.rules(settings),
        )


def verify(database: Database, repository: Repository, request: Request) -> None:
    """Look at every file of the current generation, and say in the request what differs. Raises InputError."""
    current = _current(repository)
    problems = _differences(database, repository, current)
    result = {"generation": current, "problems": _told(problems)}
    requests.finish(database, request.id, RequestState.DONE, "", result)


def repair(database: Database, repository: Repository, files: FileStore, request: Request) -> None:
    """Make what differs anew; what cannot be had again is said. Raises InputError."""
    current = _current(repository)
    problems = _differences(database, repository, current)
    if not problems:
        requests.finish(database, request.id, RequestState.DONE, "", {"generation": current, "problems": []})
        return
    left = list(_mend(database, repository, files, current))
    result = {"generation": current, "problems": _told(problems), "left": _told(left)}
    if left:
        # A generation with a broken package in it would not pass its verification.
        requests.finish(database, request.id, RequestState.DONE, "", result)
        return
    requests.note(database, request.id, "", result)
    reason = f"made anew, since {len(problems)} files were not as they were published"
    make(database, repository, Change(actor=request.actor, reason=reason, request=request.id, anew=True))


def _mend(database: Database, repository: Repository, files: FileStore, current: int) -> Iterable[Problem]:
    """Bring back packages whose files differ, and what is beside them; gives those that are gone for good."""
    yield from attesting.mend(database, repository, files, current)
    for package in generations.contents(database, current):
        kept = files.path(package.built_sha256)
        if not repository.mend(published(package), kept if kept.is_file() else None):
            yield Problem(
                package.file,
                f"neither the pool nor the artifacts have its bytes (sha256 {package.sha256}):"
                " bring them back from a mirror, or withdraw its release",
            )


def collect(database: Database, repository: Repository, keeping: Keeping, *, dry: bool = False) -> Collected:
    """Remove what nobody needs, or (`dry`) only say what that is.

    It may be killed at any point: the next time goes on with it. Raises InputError while a backup is being made.
    """
    with stores.removal(repository.directory.parent) as may:
        if not may and not dry:
            raise InputError("a backup is being made: nothing is removed meanwhile", hint="try again when it is done")
        return _collect(database, repository, keeping, dry=dry)


def _collect(database: Database, repository: Repository, keeping: Keeping, *, dry: bool) -> Collected:
    current = repository.current()
    if current is None:
        return Collected((), 0, 0)
    # Those that were current within the time that is promised, for readers that began with them.
    young = generations.shown_within(database, keeping.grace)
    stay = {*repository.numbers()[: keeping.generations], *young, current}
    gone = repository.remove_generations(keep=stay, dry=dry)
    needed = generations.needed(database, oldest=min(stay), grace=keeping.grace)
    look = repository.unneeded if dry else repository.remove_unneeded
    files, size = look(map(published, needed), {one.built_sha256 for one in needed}, older_than=keeping.grace)
    return Collected(gone, files, size)


def collect_on_request(database: Database, repository: Repository, keeping: Keeping, request: Request) -> None:
    """Collect because somebody asked for it, and say what went; with the parameter `dry`, what would go."""
    found = collect(database, repository, keeping, dry=request.parameters.get("dry") is True)
    result = {"generations": list(found.generations), "files": found.files, "size": found.size}
    requests.finish(database, request.id, RequestState.DONE, "", result)


def renew(database: Database, repository: Repository) -> bool:
    """Sign everything anew in time, where signatures are valid for so long only; says whether that was due."""
    due = repository.must_sign_anew()
    if due:
        make(database, repository, Change("publisher", "signed anew before its validity ends", sign_anew=True))
    return due


def retire(database: Database, repository: Repository, rules: Iterable[Rule]) -> int:
    """Take out of the channels what their rules keep no more; returns how many packages went."""
    current = repository.current()
    if current is None:
        return 0
    removed: list[ChannelPackage] = []
    leaving: list[Leaving] = []
    for rule in rules:
        old = retention.surplus(rule, generations.aged(database, rule.channel), generations.builds(database, "stable"))
        gone = [one.package for one in old]
        removed += gone
        ids = generations.emptied(database, rule.channel, [package.id for package in gone])
        leaving.append(Leaving(Removal.RETENTION, f"retired: {rule.words}", tuple(ids)))
    if removed:
        names = ", ".join(rule.words for rule in rules)
        make(database, repository, Change("publisher", f"retention: {names}", removed=removed, leaving=leaving))
    return len(removed)


def _differences(database: Database, repository: Repository, current: int) -> list[Problem]:
    return [*repository.verify(current), *attesting.problems(database, repository, current)]


def _current(repository: Repository) -> int:
    current = repository.current()
    if current is None:
        raise InputError("nothing is published yet")
    return current


def _told(problems: list[Problem]) -> list[dict[str, str]]:
    return [{"place": problem.place, "message": problem.message} for problem in problems[:_TOLD]]
