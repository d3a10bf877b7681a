"""One signing key takes over from another; keys that expired or vanished."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from database_server import Server
from shop import Killed, Shop, publishing
from tiny_packages import make_deb, make_rpm

from cleanroom_base.settings import load
from cleanroom_db import audit, generations, publications, requests, signing_keys
from cleanroom_db.connection import Database
from cleanroom_db.requests import Request
from cleanroom_db.roles import Role
from cleanroom_db.states import ReleaseState, RequestKind, RequestState
from cleanroom_master import cli, doctor
from cleanroom_master.publish.envelope import verified
from cleanroom_master.publish.signing import KeyTrouble, Signer

POINTS = ["before build", "before switch", "after switch"]


@pytest.fixture
def keys(two_keys: Signer) -> tuple[str, str]:
    """The key that signs, and the one that is to take over from it; in the home are both."""
    second, first = (key.fingerprint for key in two_keys.known)
    assert two_keys.key.fingerprint == first
    return first, second


@pytest.fixture
def site(owner: Database, publisher: Database, two_keys: Signer, keys: tuple[str, str], tmp_path: Path) -> Shop:
    """A repository with a .deb and an rpm, signed by the first of two keys."""
    shop = Shop(owner, publisher, two_keys, tmp_path / "site")
    shop.publisher().recover()
    shop.passed("v1", make_deb(tmp_path))
    shop.passed("v2", make_rpm(tmp_path), kind="rpm")
    assert shop.settle() == 2
    return shop


def ask(shop: Shop, kind: RequestKind, *, forced: bool = False, **parameters: object) -> Request:
    return requests.ask(
        shop.owner, kind, actor="anna", subject="key", reason="why", forced=forced, parameters=parameters
    )


def done(shop: Shop, request: Request) -> Request:
    return requests.get(shop.owner, request.id)


SIGNED = {
    "apt/dists/testing/InRelease": None,
    "apt/dists/testing/Release.gpg": "apt/dists/testing/Release",
    "yum/debian-12/testing/repodata/repomd.xml.asc": "yum/debian-12/testing/repodata/repomd.xml",
}


def signed_by(shop: Shop, tmp_path: Path, signer: Signer) -> set[tuple[str, ...]]:
    """The keys that signed what consumers check, each signed file's in their order."""
    ring = tmp_path / "ring.gpg"
    ring.write_bytes(subprocess.run(["gpg", "--homedir", signer.home, "--export"], check=True, stdout=-1).stdout)
    current = shop.home / "repository/current"
    return {
        tuple(one.fingerprint for one in verified(ring, current / place, current / content if content else None))
        for place, content in SIGNED.items()
    }


def test_both_keys_sign_during_the_overlap_and_one_after_it(
    site: Shop, keys: tuple[str, str], two_keys: Signer, tmp_path: Path
) -> None:
    first, second = keys
    assert signed_by(site, tmp_path, two_keys) == {(first,)}
    rotation = ask(site, RequestKind.ROTATE_KEY, overlap_days=30)
    publisher = site.publisher()
    assert publisher.turn() == 1
    settled = done(site, rotation)
    assert (settled.state, settled.generation, settled.result) == (RequestState.DONE, 2, {"fingerprint": second})
    assert signed_by(site, tmp_path, two_keys) == {(first, second)}
    leaving, new = signing_keys.everyone(site.database)
    assert (leaving.fingerprint, leaving.state, new.fingerprint, new.state) == (first, "leaves", second, "signs")
    assert leaving.retires_at is not None
    assert timedelta(days=29) < leaving.retires_at - datetime.now(UTC) < timedelta(days=31)
    page = (site.home / "repository/current/index.html").read_text()
    assert first in page
    assert second in page
    assert 'id="rotation"' in page
    [generation, *_] = generations.history(site.database)
    assert (generation.actor, generation.reason) == ("anna", f"the key {second} signs: why")
    [entry, *_] = audit.list_latest(site.owner, "key")
    assert (entry.action, entry.reason) == ("repository key rotate", "why")

    # What comes now is signed by both, and what did not change needs no more signatures.
    publisher.renew()
    assert site.repository().current() == 2
    site.passed("v3", make_deb(tmp_path, version="2.0"))
    assert site.settle() == 1
    assert signed_by(site, tmp_path, two_keys) == {(first, second)}

    with site.owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.signing_key SET retires_at = now() WHERE retires_at IS NOT NULL")
    publisher.renew()
    assert signed_by(site, tmp_path, two_keys) == {(second,)}
    current = site.home / "repository/current"
    assert (current / "keys/cleanroom.asc").read_bytes() == two_keys.exported(second)
    assert (current / "keys/retired.asc").read_bytes() == two_keys.exported(first)
    page = (current / "index.html").read_text()
    assert first not in page
    assert "keys/retired.asc" in page
    assert [key.state for key in signing_keys.everyone(site.database)] == ["retired", "signs"]
    verify = ask(site, RequestKind.VERIFY)
    publisher.turn()
    assert done(site, verify).result["problems"] == []


def test_a_rotation_that_is_under_way_is_ended_before_the_next(site: Shop, keys: tuple[str, str]) -> None:
    early = ask(site, RequestKind.RETIRE_KEY)
    ask(site, RequestKind.ROTATE_KEY)
    again = ask(site, RequestKind.ROTATE_KEY)
    end = ask(site, RequestKind.RETIRE_KEY)
    site.publisher().turn()
    assert done(site, early).state is RequestState.REFUSED
    assert "only one key signs" in done(site, early).why
    assert done(site, again).state is RequestState.REFUSED
    assert "a rotation is under way" in done(site, again).why
    assert done(site, end).result == {"fingerprint": keys[0]}
    assert [key.state for key in signing_keys.everyone(site.database)] == ["retired", "signs"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_a_rotation_is_done_once(
    site: Shop, keys: tuple[str, str], open_two_keys: Callable[[], Signer], tmp_path: Path, point: str
) -> None:
    rotation = ask(site, RequestKind.ROTATE_KEY)
    with pytest.raises(Killed):
        site.publisher(site.deadly(point)).turn()
    # A process that starts knows nothing but the record.
    fresh = open_two_keys()
    again = Shop.__new__(Shop)
    again.__dict__ = {**site.__dict__, "_signer": fresh}
    publisher = again.publisher()
    publisher.recover()
    publisher.turn()
    assert done(site, rotation).state is RequestState.DONE
    assert signed_by(site, tmp_path, fresh) == {keys}
    assert len(fresh.known) == 2
    publisher.renew()
    assert site.repository().current() == 2


def test_what_one_key_signed_alone_never_leaves_while_two_sign(
    site: Shop, two_keys: Signer, keys: tuple[str, str], tmp_path: Path
) -> None:
    """The verification asks for every key, apt and yum alike."""
    ask(site, RequestKind.ROTATE_KEY)
    site.publisher().turn()
    repository = site.repository()
    number = repository.current()
    assert number is not None
    current = repository.directory / "current"
    alone = Signer(two_keys.home, tmp_path / "alone", user_id="x", may_make=False)
    alone.use([keys[0]], {})
    contents = {place: (current / (content or "apt/dists/testing/Release")) for place, content in SIGNED.items()}
    try:
        for place, content in contents.items():
            before = (current / place).read_bytes()
            how = alone.clear_sign if place.endswith("InRelease") else alone.detach_sign
            (current / place).write_bytes(how(content.read_bytes()))
            problems = [str(problem) for problem in repository.verify(number)]
            assert problems == [f"{place}: is not signed by this repository's key {keys[1]}"]
            (current / place).write_bytes(before)
        assert repository.verify(number) == []
    finally:
        alone.close()


def test_an_rpm_that_another_key_signed_never_leaves(site: Shop, signer: Signer, tmp_path: Path) -> None:
    """The pool has it under the right checksum, so only its signature tells."""
    shop = Shop.__new__(Shop)
    shop.__dict__ = {**site.__dict__, "_signer": signer}
    (tmp_path / "other").mkdir()
    shop.passed("v3", make_rpm(tmp_path / "other", "foreign"), kind="rpm")
    # It was signed on its way into the pool, by somebody else's publisher.
    foreign = shop.publisher(shop.deadly("after the pool"))
    with pytest.raises(Killed):
        foreign.turn()
    publisher = site.publisher()
    assert publisher.turn() == 0
    assert ("foreign", "1.0-1") not in site.published()
    assert any("rpm refuses it" in one.why for one in publications_of(site))


def publications_of(shop: Shop) -> list[publications.Publication]:
    with shop.database.transaction() as cursor:
        rows = cursor.rows("SELECT * FROM cleanroom.publication ORDER BY id")
    return [publications.Publication.from_row(row) for row in rows]


def age(signer: Signer, fingerprint: str) -> None:
    """Have a key expire."""
    gpg = ["gpg", "--homedir", signer.home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
    done = [*gpg, "--quick-set-expire", fingerprint, "seconds=1"]
    subprocess.run(done, check=True, capture_output=True, timeout=60)
    signer.reload()
    [expires] = [key.expires for key in signer.known if key.fingerprint == fingerprint]
    assert expires is not None
    while datetime.now(UTC) <= expires:
        time.sleep(0.1)


def test_with_a_key_that_vanished_nothing_is_published_and_nothing_held(
    site: Shop, two_keys: Signer, keys: tuple[str, str], tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    two_keys.close()
    shutil.copytree(two_keys.home, backup, ignore=shutil.ignore_patterns("S.*"))
    release = site.passed("v3", make_deb(tmp_path, version="2.0"))
    shutil.rmtree(two_keys.home)
    publisher = site.publisher()
    with pytest.raises(KeyTrouble, match=f"the signing key {keys[0]} vanished"):
        while publisher.turn() or publisher.busy:
            pass
    rotation = ask(site, RequestKind.ROTATE_KEY)
    publisher.recover()
    with pytest.raises(KeyTrouble):
        publisher.turn()
    assert done(site, rotation).state is RequestState.REFUSED
    assert "rotate --lost" in done(site, rotation).why
    assert site.state(release)[0] is ReleaseState.PASSED
    assert site.repository().current() is not None

    # An agent that finds its home gone would be asked while it ends.
    two_keys.close()
    shutil.rmtree(two_keys.home)
    shutil.copytree(backup, two_keys.home)
    publisher.recover()
    assert publisher.turn() == 1
    assert site.state(release)[0] is ReleaseState.PUBLISHED


def test_a_new_key_takes_the_place_of_one_that_is_lost(
    site: Shop, two_keys: Signer, keys: tuple[str, str], tmp_path: Path
) -> None:
    public = two_keys.exported(keys[0])
    two_keys.close()
    shutil.rmtree(two_keys.home)
    rotation = ask(site, RequestKind.ROTATE_KEY, forced=True)
    publisher = site.publisher()
    publisher.recover()
    assert publisher.turn() == 1
    fresh = done(site, rotation).result["fingerprint"]
    assert fresh not in keys
    assert signed_by(site, tmp_path, two_keys) == {(fresh,)}
    # Consumers need it for the rpm that it signed.
    assert (site.home / "repository/current/keys/retired.asc").read_bytes() == public
    assert [key.state for key in signing_keys.everyone(site.database)] == ["retired", "signs"]


def test_a_key_that_expired_signs_nothing_until_it_is_extended(
    site: Shop, two_keys: Signer, keys: tuple[str, str], tmp_path: Path
) -> None:
    age(two_keys, keys[0])
    release = site.passed("v3", make_deb(tmp_path, version="2.0"))
    publisher = site.publisher()
    publisher.recover()
    with pytest.raises(KeyTrouble, match=f"the signing key {keys[0]} expired on") as raised:
        while publisher.turn() or publisher.busy:
            pass
    assert "cleanroom repository key extend" in str(raised.value)
    assert site.state(release)[0] is ReleaseState.PASSED
    longer = ask(site, RequestKind.EXTEND_KEY)
    while publisher.turn() or publisher.busy:
        pass
    assert done(site, longer).state is RequestState.DONE
    assert site.state(release)[0] is ReleaseState.PUBLISHED
    [key] = [one for one in signing_keys.everyone(site.database) if one.fingerprint == keys[0]]
    assert key.expires_at is not None
    assert key.expires_at - datetime.now(UTC) > timedelta(days=4 * 365)


def test_status_and_doctor_warn_before_a_key_expires_and_when_it_is_gone(
    site: Shop, two_keys: Signer, tmp_path: Path
) -> None:
    def warned(days: str) -> list[str]:
        variables = {"CLEANROOM_STATE": str(site.home), "CLEANROOM_SITE": str(tmp_path)}
        return doctor.warnings(load({**variables, "CLEANROOM_PUBLISHER_KEY_DAYS": days}))

    place = site.home / "publisher/gnupg"
    place.parent.mkdir()
    place.symlink_to(two_keys.home)
    assert warned("30") == []
    [warning] = warned("3000")
    assert "expires on" in warning
    assert "cleanroom repository key rotate" in warning
    place.unlink()
    [warning] = warned("30")
    assert f"vanished from {place}" in warning


def test_validity_is_renewed_by_both_keys(site: Shop, two_keys: Signer, keys: tuple[str, str], tmp_path: Path) -> None:
    site.valid = timedelta(days=10)
    ask(site, RequestKind.ROTATE_KEY)
    publisher = site.publisher()
    publisher.turn()
    release = site.home / "repository/current/apt/dists/testing/InRelease"
    assert "Valid-Until: " in release.read_text()
    number = site.repository().current() or 0
    publisher.renew()
    assert site.repository().current() == number
    old = datetime.now(UTC).timestamp() - timedelta(days=6).total_seconds()
    os.utime(release, (old, old))
    before = release.stat().st_ino
    publisher.renew()
    assert site.repository().current() == number + 1
    assert release.stat().st_ino != before
    assert signed_by(site, tmp_path, two_keys) == {keys}


@pytest.fixture
def at_work(site: Shop, server: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line's settings, and a publisher that looks again and again, as the process does."""
    monkeypatch.setenv("CLEANROOM_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("CLEANROOM_SITE", str(tmp_path))
    monkeypatch.setenv("CLEANROOM_DATABASE_URL", server.url(Role.OWNER, name))
    with publishing(site):
        yield


def tell(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = cli.run(["repository", "key", *words, "--format", "json"])
    told = capsys.readouterr()
    return status, json.loads(told.out) if told.out else told.err


@pytest.mark.usefixtures("at_work")
def test_keys_on_the_command_line(keys: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    first, second = keys
    status, [row] = tell(capsys, "list")
    assert list(row) == [
        *("fingerprint", "state", "user_id", "made_at", "expires_at", "signs_since", "retires_at", "retired_at", "why")
    ]
    assert (status, row["fingerprint"], row["state"]) == (0, first, "signs")
    status, told = tell(capsys, "rotate", "--overlap", "30", "--reason", "old")
    assert (status, told) == (0, {"fingerprint": second, "generation": 2})
    status, problem = tell(capsys, "rotate", "--reason", "old")
    assert (status, "a rotation is under way" in problem) == (2, True)
    status, told = tell(capsys, "extend", "--reason", "new")
    assert (status, told["fingerprint"], told["generation"]) == (0, second, 3)
    status, told = tell(capsys, "retire", "--reason", "done")
    assert (status, told) == (0, {"fingerprint": first, "generation": 4})
    assert [row["state"] for row in tell(capsys, "list")[1]] == ["retired", "signs"]
    status, problem = tell(capsys, "retire", "--reason", " ")
    assert (status, "a reason is needed" in problem) == (2, True)
