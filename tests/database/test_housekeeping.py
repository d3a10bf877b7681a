"""What is kept no more goes, and nothing else; and while the disk has no room, nothing new is begun."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from database_server import COMMIT, add_product, begin, claim, end, record_tags
from shop import Shop, publishing
from starlette.testclient import TestClient
from tiny_packages import make_deb

from cleanroom_base.errors import InputError
from cleanroom_base.occasion import Occasion
from cleanroom_base.settings import Settings, load
from cleanroom_db import attempts, disk, phases, requests
from cleanroom_db import housekeeping as rows
from cleanroom_db.connection import Database
from cleanroom_db.housekeeping import Horizon
from cleanroom_db.listen import CHANNELS, Listener
from cleanroom_db.phases import NewArtifact, StepResult
from cleanroom_db.releases import Release
from cleanroom_db.roles import Role
from cleanroom_db.states import RequestKind
from cleanroom_master import housekeeping, stores
from cleanroom_master.cli import run
from cleanroom_master.dispatch import STATE, Dispatch
from cleanroom_master.files import FileStore
from cleanroom_master.logs import LogStore
from cleanroom_master.places import Places
from cleanroom_recipes.model import Outcome

LONG_AGO = "interval '1000 days'"


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    """Settings whose state is where the shop keeps its things."""
    return load({"CLEANROOM_STATE": str(tmp_path / "site"), "CLEANROOM_SITE": str(tmp_path)})


def built(owner: Database, site: Settings, tag: str, text: str, outcome: Outcome = Outcome.FAILED) -> Release:
    """A release whose build printed a text, and made a file with it."""
    release = claim(owner, tag)
    held = begin(owner, release)
    phase = phases.start(owner, held, 0, "build")
    step = phases.start_step(owner, held, phase, 0, "make")
    logs, files = LogStore(Places(site).logs), FileStore(Places(site).artifacts)
    log = logs.open(f"{held.attempt_id}-build-make")
    log.write(text)
    sealed = log.seal()
    phases.finish_step(owner, held, step, StepResult(outcome, 0, 1.0, "", sealed.sha256, sealed.size))
    made = site.state / "made"
    made.write_text(text)
    files.take(made, sealed.sha256)
    phases.add_artifacts(owner, held, "build", [NewArtifact(f"{tag}.txt", sealed.sha256, len(text), "file")])
    end(owner, held, outcome)
    return release


def age(owner: Database, site: Settings) -> None:
    """Let everything have happened long ago."""
    with owner.transaction() as cursor:
        cursor.execute(f"UPDATE cleanroom.attempt SET finished_at = finished_at - {LONG_AGO}")
    for directory in (Places(site).logs, Places(site).artifacts):
        for file in directory.glob("*/*"):
            os.utime(file, (time.time() - 10 * 86_400,) * 2)


def kept(site: Settings) -> tuple[set[str], set[str]]:
    """The texts of logs and of files that are there."""
    places = Places(site)
    logs = LogStore(places.logs)
    return (
        {logs.read(file.stem).decode() for file in places.logs.glob("??/*.gz")},
        {file.read_text() for file in places.artifacts.glob("??/*")},
    )


def numbers(found: list[housekeeping.Removed]) -> dict[str, int]:
    return {one.what: one.number for one in found}


def test_what_is_old_and_not_published_goes_and_its_rows_stay(
    owner: Database, master: Database, site: Settings, web: TestClient
) -> None:
    add_product(owner)
    old = built(owner, site, "v1", "old")
    built(owner, site, "v2", "the same")
    held = built(owner, site, "v3", "held")
    age(owner, site)
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.release SET state = 'held' WHERE id = %(id)s", id=held.id)
    built(owner, site, "v4", "the same")
    dry = housekeeping.master(site, master, remove=False)
    assert numbers(dry)["logs"] == numbers(dry)["artifacts"] == 1
    assert kept(site) == ({"old", "the same", "held"},) * 2
    done = housekeeping.master(site, master, remove=True)
    assert [(one.number, one.size) for one in done] == [(one.number, one.size) for one in dry]
    assert kept(site) == ({"the same", "held"},) * 2
    with owner.transaction() as cursor:
        found = cursor.rows(
            "SELECT ref, log_sha256, log_removed_at, removed_at FROM cleanroom.step JOIN cleanroom.phase"
            " ON phase.id = phase_id JOIN cleanroom.artifact USING (attempt_id) JOIN cleanroom.attempt"
            " ON attempt.id = attempt_id JOIN cleanroom.build ON build.id = build_id JOIN cleanroom.release"
            " ON release.id = release_id ORDER BY ref"
        )
        step = cursor.value("SELECT min(id) FROM cleanroom.step")
    gone = [row["ref"] for row in found if row["log_removed_at"] and row["removed_at"]]
    assert gone == [old.ref]
    assert all(row["log_sha256"] for row in found)
    answer = web.get(f"/log/{step}")
    assert (answer.status_code, "kept no more" in answer.text) == (404, True)
    assert numbers(housekeeping.master(site, master, remove=True))["logs"] == 0


def test_what_is_published_stays_whatever_its_age(shop: Shop, site: Settings, master: Database, tmp_path: Path) -> None:
    shop.passed("v1", make_deb(tmp_path))
    assert shop.settle() == 1
    age(shop.owner, site)
    signed = {file.name for file in (shop.home / "artifacts").glob("??/*")}
    assert len(signed) == 3  # the package, the statement about it, its bill of materials
    assert numbers(housekeeping.master(site, master, remove=True))["artifacts"] == 0
    few = replace(site, values={**site.values, "repository.keep": 1})
    request = requests.ask(
        shop.owner, RequestKind.WITHDRAW, actor="anna", subject="x", reason="bad", release_id=shop_release(shop)
    )
    shop.settle()
    assert requests.get(shop.owner, request.id).generation == 2
    # The generation that had it is kept for a rollback; then it is not.
    assert numbers(housekeeping.master(site, master, remove=True))["artifacts"] == 0
    assert numbers(housekeeping.master(few, master, remove=True))["artifacts"] == 3


def shop_release(shop: Shop) -> int:
    with shop.owner.transaction() as cursor:
        return int(cursor.value("SELECT max(id) FROM cleanroom.release"))


@pytest.mark.parametrize("moment", ["before the rows", "after the rows"])
def test_killed_at_any_moment_it_goes_on_the_next_time(
    owner: Database, master: Database, site: Settings, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_product(owner)
    built(owner, site, "v1", "old")
    age(owner, site)

    def die(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    place = (rows, "note_logs") if moment == "before the rows" else (stores, "remove")
    with monkeypatch.context() as patched:
        patched.setattr(*place, die)
        with pytest.raises(KeyboardInterrupt):
            housekeeping.master(site, master, remove=True)
    assert kept(site) == ({"old"},) * 2
    housekeeping.master(site, master, remove=True)
    assert kept(site) == (set(), set())


def test_a_content_that_comes_again_is_as_good_as_new(owner: Database, master: Database, site: Settings) -> None:
    add_product(owner)
    built(owner, site, "v1", "old")
    age(owner, site)
    before = time.time() - 86_400
    [listed] = [one for there in stores.contents(Places(site).logs, before=before) for one in there]
    horizon = Horizon(365 * 86_400.0, 32)
    assert rows.unneeded_logs(master, [listed.sha256], horizon) == {listed.sha256}
    # Between the look and the removal another step prints the same.
    built(owner, site, "v2", "old")
    rows.note_logs(master, [listed.sha256], horizon)
    assert not stores.remove(Places(site).logs, listed, before=before)
    assert kept(site)[0] == {"old"}
    with owner.transaction() as cursor:
        told = cursor.rows("SELECT log_removed_at IS NULL AS kept FROM cleanroom.step ORDER BY id")
    assert [row["kept"] for row in told] == [False, True]


def test_half_a_file_of_a_killed_process_goes(owner: Database, master: Database, site: Settings) -> None:
    add_product(owner)
    directory = Places(site).artifacts / "ab"
    directory.mkdir(parents=True)
    (directory / f"{'ab' * 32}.123.new").write_text("half")
    (directory / "stranger").write_text("not ours")
    age(owner, site)
    housekeeping.master(site, master, remove=True)
    assert [file.name for file in directory.iterdir()] == ["stranger"]


def test_events_that_became_no_release_go_but_never_the_last_of_a_ref(
    owner: Database, connect: Callable[[Role], Database], site: Settings
) -> None:
    add_product(owner)
    record_tags(owner, "v1")
    other = "b" * 40
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.ref_event SET state = 'ignored', why = 'x', settled_at = now()")
        for new, previous in ((other, COMMIT), (COMMIT, other)):
            cursor.execute(
                "INSERT INTO cleanroom.ref_event (product, ref, commit, previous_commit, change, state, why,"
                " settled_at) VALUES ('hello', 'v1', %(new)s, %(old)s, 'moved', 'ignored', 'moved', now())",
                new=new,
                old=previous,
            )
        cursor.execute(f"UPDATE cleanroom.ref_event SET settled_at = settled_at - {LONG_AGO}")
    refs = connect(Role.REFS)
    assert numbers(housekeeping.refs(site, refs, remove=False)) == {"events": 2}
    assert numbers(housekeeping.refs(site, refs, remove=True)) == {"events": 2}
    with owner.transaction() as cursor:
        left = cursor.rows("SELECT commit, change FROM cleanroom.ref_event")
    assert [tuple(row.values()) for row in left] == [(COMMIT, "moved")]


def test_messages_that_were_settled_go(owner: Database, connect: Callable[[Role], Database], site: Settings) -> None:
    add_product(owner)
    claim(owner, "v1")
    with owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.state_change SET told_at = now()")
        for endpoint, state in (("old", "delivered"), ("new", "delivered"), ("waiting", "pending")):
            cursor.execute(
                "INSERT INTO cleanroom.notification (change_id, endpoint, event, content, state, settled_at)"
                " SELECT max(id), %(endpoint)s, 'published', '{}', %(state)s,"
                "        CASE WHEN %(state)s <> 'pending' THEN now() END FROM cleanroom.state_change",
                endpoint=endpoint,
                state=state,
            )
        cursor.execute(f"UPDATE cleanroom.state_change SET told_at = told_at - {LONG_AGO}")
        cursor.execute(f"UPDATE cleanroom.notification SET settled_at = settled_at - {LONG_AGO} WHERE endpoint = 'old'")
    notifier = connect(Role.NOTIFICATIONS)
    for remove in (False, True):
        assert numbers(housekeeping.notifications(site, notifier, remove=remove)) == {"messages": 1}
    with owner.transaction() as cursor:
        left = cursor.rows("SELECT endpoint FROM cleanroom.notification ORDER BY id")
    assert [row["endpoint"] for row in left] == ["new", "waiting"]


def test_what_nobody_wants_to_go_stays(owner: Database, master: Database, site: Settings) -> None:
    add_product(owner)
    built(owner, site, "v1", "old")
    age(owner, site)
    never = {name: 0.0 for name in site.values if name.startswith("retention.") and name.endswith("_days")}
    site = replace(site, values={**site.values, **never})
    assert housekeeping.master(site, master, remove=True) == []
    assert kept(site) == ({"old"},) * 2


def test_an_occasion_comes_once_in_its_time(tmp_path: Path) -> None:
    file = tmp_path / "run/last"
    daily = Occasion(24, file)
    assert not daily.due()
    os.utime(file, (time.time() - 90_000,) * 2)
    assert Occasion(24, file).due()
    assert not daily.due()
    assert not Occasion(0, file).due()


def test_a_repository_says_what_would_go_before_it_goes(shop: Shop, tmp_path: Path) -> None:
    for number in (1, 2):
        shop.passed(f"v{number}", make_deb(tmp_path, version=f"{number}.0"))
        shop.settle()
    requests.ask(
        shop.owner, RequestKind.WITHDRAW, actor="anna", subject="x", reason="bad", release_id=shop_release(shop)
    )
    shop.settle()
    shop.kept, shop.grace = 1, timedelta(0)
    told = []
    for parameters in ({"dry": True}, {}):
        asked = requests.ask(shop.owner, RequestKind.COLLECT, actor="anna", subject="x", parameters=parameters)
        before = shop.repository().numbers()
        shop.publisher().turn()
        told.append(requests.get(shop.owner, asked.id).result)
        assert (shop.repository().numbers() == before) == bool(parameters)
    assert told[0] == told[1]
    assert (told[0]["files"], sorted(told[0]["generations"])) == (1, [1, 2])


def test_one_command_looks_at_all_of_it(
    shop: Shop, site: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built(shop.owner, site, "v1", "old")
    age(shop.owner, site)
    monkeypatch.delenv("CLEANROOM_TEST_STATE", raising=False)
    for name, value in (("STATE", site.state), ("SITE", site.site), ("DATABASE_URL", shop.owner.url)):
        monkeypatch.setenv(f"CLEANROOM_{name}", str(value))
    command = ["housekeeping", "--format", "json"]
    # What cannot be asked is said, and the rest is done.
    assert run([*command, "--dry-run", "--timeout", "0.01"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["dry_run", "removed", "size", "problems"]
    assert [problem.partition(":")[0] for problem in told["problems"]] == ["the repository"]
    with publishing(shop):
        for words in (["--dry-run"], []):
            assert run([*command, *words]) == 0
            told = json.loads(capsys.readouterr().out)
            assert set(told["removed"][0]) == {"what", "owner", "number", "size", "why"}
            found = {one["what"]: (one["owner"], one["number"]) for one in told["removed"]}
            assert found["logs"] == found["artifacts"] == ("master", 1)
            assert {owner for owner, _ in found.values()} == {
                *("master", "refs", "notifications", "web", "host", "publisher")
            }
            assert (told["dry_run"], told["size"] > 0) == (bool(words), True)
            assert kept(site)[0] == ({"old"} if words else set())


# -- Buildbot's own tables ------------------------------------------------------------------------------------


@pytest.fixture
def buildbot(master: Database, connect: Callable[[Role], Database]) -> Database:
    """Buildbot's own tables, made by Buildbot's own description of them, with three builds of one builder."""
    import sqlalchemy
    from buildbot.db.model import Model

    from cleanroom_master.buildbot.inputs import buildbot_url

    engine = sqlalchemy.create_engine(buildbot_url(master.url))
    Model.metadata.create_all(engine)
    engine.dispose()
    with master.transaction() as cursor:
        cursor.execute(
            "SET LOCAL search_path = buildbot;"
            "INSERT INTO masters (id, name, name_hash, active, last_active) VALUES (1, 'm', 'm', 1, 0);"
            "INSERT INTO builders (id, name, name_hash) VALUES (1, 'b', 'b')"
        )
        for number in (1, 2, 3):
            cursor.execute(
                "SET LOCAL search_path = buildbot;"
                "INSERT INTO sourcestamps (id, ss_hash, codebase, repository, project, created_at)"
                " VALUES (%(n)s, %(n)s, '', '', '', 1);"
                "INSERT INTO buildsets (id, complete, complete_at, submitted_at, results, reason)"
                " VALUES (%(n)s, 1, 1, 1, 0, '');"
                "INSERT INTO buildset_sourcestamps (buildsetid, sourcestampid) VALUES (%(n)s, %(n)s);"
                "INSERT INTO buildrequests (id, buildsetid, builderid, submitted_at) VALUES (%(n)s, %(n)s, 1, 1);"
                "INSERT INTO builds (id, number, builderid, buildrequestid, masterid, started_at, state_string,"
                " locks_duration_s) VALUES (%(n)s, %(n)s, 1, %(n)s, 1, 1, '', 0);"
                "INSERT INTO steps (id, number, name, buildid, state_string, urls_json, hidden)"
                " VALUES (%(n)s, 0, 's', %(n)s, '', '', 0);"
                "INSERT INTO logs (id, name, slug, stepid, complete, num_lines, type)"
                " VALUES (%(n)s, 'l', 'l', %(n)s, 1, 1, 's');"
                "INSERT INTO logchunks (logid, first_line, last_line, content, compressed)"
                " VALUES (%(n)s, 0, 0, 'x', 0)",
                n=number,
            )
        cursor.execute(
            "UPDATE buildbot.buildsets SET complete_at = extract(epoch FROM now()) WHERE id = 2;"
            "INSERT INTO buildbot.buildsets (id, complete, submitted_at) VALUES (4, 0, 1)"
        )
    return master


def test_buildbot_forgets_builds_but_for_the_last_of_each_builder(
    owner: Database, buildbot: Database, site: Settings
) -> None:
    assert numbers(housekeeping.master(site, buildbot, remove=False))["Buildbot's rows"] == 1
    assert numbers(housekeeping.master(site, buildbot, remove=True))["Buildbot's rows"] == 1
    with owner.transaction() as cursor:
        left = {
            table: [row["id"] for row in cursor.rows(f"SELECT {key} AS id FROM buildbot.{table} ORDER BY 1")]
            for table, key in (("buildsets", "id"), ("builds", "id"), ("logchunks", "logid"), ("sourcestamps", "id"))
        }
    assert left == {"buildsets": [2, 3, 4], "builds": [2, 3], "logchunks": [2, 3], "sourcestamps": [2, 3]}


# -- the disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def dispatch(master: Database, site: Settings) -> Iterator[Callable[[str], Dispatch]]:
    """A master of a site that wants so much free."""
    with closing(Listener(master.url, CHANNELS)) as listener:

        def of(least: str) -> Dispatch:
            site.state.mkdir(exist_ok=True)
            return Dispatch(replace(site, values={**site.values, "storage.minimum_free": least}), master, listener)

        yield of


def test_without_room_nothing_is_begun_and_nothing_fails(
    owner: Database, dispatch: Callable[[str], Dispatch], web: TestClient
) -> None:
    add_product(owner)
    release = claim(owner, "v1")
    [due] = attempts.due(owner)
    # In MiB. A share, however large, is free on a disk that was never used.
    full = dispatch("1000000000")
    assert full.turn() == []
    # Buildbot may have been asked before the disk was full.
    assert full.lease(due.id, "me/1", "worker", "http://x/") is None
    seen = disk.low(owner)
    assert seen is not None
    assert "nothing new is begun until there is room" in seen.words
    for page in ("/hosts", "/queue"):
        assert "nothing new is begun until there is room" in web.get(page).text
    measured = web.get("/metrics").text
    assert f'cleanroom_disk_low{{place="{STATE}"}} 1.0' in measured
    since = seen.low_since
    full.turn()
    assert (again := disk.low(owner)) and again.low_since == since
    with owner.transaction() as cursor:
        assert cursor.value("SELECT state FROM cleanroom.release WHERE id = %(id)s", id=release.id) == "waiting"
    # There is room again: it goes on by itself.
    enough = dispatch("0")
    [asked] = enough.turn()
    assert asked.id == due.id
    assert disk.low(owner) is None
    assert attempts.lease(owner, due.id, "me/2", 60)


@pytest.mark.parametrize(("said", "bytes_of_1000_mib"), [("5%", 50 << 20), (1024, 1024 << 20), ("0.5 %", 5 << 20)])
def test_the_least_free_space_is_mebibytes_or_a_part(site: Settings, said: object, bytes_of_1000_mib: int) -> None:
    site.site.joinpath("cleanroom.toml").write_text(f"[storage]\nminimum_free = {json.dumps(said)}\n")
    found = load({"CLEANROOM_STATE": str(site.state), "CLEANROOM_SITE": str(site.site)})
    assert found.least_free(1000 << 20) == bytes_of_1000_mib


@pytest.mark.parametrize("said", ["much", "500%", "-1", "5%%"])
def test_what_is_no_space_is_refused(site: Settings, said: str) -> None:
    with pytest.raises(InputError, match="must be whole MiB, or a part of the file system such as 5%"):
        load({"CLEANROOM_STATE": str(site.state), "CLEANROOM_STORAGE_MINIMUM_FREE": said})
