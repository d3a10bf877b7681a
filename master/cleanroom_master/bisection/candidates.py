"""What may be the first bad one, along each axis: commits, images, or states of the packages that builds had."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from cleanroom_base.errors import InfrastructureError, InputError, Problem
from cleanroom_base.settings import Settings
from cleanroom_db import bisections, releases
from cleanroom_db.bisections import NewCandidate, PackageList, UsedImage
from cleanroom_db.connection import Database
from cleanroom_images.store import Store
from cleanroom_master.files import FileStore
from cleanroom_master.publish import control
from cleanroom_master.refs import history
from cleanroom_master.refs.history import PastCommit
from cleanroom_recipes import names
from cleanroom_recipes.codec import to_plain
from cleanroom_recipes.conditions import Conditions

# Of a list of packages, which came out of a guest: bytes and packages.
_LIST_LIMIT = 2 << 20
_MOST_PACKAGES = 5000
_SHOWN = 3
_DIGEST = re.compile(r"[0-9a-f]{8,64}")
# Source: deb-buildinfo(5), Installed-Build-Depends.
_INSTALLED = re.compile(r"([a-z0-9][a-z0-9+.-]+)(?::[a-z0-9-]+)? \(= (\S+)\)")


def commits(settings: Settings, product: str, good: str, bad: str) -> list[NewCandidate]:
    """The commits after `good` up to `bad`, with all that was merged.

    Raises InputError if `good` is no ancestor of `bad`, InfrastructureError when a commit is not to be had.
    """
    if good == bad:
        raise InputError(f"the good one and the bad one are the same commit {good}")
    if not history.precedes(settings, product, good, bad):
        mixed_up = history.precedes(settings, product, bad, good)
        raise InputError(
            f"the good commit {good} is no ancestor of the bad one {bad}"
            + (": it is the other way round" if mixed_up else ""),
            hint="exchange --good and --bad" if mixed_up else "name a commit from which the bad one was made",
        )
    found = history.between(settings, product, good, bad)
    places = {one.commit: position for position, one in enumerate(found, 1)}
    return [
        _commit(history.get(settings, product, good), ()),
        *(_commit(one, sorted({places.get(parent, 0) for parent in one.parents})) for one in found),
    ]


def _commit(one: PastCommit, parents: Sequence[int]) -> NewCandidate:
    return NewCandidate(
        one.commit, one.commit, parents, author=one.author, dated_at=one.authored_at, subject=one.subject
    )


def images(
    settings: Settings, database: Database, product: str, commit: str, image: str, ends: tuple[str, str]
) -> list[NewCandidate]:
    """The digests of an image that builds ran with, from that of the good end to that of the bad one.

    An end is a release, the beginning of a digest, or a time. Raises InputError if they are not two images that are
    both kept.
    """
    used = bisections.used_images(database, image)
    good, bad = _places("images", ends, lambda end: _image_place(database, product, image, used, end))
    store = Store(settings.state)
    # The images of other hosts are theirs to know.
    known = store.digest(image) is not None
    found = [
        NewCandidate(
            one.digest,
            commit,
            (position - 1,) if position else (),
            to_plain(Conditions(image_digest=one.digest)),
            dated_at=one.at,
            subject=f"{image}, first used {one.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            problem=f"the image {one.digest[:12]} is not kept any more"
            if known and not _kept(store, image, one)
            else None,
        )
        for position, one in enumerate(used[good : bad + 1])
    ]
    _require_ends(found)
    return found


def _kept(store: Store, image: str, used: UsedImage) -> bool:
    try:
        store.image(image, used.digest)
    except InfrastructureError:
        return False
    return True


def _image_place(database: Database, product: str, image: str, used: Sequence[UsedImage], end: str) -> int:
    digests = [one.digest for one in used]
    if _DIGEST.fullmatch(end) and any(digest.startswith(end) for digest in digests):
        return next(place for place, digest in enumerate(digests) if digest.startswith(end))
    time = _time(end)
    if time is not None:
        return _last_before(time, [one.at for one in used], f"no build ran with {image}")
    release = releases.find(database, product, end)
    own = bisections.used_images(database, image, release.id)
    if not own:
        raise InputError(f"no phase of {product} {end} ran in a guest of {image}")
    return digests.index(own[-1].digest)


@dataclass(frozen=True)
class _State:
    """A state of the packages that was recorded; `read` gives them, or what is wrong with them."""

    attempt: int
    at: datetime
    release_id: int | None
    ref: str
    read: Callable[[], tuple[Mapping[str, str], str | None]]


def package_states(
    settings: Settings,
    database: Database,
    product: str,
    commit: str,
    target: str,
    ends: tuple[str, str],
    phase: str | None = None,
) -> list[NewCandidate]:
    """The states of the packages that were recorded, from that of the good end to that of the bad one.

    Those are the states in which runs of a `phase` ended, in releases and in nights. Where these do not differ, and for
    a phase that builds (None), they are what builds list in their .buildinfo. An end is a release or a time. Raises
    InputError if they are not two different states.
    """
    listed = _listed(settings, database, product, target)
    ended = _ended(database, product, target, phase) if phase is not None else []
    for states in filter(None, (ended, listed)):
        try:
            return _between(database, product, commit, target, ends, states)
        except InputError:
            if states is listed or not listed:
                raise
    return _between(database, product, commit, target, ends, listed)


def _between(
    database: Database, product: str, commit: str, target: str, ends: tuple[str, str], states: Sequence[_State]
) -> list[NewCandidate]:
    good, bad = _places(
        "states of the packages", ends, lambda end: _state_place(database, product, target, states, end)
    )
    found: list[NewCandidate] = []
    before: Mapping[str, str] = {}
    for one in states[good : bad + 1]:
        packages, problem = one.read()
        if found and problem is None and packages == before and one is not states[bad]:
            continue
        difference = changes(before, packages) if before and packages else ""
        found.append(
            NewCandidate(
                f"attempt {one.attempt}",
                commit,
                (len(found) - 1,) if found else (),
                to_plain(Conditions(packages=packages)),
                dated_at=one.at,
                subject=f"{one.ref}: {difference or f'{len(packages)} packages'}",
                problem=problem,
            )
        )
        before = packages or before
    _require_ends(found)
    if found[0].conditions == found[-1].conditions:
        raise InputError(f"{ends[0]} and {ends[1]} of {product} had the same packages")
    return found


def _state_place(database: Database, product: str, target: str, states: Sequence[_State], end: str) -> int:
    time = _time(end)
    if time is not None:
        otherwise = f"no build of {product} for {target} said which packages it had"
        return _last_before(time, [one.at for one in states], otherwise)
    release = releases.find(database, product, end)
    places = [place for place, one in enumerate(states) if one.release_id == release.id]
    if not places:
        raise InputError(
            f"the build of {product} {end} for {target} left no list of its packages (.buildinfo)",
            hint="builders deb and rpm leave one",
        )
    return places[-1]


def _ended(database: Database, product: str, target: str, phase: str) -> list[_State]:
    """What was installed when runs of a phase had ended, but for what the product itself made."""
    own = bisections.own_packages(database, product)

    @functools.cache
    def read(digest: str) -> tuple[Mapping[str, str], str | None]:
        # Of rpm packages there is no step that has exact versions installed.
        packages = {
            name: version
            for name, version in bisections.packages_of(database, digest).items()
            if name not in own and names.is_name(names.DEBIAN_PACKAGE, name)
        }
        return packages, None if packages else "no package of Debian is known of it"

    found = bisections.package_states(database, product, target, phase)
    return [_State(one.attempt, one.at, one.release_id, one.ref, partial(read, one.digest)) for one in found]


def _listed(settings: Settings, database: Database, product: str, target: str) -> list[_State]:
    """What builds say in their .buildinfo."""
    files = FileStore(settings.state / "artifacts")
    found = bisections.package_lists(database, product, target)
    return [_State(one.attempt, one.at, one.release_id, one.ref, partial(_read, files, one)) for one in found]


def _read(files: FileStore, one: PackageList) -> tuple[Mapping[str, str], str | None]:
    """The packages of a list with their versions, or what is wrong with it."""
    try:
        if one.size > _LIST_LIMIT:
            raise InputError(f"it has {one.size} bytes, {_LIST_LIMIT} are the limit")
        return installed(files.path(one.sha256).read_bytes()), None
    except (InputError, OSError) as error:
        return {}, f"the list of the packages of attempt {one.attempt} cannot be read: {error}"


def installed(content: bytes) -> dict[str, str]:
    """The packages that a build had, by name, from its .buildinfo. Raises InputError."""
    fields = {name.lower(): value for name, value in control.parse(content).items()}
    entries = [entry.strip() for entry in fields.get("installed-build-depends", "").split(",")]
    packages: dict[str, str] = {}
    for entry in filter(None, entries):
        matched = _INSTALLED.fullmatch(entry)
        if matched is None or not names.is_name(names.DEBIAN_PACKAGE, matched[1]):
            raise InputError(f"{entry[:80]!r} is no package with its version")
        if not names.is_name(names.VERSION, matched[2]):
            raise InputError(f"{entry[:80]!r} has no valid version")
        packages[matched[1]] = matched[2]
    if not 0 < len(packages) <= _MOST_PACKAGES:
        raise InputError(f"it lists {len(packages)} packages")
    return packages


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """What became of packages, in words."""
    told = [
        f"{name} {before.get(name, 'new')} -> {after.get(name, 'gone')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return ", ".join(told[:_SHOWN]) + more


def _places(what: str, ends: tuple[str, str], place: Callable[[str], int]) -> tuple[int, int]:
    """Where the two ends are. Raises InputError with what is wrong with each."""
    found: list[int] = []
    problems: list[Problem] = []
    for option, end in zip(("--good", "--bad"), ends, strict=True):
        try:
            found.append(place(end))
        except InputError as error:
            problems.append(Problem(option, error.message))
    if problems:
        raise InputError(f"there are no {what} to search", problems=problems)
    good, bad = found
    if good >= bad:
        raise InputError(
            f"there are no {what} recorded between {ends[0]} and {ends[1]}: "
            + ("both have the same" if good == bad else "the good one is the later one")
        )
    return good, bad


def _require_ends(found: Sequence[NewCandidate]) -> None:
    """Raise InputError if an end cannot be judged."""
    problems = [
        Problem(option, one.problem)
        for option, one in (("--good", found[0]), ("--bad", found[-1]))
        if one.problem is not None
    ]
    if problems:
        raise InputError("an end cannot be built again", problems=problems)


def _time(text: str) -> datetime | None:
    """A time or a day (in UTC), None for what is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _last_before(time: datetime, times: Sequence[datetime], otherwise: str) -> int:
    places = [place for place, at in enumerate(times) if at <= time]
    if not places:
        raise InputError(f"{otherwise} before {time.isoformat()}")
    return places[-1]
