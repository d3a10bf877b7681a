"""The ref watch with real repositories and a real database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from database_server import Server, plan
from git_repository import Repository
from surroundings import variables

from cleanroom_base import settings as site
from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.settings import Settings
from cleanroom_db import products, ref_events, releases, services, webhooks
from cleanroom_db.connection import Database
from cleanroom_db.products import UnknownProduct
from cleanroom_db.ref_events import RefEvent
from cleanroom_db.roles import Role
from cleanroom_db.states import Forge, RefChange, RefEventState, SignatureState, TagKind
from cleanroom_master.refs import lookup, repositories, watch
from cleanroom_master.refs.mirror import RepositoryAway
from cleanroom_master.refs.record import record, record_many
from cleanroom_recipes.model import RefKind


@pytest.fixture
def settings(tmp_path: Path, server: Server, name: str) -> Settings:
    return site.load(
        {
            "CLEANROOM_STATE": str(tmp_path / "state"),
            "CLEANROOM_SITE": str(tmp_path),
            "CLEANROOM_DATABASE_URL": server.url(Role.OWNER, name),
            "CLEANROOM_REFS_POLL": "0.2",
        }
    )


@pytest.fixture
def refs(connect: Callable[[Role], Database]) -> Database:
    return connect(Role.REFS)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository.make(tmp_path / "hello")
    made.commit(file="1")
    return made


@pytest.fixture
def look(settings: Settings, owner: Database, refs: Database, repository: Repository) -> Callable[[], list[RefEvent]]:
    """Add the product, and return what looks at it and gives the new events in order."""
    repositories.add(settings, owner, "hello", str(repository.path))

    def look() -> list[RefEvent]:
        ids = watch.look(settings, refs, products.get(refs, "hello"))
        return [ref_events.get(refs, event) for event in ids]

    return look


def look_up_waiting(settings: Settings, refs: Database) -> int:
    """Look up all that waits; return how many there were."""
    waiting = lookup.waiting(refs)
    for product, events in waiting.items():
        lookup.look_up(settings, refs, products.get(refs, product), events)
    return sum(map(len, waiting.values()))


def _state(event: RefEvent) -> tuple[str, RefChange, RefEventState]:
    return event.ref, event.change, event.state


def test_only_tags_that_appear_after_the_product_was_added_are_released(
    settings: Settings, owner: Database, master: Database, repository: Repository
) -> None:
    repository.tag("v1")
    product = repositories.add(settings, owner, "hello", str(repository.path))
    assert product.watched_at is not None
    repository.tag("v2", "--annotate", "--message=Two")
    watch.look(settings, owner, product)
    assert [_state(event) for event in ref_events.list_latest(owner)] == [
        ("v2", RefChange.CREATED, RefEventState.RECORDED),
        ("v1", RefChange.CREATED, RefEventState.IGNORED),
    ]
    release = releases.claim_next(master, plan)
    assert release is not None
    assert release.ref == "v2"
    assert releases.claim_next(master, plan) is None


def test_existing_tags_are_released_on_request(settings: Settings, owner: Database, repository: Repository) -> None:
    repository.tag("v1")
    repositories.add(settings, owner, "hello", str(repository.path), existing=True)
    [event] = ref_events.list_latest(owner)
    assert (event.state, event.tag_kind) == (RefEventState.RECORDED, TagKind.LIGHTWEIGHT)


def test_a_product_whose_repository_does_not_answer_is_not_added(settings: Settings, owner: Database) -> None:
    with pytest.raises(RepositoryAway, match="cannot be read"):
        repositories.add(settings, owner, "hello", "/nowhere/at/all")
    with pytest.raises(UnknownProduct):
        products.get(owner, "hello")


def test_a_product_comes_back_with_what_was_recorded(
    settings: Settings, owner: Database, repository: Repository
) -> None:
    repository.tag("v1")
    repositories.add(settings, owner, "hello", str(repository.path), existing=True)
    with pytest.raises(InputError, match="the product hello is there already"):
        repositories.add(settings, owner, "hello", str(repository.path))
    products.remove(owner, "hello")
    with pytest.raises(UnknownProduct):
        record_many(owner, "hello", [b"v2"])
    repository.tag("v2")
    repositories.add(settings, owner, "hello", str(repository.path), tag_patterns=("v*",))
    assert [_state(event) for event in ref_events.list_latest(owner)] == [
        ("v2", RefChange.CREATED, RefEventState.IGNORED),
        ("v1", RefChange.CREATED, RefEventState.RECORDED),
    ]


def test_looking_again_records_nothing_again(look: Callable[[], list[RefEvent]], repository: Repository) -> None:
    repository.tag("v1")
    assert [event.ref for event in look()] == ["v1"]
    assert look() == []


def test_a_tag_that_moves_there_and_back_is_recorded_and_never_obeyed(
    look: Callable[[], list[RefEvent]], repository: Repository, master: Database
) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.tag("v1")
    look()
    release = releases.claim_next(master, plan)
    assert release is not None
    second = repository.commit(file="2")
    moves = []
    for commit in (second, first, second):
        repository.git("tag", "--force", "v1", commit)
        [event] = look()
        moves.append((event.change, event.previous_commit, event.commit, event.state))
    assert moves == [
        (RefChange.MOVED, before, after, RefEventState.IGNORED)
        for before, after in ((first, second), (second, first), (first, second))
    ]
    repository.git("tag", "--delete", "v1")
    [event] = look()
    assert (event.change, event.previous_commit, event.commit) == (RefChange.DELETED, second, None)
    repository.git("tag", "v1", second)
    [event] = look()
    assert event.change is RefChange.CREATED
    assert releases.claim_next(master, plan) is None
    assert releases.find(master, "hello", "v1") == release


def test_hostile_names_are_recorded_as_refused_and_harm_nobody(
    look: Callable[[], list[RefEvent]], repository: Repository, tmp_path: Path
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    mark = tmp_path / "mark"
    hostile = [b"-rf", f"$(touch${{IFS}}{mark})".encode(), b"v1;reboot", b"n" * 300, b"latin\xe9", "größe".encode()]
    for name in [*hostile, b"v1"]:
        repository.raw_tag(name, commit)
    events = {event.ref: event for event in look()}
    assert events.pop("v1").state is RefEventState.RECORDED
    assert len(events) == len(hostile)
    assert {event.state for event in events.values()} == {RefEventState.REFUSED}
    assert all(event.why for event in events.values())
    assert r"\x2drf" in events
    assert r"latin\xe9" in events
    assert not mark.exists()
    assert look() == []


def test_a_broken_tag_does_not_hide_the_others(
    look: Callable[[], list[RefEvent]], repository: Repository, owner: Database
) -> None:
    for name in ("a1", "a2", "z1"):
        repository.tag(name)
        repository.commit(file=name)
    repository.raw_tag(b"broken", "f" * 40)
    assert sorted(event.ref for event in look()) == ["a1", "a2", "z1"]
    assert str(products.get(owner, "hello").watch_error).endswith("are broken: broken")
    repository.git("update-ref", "-d", "refs/tags/broken")
    assert look() == []
    assert products.get(owner, "hello").watch_error is None


def test_a_tag_of_a_tree_is_refused(look: Callable[[], list[RefEvent]], repository: Repository) -> None:
    repository.git("tag", "v1", "HEAD^{tree}")
    [event] = look()
    assert (event.state, event.why) == (RefEventState.REFUSED, "it points to a tree, not to a commit")
    assert look() == []


def test_1000_tags_in_one_push_are_recorded_in_one_transaction(
    look: Callable[[], list[RefEvent]], repository: Repository, owner: Database
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    lines = "".join(f"create refs/tags/v{number} {commit}\n" for number in range(1000))
    repository.git("update-ref", "--stdin", stdin=lines.encode())
    assert len(look()) == 1000
    with owner.transaction() as cursor:
        assert cursor.value("SELECT count(DISTINCT xmin::text) FROM cleanroom.ref_event") == 1


def test_commits_of_watched_branches_are_recorded(
    settings: Settings, owner: Database, refs: Database, repository: Repository
) -> None:
    repositories.add(settings, owner, "hello", str(repository.path), branches=("main", "none"))
    [baseline] = ref_events.list_latest(owner)
    assert (baseline.kind, baseline.branch, baseline.state) == (RefKind.COMMIT, "main", RefEventState.IGNORED)
    product = products.get(refs, "hello")
    commits = [repository.commit(file=str(number)) for number in (2, 3)]
    watch.look(settings, refs, product)
    older, newer = reversed(ref_events.list_latest(owner)[:2])
    assert [older.commit, newer.commit] == commits
    assert (older.state, newer.state) == (RefEventState.IGNORED, RefEventState.RECORDED)
    assert (newer.ref, newer.tag_kind, newer.tagger) == (commits[1], TagKind.NONE, "Anna <anna@example.org>")
    assert watch.look(settings, refs, product) == []
    repository.git("reset", "--quiet", "--hard", commits[0])
    assert watch.look(settings, refs, product) == []
    rewritten = repository.commit(file="4")
    [event] = watch.look(settings, refs, product)
    assert ref_events.get(refs, event).commit == rewritten


def test_a_row_by_hand_is_looked_up(
    settings: Settings, owner: Database, refs: Database, look: Callable[[], list[RefEvent]], repository: Repository
) -> None:
    repository.tag("v1", "--annotate", "--message=One")
    commit = repository.git("rev-parse", "HEAD")
    with owner.transaction() as cursor:
        cursor.execute("INSERT INTO cleanroom.ref_event (product, ref) VALUES ('hello', 'v1'), ('hello', 'v2')")
        cursor.execute(
            "INSERT INTO cleanroom.ref_event (product, kind, ref) VALUES ('hello', 'commit', %(commit)s)",
            commit=commit,
        )
    assert look_up_waiting(settings, refs) == 3
    by_id, unknown, tag = ref_events.list_latest(owner)
    assert (tag.commit, tag.tag_kind, tag.message, tag.state) == (
        commit,
        TagKind.ANNOTATED,
        "One",
        RefEventState.RECORDED,
    )
    assert tag.signature is SignatureState.NONE
    assert (unknown.state, unknown.why) == (RefEventState.REFUSED, f"there is no tag v2 in {repository.path}")
    assert (by_id.commit, by_id.tag_kind) == (commit, TagKind.NONE)
    assert look_up_waiting(settings, refs) == 0
    assert look() == []


def test_a_row_waits_for_a_repository_that_is_away(
    settings: Settings, owner: Database, refs: Database, look: Callable[[], list[RefEvent]], repository: Repository
) -> None:
    repository.tag("v1")
    record_many(refs, "hello", [b"v1"])
    away = repository.path.rename(repository.path.with_name("away"))
    look_up_waiting(settings, refs)
    [event] = ref_events.list_latest(owner)
    assert event.state is RefEventState.RECORDED
    assert "cannot be read" in event.why
    away.rename(repository.path)
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.ref_event SET not_before = now()")
    look_up_waiting(settings, refs)
    assert ref_events.get(refs, event.id).commit is not None


def test_a_hook_and_a_look_at_the_same_time_record_once(
    settings: Settings, refs: Database, look: Callable[[], list[RefEvent]], repository: Repository
) -> None:
    names = [f"v{number}" for number in range(20)]
    for name in names:
        repository.tag(name)
    threads = [
        threading.Thread(target=record_many, args=[refs, "hello", [name.encode() for name in names]]),
        threading.Thread(target=look),
        threading.Thread(target=look_up_waiting, args=[settings, refs]),
        threading.Thread(target=look),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    look_up_waiting(settings, refs)
    assert look() == []
    events = ref_events.list_latest(refs)
    assert sorted(event.ref for event in events) == sorted(names)
    assert {event.state for event in events} == {RefEventState.RECORDED}


@pytest.fixture
def slow_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Have the next list of refs come late: a file that comes once it is made, and one that lets it go."""
    listed, go = tmp_path / "listed", tmp_path / "go"
    program = tmp_path / "slow/git"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
git() {{ PATH="{os.environ["PATH"]}" command git "$@"; }}
case "$*" in
*ls-remote*)
    if [ ! -e "{listed}" ]; then
        git "$@" > "{tmp_path}/list"
        touch "{listed}"
        for _ in $(seq 600); do [ -e "{go}" ] && break; sleep 0.05; done
        exec cat "{tmp_path}/list"
    fi ;;
esac
git "$@"
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return listed, go


def test_what_a_hook_records_while_a_look_is_under_way_is_neither_deleted_nor_moved_back(
    settings: Settings,
    refs: Database,
    look: Callable[[], list[RefEvent]],
    repository: Repository,
    slow_list: tuple[Path, Path],
) -> None:
    listed, go = slow_list
    looking = threading.Thread(target=look)
    looking.start()
    deadline = time.monotonic() + 30
    while not listed.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    repository.tag("v1")
    recorded = record(settings, refs, "hello", "v1")
    go.touch()
    looking.join(60)
    assert ref_events.list_latest(refs) == [recorded]
    assert look() == []


def test_a_ref_is_recorded_on_request(
    settings: Settings, refs: Database, look: Callable[[], list[RefEvent]], repository: Repository
) -> None:
    repository.tag("v1")
    event = record(settings, refs, "hello", "refs/tags/v1")
    assert (event.ref, event.recorded_by, event.commit) == ("v1", "hook", repository.git("rev-parse", "HEAD"))
    assert record(settings, refs, "hello", "v1") == event
    with pytest.raises(InputError, match="refused: there is no tag v2"):
        record(settings, refs, "hello", "v2")
    with pytest.raises(InputError, match="begins with a dash"):
        record(settings, refs, "hello", "-v3")
    with pytest.raises(UnknownProduct):
        record(settings, refs, "other", "v1")
    assert [event.state for event in ref_events.list_latest(refs)] == [
        RefEventState.REFUSED,
        RefEventState.REFUSED,
        RefEventState.RECORDED,
    ]


@pytest.mark.parametrize("claimed", [False, True], ids=["waiting", "claimed"])
def test_a_hook_after_a_look_adds_nothing(
    settings: Settings,
    refs: Database,
    master: Database,
    look: Callable[[], list[RefEvent]],
    repository: Repository,
    claimed: bool,
) -> None:
    repository.tag("v1")
    [seen] = look()
    if claimed:
        releases.claim_next(master, plan)
    assert record(settings, refs, "hello", "v1").id == seen.id
    assert (releases.claim_next(master, plan) is None) == claimed
    assert [event.id for event in ref_events.list_latest(refs)] == [seen.id]


def test_a_hook_s_own_variables_do_not_mislead(
    settings: Settings,
    refs: Database,
    look: Callable[[], list[RefEvent]],
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository.tag("v1", "--annotate", "--message=One")
    other = Repository.make(tmp_path / "other")
    monkeypatch.chdir(other.path / ".git")
    monkeypatch.setenv("GIT_DIR", ".")
    monkeypatch.setenv("GIT_WORK_TREE", "/nowhere")
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other.path / ".git" / "objects"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'url.ext::false.insteadof=/'")
    event = record(settings, refs, "hello", "v1")
    assert (event.message, event.state) == ("One", RefEventState.RECORDED)


def test_a_push_with_a_hostile_name_records_the_others(refs: Database, look: Callable[[], list[RefEvent]]) -> None:
    recorded = record_many(refs, "hello", [b"refs/tags/v1", b"refs/tags/v\xff", b"refs/tags/v2"])
    assert [problem.place for problem in recorded.problems] == [r"v\xff"]
    assert sorted((event.ref, event.state.value) for event in ref_events.list_latest(refs)) == [
        ("v1", "recorded"),
        ("v2", "recorded"),
        (r"v\xff", "refused"),
    ]


def test_a_recorded_tag_that_moved_since_its_release_is_not_obeyed(
    settings: Settings, refs: Database, master: Database, look: Callable[[], list[RefEvent]], repository: Repository
) -> None:
    repository.tag("v1")
    look()
    release = releases.claim_next(master, plan)
    repository.commit(file="2")
    repository.tag("v1", "--force")
    event = record(settings, refs, "hello", "v1")
    assert releases.claim_next(master, plan) is None
    assert ref_events.get(refs, event.id).state is RefEventState.IGNORED
    assert releases.find(master, "hello", "v1") == release


@pytest.fixture
def process(settings: Settings, server: Server, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """The ref watch as a process."""
    environment = {
        **variables(),
        "CLEANROOM_STATE": str(settings.state),
        "CLEANROOM_SITE": str(settings.site),
        "CLEANROOM_DATABASE_URL": server.url(Role.OWNER, name),
        "CLEANROOM_REFS_POLL": "0.2",
        "GIT_DIR": "/nowhere",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    started = subprocess.Popen([sys.executable, "-m", "cleanroom_master.refs"], env=environment)
    yield started
    started.kill()
    started.wait(30)


def _watch_error(database: Database, product: str) -> str | None:
    return products.get(database, product).watch_error


def _wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def test_the_process_goes_on_whatever_one_repository_does(
    settings: Settings, owner: Database, repository: Repository, process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    products.add(owner, "away", "/nowhere/at/all")
    products.add(owner, "empty", str(tmp_path / "empty"))
    products.add(owner, "forbidden", "ext::touch /nowhere")
    repositories.add(settings, owner, "hello", str(repository.path))
    repository.tag("v1")
    _wait_until(lambda: ref_events.list_latest(owner, "hello"))
    for product, words in (
        ("away", "does not appear to be a git repository"),
        ("empty", "does not appear to be a git repository"),
        ("forbidden", "is not the URL of a git repository"),
    ):
        _wait_until(partial(_watch_error, owner, product))
        assert words in str(_watch_error(owner, product))
    assert products.get(owner, "hello").watch_error is None
    with owner.transaction() as cursor:
        cursor.execute("INSERT INTO cleanroom.ref_event (product, ref) VALUES ('hello', 'v9')")
    _wait_until(lambda: ref_events.list_latest(owner, "hello")[0].state is RefEventState.REFUSED)
    [service] = services.list_all(owner)
    assert (service.name, service.state, service.process_id) == ("refs", "running", process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_a_repository_that_never_answers_holds_up_no_other(
    settings: Settings,
    owner: Database,
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/asked\nexec sleep 600\n")
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    process = request.getfixturevalue("process")
    products.add(owner, "silent", "git@example.org:silent.git")
    _wait_until((tmp_path / "asked").exists)
    repositories.add(settings, owner, "hello", str(repository.path))
    repository.tag("v1")
    _wait_until(lambda: ref_events.list_latest(owner, "hello"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    ssh = Path("/proc", (tmp_path / "asked").read_text().strip())
    _wait_until(lambda: not ssh.exists())


def test_the_process_survives_cut_connections(
    settings: Settings, owner: Database, repository: Repository, process: subprocess.Popen[bytes]
) -> None:
    repositories.add(settings, owner, "hello", str(repository.path))
    _wait_until(lambda: services.list_all(owner))
    with owner.transaction() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    repository.tag("v1")
    _wait_until(lambda: ref_events.list_latest(owner, "hello"))
    assert process.poll() is None


def test_a_kill_between_fetch_and_record_loses_nothing(
    settings: Settings, owner: Database, look: Callable[[], list[RefEvent]], repository: Repository
) -> None:
    repository.tag("v1")
    with pytest.raises(InfrastructureError), owner.transaction():
        watch.look(settings, owner, products.get(owner, "hello"))
        raise InfrastructureError("killed")
    assert ref_events.list_latest(owner) == []
    assert [event.ref for event in look()] == ["v1"]


def test_a_wish_has_a_repository_looked_at_before_its_turn(
    settings: Settings, owner: Database, connect: Callable[[Role], Database], repository: Repository
) -> None:
    repositories.add(settings, owner, "hello", str(repository.path))
    patient = replace(settings, values={**settings.values, "refs.poll": 3600.0})
    watching = watch.Watch(patient, connect(Role.REFS))
    thread = threading.Thread(target=watching.run)
    thread.start()
    try:
        # The first look of a process is at everything.
        looked = products.get(owner, "hello").watched_at
        _wait_until(lambda: products.get(owner, "hello").watched_at != looked)
        repository.tag("v1")
        hooks = connect(Role.HOOKS)
        assert webhooks.receive(hooks, Forge.GITHUB, "one", "0" * 64, "push", ["hello"], kept=60)
        _wait_until(lambda: ref_events.list_latest(owner, "hello"))
        _wait_until(lambda: webhooks.wishes(owner) == {})
    finally:
        watching.stop()
        thread.join(60)
        watching._listener.close()
