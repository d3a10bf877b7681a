"""What is new in a repository: its refs compared with those that were recorded. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from cleanroom_base.errors import InputError
from cleanroom_db.ref_events import NewRef, RefDetails
from cleanroom_db.states import RefChange, RefEventState
from cleanroom_master.refs import names
from cleanroom_master.refs.mirror import RemoteRef
from cleanroom_recipes.model import RefKind

BASELINE = "it was there before the product was watched"

Told = Mapping[str, RefDetails | InputError]


def matching(tags: Mapping[bytes, RemoteRef], patterns: Iterable[str]) -> dict[str, tuple[bytes, RemoteRef]]:
    """The tags that one of the patterns names, by the name under which they are recorded."""
    wanted = tuple(patterns)
    return {
        names.readable(name): (name, remote)
        for name, remote in tags.items()
        if any(fnmatchcase(name.decode(errors="surrogateescape"), pattern) for pattern in wanted)
    }


def unseen(tags: Mapping[str, tuple[bytes, RemoteRef]], seen: Mapping[str, str | None]) -> dict[str, RemoteRef]:
    """The tags that are new or moved and have a name that may become a release: these must be fetched."""
    return {
        ref: remote
        for ref, (name, remote) in tags.items()
        if seen.get(ref) != remote.commit and names.problem(name) is None
    }


def undisturbed(
    tags: Mapping[str, tuple[bytes, RemoteRef]], before: Mapping[str, str | None], seen: Mapping[str, str | None]
) -> tuple[dict[str, tuple[bytes, RemoteRef]], dict[str, str | None]]:
    """`tags` and what was `seen` of them, without those that another recorder wrote of since `before`.

    It knows more than a list that was asked for before that: a tag that is not in it would look as if it was deleted.
    """
    newer = {ref for ref in seen if ref not in before or before[ref] != seen[ref]}
    left = {ref: tag for ref, tag in tags.items() if ref not in newer}
    return left, {ref: commit for ref, commit in seen.items() if ref not in newer}


def tag_events(
    tags: Mapping[str, tuple[bytes, RemoteRef]],
    seen: Mapping[str, str | None],
    told: Told,
    *,
    baseline: bool,
) -> list[NewRef]:
    """The events for all tags that differ from what was `seen` (None: deleted).

    `told` is what the fetched tags say. A tag that could not be fetched is left for the next look. With
    `baseline`, nothing of what is there starts a release.
    """
    events = []
    for ref, (name, remote) in tags.items():
        if seen.get(ref) != remote.commit:
            event = _tag_event(ref, name, remote, seen.get(ref), told, baseline=baseline)
            if event is not None:
                events.append(event)
    events += [
        NewRef(
            ref,
            change=RefChange.DELETED,
            previous_commit=commit,
            state=RefEventState.IGNORED,
            why="the tag was deleted; what was released from it stays",
        )
        for ref, commit in seen.items()
        if commit is not None and ref not in tags
    ]
    return events


def commit_events(branch: str, commits: Iterable[RefDetails], *, baseline: bool) -> list[NewRef]:
    """The events for new commits of a branch, oldest first: the newest may become a release."""
    details = list(commits)
    events = [
        NewRef(
            one.commit,
            one,
            RefKind.COMMIT,
            branch=branch,
            state=RefEventState.IGNORED,
            why=BASELINE if baseline else f"a newer commit of {branch} was seen at the same time",
        )
        for one in details
    ]
    if details and not baseline:
        events[-1] = NewRef(details[-1].commit, details[-1], RefKind.COMMIT, branch=branch)
    return events


def _tag_event(
    ref: str, name: bytes, remote: RemoteRef, before: str | None, told: Told, *, baseline: bool
) -> NewRef | None:
    bare = RefDetails(remote.commit, remote.tag_kind)
    problem = names.problem(name)
    if problem is not None:
        return NewRef(ref, bare, state=RefEventState.REFUSED, why=problem)
    if baseline:
        return NewRef(ref, bare, state=RefEventState.IGNORED, why=BASELINE)
    details = told.get(ref)
    if details is None:
        return None
    if isinstance(details, InputError):
        return NewRef(ref, bare, state=RefEventState.REFUSED, why=details.message)
    if before is not None:
        return NewRef(
            ref,
            details,
            change=RefChange.MOVED,
            previous_commit=before,
            state=RefEventState.IGNORED,
            why=f"the tag moved from {before} to {details.commit}; a release is never replaced",
        )
    return NewRef(ref, details)
