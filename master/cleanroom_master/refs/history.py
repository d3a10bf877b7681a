"""The history of a watched repository: what a name stands for, and the commits between two."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from cleanroom_base.errors import InputError
from cleanroom_base.settings import Settings
from cleanroom_master.refs.mirror import Mirror
from cleanroom_master.refs.sources import mirror_with

# More than these are not bisected in one go: every one of them becomes a row.
MOST_COMMITS = 20_000
_SHORT = re.compile(r"[0-9a-f]{7,64}")
_FULL = (40, 64)
_TEXT = 200
# One commit a line: id, parents, author, time, subject. None of them holds a NUL or a line end.
_FORMAT = "%H%x00%P%x00%an <%ae>%x00%aI%x00%s"


@dataclass(frozen=True, slots=True)
class PastCommit:
    """A commit as its author left it. `authored_at` None: git cannot read its time."""

    commit: str
    parents: tuple[str, ...]
    author: str
    authored_at: datetime | None
    subject: str


def resolve(settings: Settings, product: str, url: str, ref: str) -> str:
    """The commit of a tag, a branch, or the beginning of a commit's id, in the repository as it is now.

    It is in the mirror then. Raises InputError if there is none, InfrastructureError if the repository is away.
    """
    mirror = Mirror(settings, product, url)
    remote = mirror.remote_refs()
    name = ref.encode(errors="replace")
    found = remote.tags.get(name) or remote.heads.get(name)
    if found is not None:
        if not mirror.fetch({found.name: found.object_id}) or not mirror.keep_commit(found.commit):
            raise InputError(f"{ref} of {product} does not lead to a commit that the repository gives")
        return found.commit
    commit = _commit(mirror, ref) if _SHORT.fullmatch(ref) else None
    if commit is None and _SHORT.fullmatch(ref):
        # What only begins like an id can be looked up where the branches are.
        mirror.fetch({head.name: head.object_id for head in remote.heads.values()})
        commit = _commit(mirror, ref)
    if commit is None:
        raise InputError(
            f"there is no tag, branch or commit {ref[:200]!r} in {url}",
            hint=f"'cleanroom ref list {product}' shows what was recorded",
        )
    return commit


def _commit(mirror: Mirror, ref: str) -> str | None:
    if len(ref) in _FULL and mirror.keep_commit(ref):
        return ref
    listed = mirror.inside("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", check=False)
    return listed.text.strip() if listed.exit_status == 0 else None


def precedes(settings: Settings, product: str, before: str, after: str) -> bool:
    """Whether a commit is an ancestor of another. Raises InfrastructureError when one is not to be had."""
    mirror_with(settings, product, before)
    mirror = mirror_with(settings, product, after)
    return mirror.inside("merge-base", "--is-ancestor", before, after, check=False).exit_status == 0


def between(settings: Settings, product: str, good: str, bad: str) -> list[PastCommit]:
    """The commits that `bad` has and `good` has not, each after its parents; `bad` is the last.

    They are those of which `git bisect` takes one, also on branches that were merged. Raises InputError above
    20,000, InfrastructureError when a commit is not to be had.
    """
    mirror_with(settings, product, good)
    mirror = mirror_with(settings, product, bad)
    count = int(mirror.inside("rev-list", "--count", bad, f"^{good}").text)
    if count > MOST_COMMITS:
        raise InputError(
            f"there are {count} commits between; at most {MOST_COMMITS} are searched", hint="name a later good one"
        )
    listed = mirror.inside(
        "log", "--topo-order", "--reverse", f"--format={_FORMAT}", "--no-show-signature", bad, f"^{good}"
    )
    return [_read(line) for line in listed.stdout.decode(errors="replace").split("\n") if line]


def get(settings: Settings, product: str, commit: str) -> PastCommit:
    """One commit. Raises InfrastructureError when it is not to be had."""
    listed = mirror_with(settings, product, commit).inside(
        "log", "--max-count=1", f"--format={_FORMAT}", "--no-show-signature", commit
    )
    return _read(listed.stdout.decode(errors="replace").rstrip("\n"))


def _read(line: str) -> PastCommit:
    commit, parents, author, time, subject = line.split("\0")
    return PastCommit(commit, tuple(parents.split()), author[:_TEXT], _time(time), subject[:_TEXT])


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
