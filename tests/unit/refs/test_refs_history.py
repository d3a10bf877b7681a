"""The commits between two, on a real history with merges; what `git bisect` finds in it, our search finds too."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from git_repository import Repository

from cleanroom_base import settings as site
from cleanroom_base.errors import InputError
from cleanroom_base.settings import Settings
from cleanroom_db.bisections import Candidate
from cleanroom_db.states import Verdict
from cleanroom_master.bisection import candidates
from cleanroom_master.bisection.evidence import write_git_log
from cleanroom_master.bisection.search import Search
from cleanroom_master.refs import history

_COUNT = 40


@dataclass(frozen=True)
class Past:
    """A history: a line of commits, of which some were made beside it and merged; the commits by their number."""

    settings: Settings
    repository: Repository
    url: str
    commits: list[str]
    parents: list[list[int]]

    def descendants(self, first: int) -> set[str]:
        """The commits that have this one's change."""
        found = {first}
        for number, before in enumerate(self.parents):
            if found & set(before):
                found.add(number)
        return {self.commits[number] for number in found}


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Made by one `git fast-import`: every commit follows one or two of the latest ones, the last one all."""
    place = tmp_path_factory.mktemp("past")
    repository = Repository.make(place / "hello")
    chosen = random.Random(4)
    parents: list[list[int]] = [[]]
    for number in range(1, _COUNT):
        parents.append(chosen.sample(range(max(0, number - 5), number), min(number, chosen.choice((1, 1, 2)))))
    tips = set(range(_COUNT)) - {one for before in parents for one in before}
    while len(tips) > 1:
        parents.append(sorted(tips)[:2])
        tips = tips - set(parents[-1]) | {len(parents) - 1}
    repository.git("fast-import", "--quiet", stdin="".join(map(_commit, range(len(parents)), parents)).encode())
    commits = repository.git("log", "--all", "--format=%H %s").splitlines()
    numbered = {int(line.split()[-1]): line.split()[0] for line in commits}
    repository.git("tag", "good", numbered[0])
    repository.git("tag", "bad", numbered[len(parents) - 1])
    settings = site.load({"CLEANROOM_STATE": str(place / "state"), "CLEANROOM_SITE": str(place)})
    return Past(settings, repository, str(repository.path), [numbered[one] for one in range(len(parents))], parents)


def _commit(number: int, parents: list[int]) -> str:
    before = "".join(f"{'from' if place == 0 else 'merge'} :{parent + 1}\n" for place, parent in enumerate(parents))
    message = f"Change {number}"
    return (
        f"commit refs/heads/main\nmark :{number + 1}\ncommitter Anna <anna@example.org> {1_700_000_000 + number}"
        f" +0000\ndata {len(message)}\n{message}\n{before}\n"
    )


def resolved(past: Past, ref: str) -> str:
    return history.resolve(past.settings, "hello", past.url, ref)


def test_names_are_looked_up_in_the_repository(past: Past) -> None:
    good, bad = past.commits[0], past.commits[-1]
    # Before anything else of the repository was fetched.
    assert resolved(past, past.commits[7][:9]) == past.commits[7]
    assert (resolved(past, "good"), resolved(past, "bad"), resolved(past, "main")) == (good, bad, bad)
    assert (resolved(past, good), resolved(past, bad[:12])) == (good, bad)
    for unknown in ("v9", "--all", "0" * 40, "bad^{tree}", "abcdef0123"):
        with pytest.raises(InputError, match="there is no tag, branch or commit"):
            resolved(past, unknown)


def test_the_candidates_are_all_that_git_would_search(past: Past) -> None:
    found = candidates.commits(past.settings, "hello", resolved(past, "good"), resolved(past, "bad"))
    listed = past.repository.git("rev-list", "bad", "^good").split()
    assert {one.commit for one in found[1:]} == set(listed)
    assert (found[0].commit, found[-1].commit) == (past.commits[0], past.commits[-1])
    for position, one in enumerate(found[1:], 1):
        parents = past.repository.git("rev-parse", f"{one.commit}^@").split()
        assert {found[parent].commit for parent in one.parents} == set(parents)
        assert max(one.parents) < position
    first = found[-1]
    assert (first.author, first.subject) == ("Anna <anna@example.org>", f"Change {len(past.commits) - 1}")
    assert first.dated_at == datetime.fromtimestamp(1_700_000_000 + len(past.commits) - 1, UTC)


def test_ends_that_are_none_are_refused(past: Past) -> None:
    good, bad = resolved(past, "good"), resolved(past, "bad")
    with pytest.raises(InputError, match=r"no ancestor of the bad one .* the other way round"):
        candidates.commits(past.settings, "hello", bad, good)
    with pytest.raises(InputError, match="the same commit"):
        candidates.commits(past.settings, "hello", bad, bad)
    side = next(one for one in past.commits[1:] if one not in past.descendants(1))
    with pytest.raises(InputError, match="no ancestor"):
        candidates.commits(past.settings, "hello", resolved(past, past.commits[1]), resolved(past, side))


def test_the_first_probe_is_as_good_as_git_s(past: Past) -> None:
    found = candidates.commits(past.settings, "hello", resolved(past, "good"), resolved(past, "bad"))
    search = Search([one.parents for one in found])
    [chosen] = search.decide({0: Verdict.GOOD, search.bad_end: Verdict.BAD}, (), 1).probe
    total = len(found) - 1
    ours, theirs = (
        min(reached, total - reached)
        for reached in (
            int(past.repository.git("rev-list", "--count", commit, "^good"))
            for commit in (found[chosen].commit, past.repository.git("rev-list", "--bisect", "bad", "^good"))
        )
    )
    assert ours == theirs


@pytest.mark.parametrize(("number", "parallel"), [(1, 1), (9, 2), (17, 3), (30, 1), (_COUNT - 1, 4)])
def test_git_finds_the_same_by_our_log(past: Past, number: int, parallel: int) -> None:
    found = candidates.commits(past.settings, "hello", resolved(past, "good"), resolved(past, "bad"))
    search = Search([one.parents for one in found])
    broken = past.descendants(number)
    verdicts: dict[int, Verdict] = {}
    while not (decision := search.decide(verdicts, (), parallel)).ended:
        verdicts |= {one: Verdict.BAD if found[one].commit in broken else Verdict.GOOD for one in decision.probe}
    assert [found[one].commit for one in decision.suspects] == [past.commits[number]]
    judged = [_judged(place, found[one], one, said) for place, (one, said) in enumerate(verdicts.items())]
    commands = [line for line in write_git_log(judged, decision.suspects[-1:]).splitlines() if line[0] != "#"]
    said = [past.repository.git(*command.split()[1:]) for command in commands][-1]
    past.repository.git("bisect", "reset")
    assert f"{past.commits[number]} is the first bad commit" in said


def _judged(place: int, new: candidates.NewCandidate, position: int, verdict: Verdict) -> Candidate:
    at = datetime(2030, 1, 31, tzinfo=UTC) + timedelta(seconds=place)
    return Candidate(
        1,
        position,
        tuple(new.parents),
        new.name,
        new.commit,
        {},
        new.author,
        new.dated_at,
        new.subject,
        verdict,
        "",
        at,
    )
