"""What is new in a repository, compared with what was recorded."""

from __future__ import annotations

from cleanroom_base.errors import InputError
from cleanroom_db.ref_events import RefDetails
from cleanroom_db.states import RefChange, RefEventState
from cleanroom_master.refs import changes
from cleanroom_master.refs.mirror import RemoteRef
from cleanroom_recipes.model import RefKind

A, B, C = ("a" * 40, "b" * 40, "c" * 40)


def _tags(**commits: str) -> dict[str, tuple[bytes, RemoteRef]]:
    return {
        name: (name.encode(), RemoteRef(f"refs/tags/{name}".encode(), commit, commit))
        for name, commit in commits.items()
    }


def _told(**commits: str) -> dict[str, RefDetails | InputError]:
    return {name: RefDetails(commit) for name, commit in commits.items()}


def test_nothing_new_is_no_event() -> None:
    assert changes.unseen(_tags(v1=A), {"v1": A}) == {}
    assert changes.tag_events(_tags(v1=A), {"v1": A}, {}, baseline=False) == []


def test_a_new_tag_is_created() -> None:
    assert list(changes.unseen(_tags(v1=A, v2=B), {"v1": A})) == ["v2"]
    [event] = changes.tag_events(_tags(v1=A, v2=B), {"v1": A}, _told(v2=B), baseline=False)
    assert (event.ref, event.change, event.state) == ("v2", RefChange.CREATED, RefEventState.RECORDED)


def test_a_tag_that_could_not_be_fetched_is_left_for_the_next_look() -> None:
    assert changes.tag_events(_tags(v1=A), {}, {}, baseline=False) == []


def test_a_moved_tag_is_recorded_and_ignored() -> None:
    [event] = changes.tag_events(_tags(v1=B), {"v1": A}, _told(v1=B), baseline=False)
    assert (event.change, event.previous_commit, event.state) == (RefChange.MOVED, A, RefEventState.IGNORED)
    assert event.why == f"the tag moved from {A} to {B}; a release is never replaced"


def test_a_deleted_tag_is_recorded_once() -> None:
    [event] = changes.tag_events({}, {"v1": A, "v0": None}, {}, baseline=False)
    assert (event.ref, event.change, event.previous_commit) == ("v1", RefChange.DELETED, A)
    assert event.state is RefEventState.IGNORED


def test_what_others_recorded_since_the_list_was_asked_for_is_left_for_the_next_look() -> None:
    before = {"same": A, "moved": A, "gone": A}
    seen = {"same": A, "moved": B, "gone": None, "hooked": C}
    tags, known = changes.undisturbed(_tags(same=A, moved=A, gone=A, fresh=B), before, seen)
    assert (list(tags), known) == (["same", "fresh"], {"same": A})


def test_a_deleted_tag_that_comes_back_is_created() -> None:
    [event] = changes.tag_events(_tags(v1=B), {"v1": None}, _told(v1=B), baseline=False)
    assert (event.change, event.state) == (RefChange.CREATED, RefEventState.RECORDED)


def test_the_first_look_only_notes_what_is_there() -> None:
    [event] = changes.tag_events(_tags(v1=A), {}, {}, baseline=True)
    assert (event.state, event.why) == (RefEventState.IGNORED, changes.BASELINE)


def test_a_tag_of_something_else_is_refused() -> None:
    [event] = changes.tag_events(_tags(v1=A), {}, {"v1": InputError("it points to a tree")}, baseline=False)
    assert (event.state, event.why) == (RefEventState.REFUSED, "it points to a tree")


def test_a_hostile_name_is_refused_once_and_not_fetched() -> None:
    remote = RemoteRef(b"refs/tags/v1;reboot", A, A)
    tags = changes.matching({b"v1;reboot": remote}, ["*"])
    assert changes.unseen(tags, {}) == {}
    [event] = changes.tag_events(tags, {}, {}, baseline=False)
    assert (event.ref, event.state) == ("v1;reboot", RefEventState.REFUSED)
    assert changes.tag_events(tags, {"v1;reboot": A}, {}, baseline=False) == []


def test_only_tags_of_the_patterns_count() -> None:
    tags = {name: RemoteRef(b"refs/tags/" + name, A, A) for name in (b"v1", b"debian/1", b"nightly", b"v\xff")}
    assert sorted(changes.matching(tags, ["v*", "debian/*"])) == ["debian/1", "v1", r"v\xff"]


def test_of_several_new_commits_the_newest_may_be_released() -> None:
    first, second = changes.commit_events("main", [RefDetails(A), RefDetails(B)], baseline=False)
    assert (first.ref, first.kind, first.state) == (A, RefKind.COMMIT, RefEventState.IGNORED)
    assert first.why == "a newer commit of main was seen at the same time"
    assert (second.ref, second.branch, second.state) == (B, "main", RefEventState.RECORDED)
    [noted] = changes.commit_events("main", [RefDetails(C)], baseline=True)
    assert (noted.state, noted.why) == (RefEventState.IGNORED, changes.BASELINE)
