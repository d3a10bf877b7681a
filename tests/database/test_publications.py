"""Publication: the outbox, generations, their contents."""

from __future__ import annotations

import pytest
from database_server import DIGEST, add_product, begin, claim, end

from cleanroom_base.errors import InputError
from cleanroom_db import generations, phases, publications, releases
from cleanroom_db.connection import ConstraintViolated, Database
from cleanroom_db.generations import NewPackage
from cleanroom_db.phases import NewArtifact
from cleanroom_db.publications import Pending
from cleanroom_db.states import ReleaseState
from cleanroom_db.view import release_view
from cleanroom_recipes.model import Outcome


@pytest.fixture
def pending(owner: Database) -> Pending:
    add_product(owner)
    return _pass(owner, "v1")


def _pass(owner: Database, tag: str) -> Pending:
    release = claim(owner, tag)
    held = begin(owner, release)
    phases.start(owner, held, 0, "build")
    phases.add_artifacts(owner, held, "build", [NewArtifact(f"hello_{tag}_amd64.deb", DIGEST, 1, "deb", "hello", tag)])
    end(owner, held)
    return publications.pending(owner)[-1]


def _package(release: int | None, version: str = "1", built: str = DIGEST) -> NewPackage:
    file = f"hello_{version}_amd64.deb"
    return NewPackage("testing", "debian-12/deb", "deb", "hello", version, "amd64", file, DIGEST, built, 1, release)


def _publish(database: Database, pending: Pending, version: str) -> int:
    generation = generations.prepare(
        database,
        actor="publisher",
        reason=f"hello {version}",
        added=[_package(pending.release_id, version)],
        publications=[pending.id],
    )
    generations.switched(database, generation)
    return generation


def test_what_passed_is_published(publisher: Database, pending: Pending) -> None:
    assert [file.file for file in publications.files(publisher, pending.release_id)] == ["hello_v1_amd64.deb"]
    number = _publish(publisher, pending, "1")
    assert publications.pending(publisher) == []
    release = releases.get(publisher, pending.release_id)
    assert (release.state, release.why) == (ReleaseState.PUBLISHED, f"published in testing, generation {number}")
    [shown] = release_view(publisher, "hello", "v1")["published"]
    assert (shown["channel"], shown["generation"]) == ("testing", number)
    current = generations.current(publisher)
    assert current is not None
    assert [package["file"] for package in current.added] == ["hello_1_amd64.deb"]


def test_only_the_latest_attempt_s_files_are_published(owner: Database) -> None:
    add_product(owner)
    release = claim(owner, "v1")
    for outcome, file in ((Outcome.FAILED, "old.deb"), (Outcome.PASSED, "new.deb")):
        held = begin(owner, release)
        phases.add_artifacts(owner, held, "build", [NewArtifact(file, DIGEST, 1, "deb")])
        end(owner, held, outcome, "no" if outcome is Outcome.FAILED else "")
        if outcome is Outcome.FAILED:
            assert publications.files(owner, release.id) == []
            releases.retry(owner, release.id, "anna")
    assert [file.file for file in publications.files(owner, release.id)] == ["new.deb"]


def test_nothing_is_published_before_the_switch(publisher: Database, pending: Pending) -> None:
    generation = generations.prepare(
        publisher, actor="publisher", reason="hello", added=[_package(None)], publications=[pending.id]
    )
    assert generations.current(publisher) is None
    assert generations.published_of(publisher, product="hello", target="debian-12/deb", channel="testing") == []
    assert releases.get(publisher, pending.release_id).state is ReleaseState.PASSED
    with pytest.raises(ConstraintViolated) as raised:
        generations.prepare(publisher, actor="publisher", reason="another")
    assert raised.value.constraint == "generation_one_unswitched"
    unswitched = generations.unswitched(publisher)
    assert unswitched is not None
    assert unswitched.number == generation


def test_a_discarded_generation_leaves_no_trace(owner: Database, publisher: Database, pending: Pending) -> None:
    first = _publish(publisher, pending, "1")
    [old] = generations.contents(publisher, first)
    second = _pass(owner, "v2")
    generation = generations.prepare(
        publisher,
        actor="publisher",
        reason="hello 2",
        added=[_package(second.release_id, "2")],
        removed=[old.id],
        publications=[second.id],
    )
    generations.discard(publisher, generation)
    assert generations.unswitched(publisher) is None
    assert generations.contents(publisher, first) == [old]
    assert [one.id for one in publications.pending(publisher)] == [second.id]
    for use in (generations.discard, generations.switched):
        with pytest.raises(InputError, match="not one that waits"):
            use(publisher, first)
    assert generations.contents(publisher, first) == [old]


def test_every_generation_keeps_its_contents(owner: Database, publisher: Database, pending: Pending) -> None:
    first = _publish(publisher, pending, "1")
    [old] = generations.contents(publisher, first)
    second = _publish(publisher, _pass(owner, "v2"), "2")
    third = generations.prepare(publisher, actor="anna", reason="take 1 out", removed=[old.id])
    generations.switched(publisher, third)
    fourth = generations.prepare(publisher, actor="anna", reason="put it back", added=[_package(None, "1")])
    generations.switched(publisher, fourth)
    assert [
        [package.version for package in generations.contents(publisher, number)]
        for number in (first, second, third, fourth)
    ] == [["1"], ["1", "2"], ["2"], ["1", "2"]]
    assert [generation.number for generation in generations.history(publisher)] == [fourth, third, second, first]


def test_a_version_is_in_a_channel_once(publisher: Database, pending: Pending) -> None:
    _publish(publisher, pending, "1")
    with pytest.raises(ConstraintViolated) as raised:
        generations.prepare(publisher, actor="publisher", reason="again", added=[_package(None, "1", "f" * 64)])
    assert raised.value.constraint == "channel_package_once"
    assert generations.unswitched(publisher) is None


def test_what_a_version_ever_was_is_known(publisher: Database, pending: Pending) -> None:
    number = _publish(publisher, pending, "1")
    [old] = generations.contents(publisher, number)
    gone = generations.prepare(publisher, actor="anna", reason="take 1 out", removed=[old.id])
    generations.switched(publisher, gone)
    known = generations.ever_published(publisher, [_package(None, "1", "f" * 64)])
    assert [package.built_sha256 for package in known] == [DIGEST]
    assert generations.ever_published(publisher, [_package(None, "3")]) == []


def test_a_refused_publication_holds_its_release_and_says_why(publisher: Database, pending: Pending) -> None:
    publications.refuse(publisher, pending.id, "hello 1 was published before with other bytes")
    release = releases.get(publisher, pending.release_id)
    assert (release.state, release.why) == (
        ReleaseState.HELD,
        "not published: hello 1 was published before with other bytes",
    )
    with pytest.raises(InputError, match="does not wait"):
        publications.refuse(publisher, pending.id, "again")
