"""The auditor of the torture: each kind of complaint is planted once, by hand, and must be seen where it belongs.

Rows are written by plain SQL and files by plain programs: what the auditor is compared with is not the product either.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from database_server import Server
from surroundings import variables
from tiny_packages import make_deb

from cleanroom_db.roles import Role

AUDITOR = Path(__file__).parents[1] / "torture/auditor.py"
GUEST = "debian-12-0badcafe"
ROWS = """
SET search_path = cleanroom;
INSERT INTO product (name, url) VALUES ('hello', 'file:///hello'), ('tool', 'file:///tool'), ('bad', 'file:///bad');
INSERT INTO ref_event (product, ref, commit, state) SELECT name, 'v1', repeat('a', 40), 'claimed' FROM product;
INSERT INTO release (product, ref, commit, kind, version, state, ref_event_id, recipe, recipe_digest, channel,
                     requested_by, finished_at)
SELECT product, ref, commit, kind, '1', CASE product WHEN 'bad' THEN 'failed' ELSE 'published' END::release_state, id,
       '{}', 'digest', 'testing', 'sql', now() FROM ref_event;
INSERT INTO build (release_id, target, phases)
SELECT id, CASE product WHEN 'tool' THEN 'debian-12/script' ELSE 'debian-12/deb' END, '{build}' FROM release;
INSERT INTO attempt (build_id, number, series_start, outcome, why, finished_at)
SELECT build.id, 1, 1, CASE product WHEN 'bad' THEN 'failed' ELSE 'passed' END::outcome, '', now()
  FROM build JOIN release ON release.id = release_id;
INSERT INTO phase (attempt_id, position, name, outcome, finished_at)
SELECT id, 0, 'build', outcome, finished_at FROM attempt;
INSERT INTO generation (number, switched_at, actor, reason, added)
VALUES (1, now(), 'publisher', 'test', '[{"file": "hello_1_all.deb"}]');
INSERT INTO publication (release_id, channel, state, requested_by, generation)
SELECT id, 'testing', 'published', 'verdict', 1 FROM release WHERE state = 'published';
INSERT INTO channel_release (release_id, channel, added_in)
SELECT id, 'testing', 1 FROM release WHERE state = 'published';
CREATE SCHEMA IF NOT EXISTS buildbot;
CREATE TABLE buildbot.buildrequests (id int, complete int);
CREATE TABLE buildbot.builds (id int, complete_at int);
"""
RELEASE = "(SELECT id FROM cleanroom.release WHERE product = '{}')"
ATTEMPT = (
    "(SELECT attempt.id FROM cleanroom.attempt JOIN cleanroom.build ON build.id = build_id"
    " JOIN cleanroom.release ON release.id = release_id WHERE product = '{}')"
)
OF, IN = f"WHERE id = {ATTEMPT}", f"WHERE attempt_id = {ATTEMPT}"


@dataclass
class World:
    """An installation that does not run: what it left is well until something is planted."""

    url: str
    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state"

    def sql(self, statement: str, *values: object) -> None:
        with psycopg2.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
        connection.close()

    def planned(self, product: str, expected: str, package: str | None) -> dict[str, Any]:
        targets = ["debian-12/deb" if package else "debian-12/script"]
        answer = f"the answer of {product}"
        return {"product": product, "ref": "v1", "version": "1", "targets": targets, "expected": expected} | {
            "answer": answer,
            "package": package,
        }

    def complaints(self, *words: str) -> dict[str, list[str]]:
        plan = {
            "url": self.url,
            "state": str(self.state),
            "runtime": str(self.root / "runtime"),
            "temporary": str(self.root / "tmp"),
            "instance": "0badcafe",
            "guests": [GUEST],
            "releases": [
                self.planned("hello", "published", "hello"),
                self.planned("tool", "published", None),
                self.planned("bad", "failed", "bad"),
            ],
        }
        (self.root / "plan.json").write_text(json.dumps(plan))
        done = subprocess.run(
            [sys.executable, "-I", AUDITOR, self.root / "plan.json", *words],
            env=variables(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return {column: found for column, found in json.loads(done.stdout).items() if found}

    def store(self, content: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(content).hexdigest()
        place = self.state / "artifacts" / digest[:2] / digest
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return digest, len(content)

    def log(self, product: str, text: str) -> None:
        """What the build of a product said."""
        content = text.encode()
        digest = hashlib.sha256(content).hexdigest()
        place = self.state / "logs" / digest[:2] / f"{digest}.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(gzip.compress(content))
        self.sql(
            "INSERT INTO cleanroom.step (phase_id, position, name, outcome, log_sha256, log_size) SELECT id,"
            f" (SELECT count(*) FROM cleanroom.step), 'command', outcome, %s, %s FROM cleanroom.phase"
            f" WHERE attempt_id = {ATTEMPT.format(product)}",
            digest,
            len(content),
        )

    def artifact(self, product: str, file: str, content: bytes) -> str:
        """What the build of a product made."""
        digest, size = self.store(content)
        self.sql(
            "INSERT INTO cleanroom.artifact (attempt_id, phase, file, sha256, size, kind)"
            f" VALUES ({ATTEMPT.format(product)}, 'build', %s, %s, %s, 'deb')",
            file,
            digest,
            size,
        )
        return digest


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one package, signed."""
    place = tmp_path_factory.mktemp("auditor")
    made = make_deb(place, "hello", "1", architecture="all", files={"/usr/share/hello/answer": "the answer of hello\n"})
    root = place / "repository/generations/1"
    pool, suite = root / "apt/pool", root / "apt/dists/testing"
    index = suite / "debian-12/binary-amd64/Packages.gz"
    for directory in (pool, index.parent, root / "keys"):
        directory.mkdir(parents=True)
    shutil.copy(made, pool / made.name)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    stanza = f"Package: hello\nVersion: 1\nFilename: pool/{made.name}\nSHA256: {digest}\nSize: {made.stat().st_size}\n"
    index.write_bytes(gzip.compress(stanza.encode()))
    listed = hashlib.sha256(index.read_bytes()).hexdigest()
    release = f"Suite: testing\nSHA256:\n {listed} {index.stat().st_size} debian-12/binary-amd64/Packages.gz\n"
    home = place / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--passphrase", "", "--pinentry-mode", "loopback"]
    try:
        subprocess.run([*gpg, "--quick-gen-key", "Test", "ed25519", "sign"], check=True, timeout=60)
        key = subprocess.run([*gpg, "--armor", "--export"], check=True, timeout=60, capture_output=True).stdout
        (root / "keys/cleanroom.asc").write_bytes(key)
        command = [*gpg, "--output", suite / "InRelease", "--clear-sign"]
        subprocess.run(command, input=release.encode(), check=True, timeout=60)
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, timeout=60)
    (place / "repository/current").symlink_to("generations/1")
    return place


@pytest.fixture
def world(server: Server, name: str, written: Path, tmp_path: Path) -> Iterator[World]:
    world = World(server.url(Role.OWNER, name), tmp_path)
    for directory in ("state", "runtime/locks", "tmp"):
        (tmp_path / directory).mkdir(parents=True)
    shutil.copytree(written / "repository", world.state / "repository", symlinks=True)
    world.sql(ROWS)
    for product in ("hello", "tool"):
        world.log(product, f"begun\nthe answer of {product}\n")
    world.artifact("tool", "result.txt", b"the answer of tool\n")
    deb = next(written.glob("*.deb")).read_bytes()
    digest = world.artifact("hello", "hello_1_all.deb", deb)
    world.sql(
        "INSERT INTO cleanroom.channel_package (channel, target, format, name, version, architecture, file, sha256,"
        " built_sha256, size, release_id, added_in) VALUES ('testing', 'debian-12/deb', 'deb', 'hello', '1', 'all',"
        f" 'hello_1_all.deb', %s, %s, 1, {RELEASE.format('hello')}, 1)",
        digest,
        digest,
    )
    yield world
    assert world.root == tmp_path


def statement(text: str) -> Callable[[World], None]:
    return lambda world: world.sql(text)


def in_package(world: World) -> Path:
    return world.state / "repository/generations/1/apt/pool/hello_1_all.deb"


def file(name: str, content: str = "") -> Callable[[World], None]:
    """Something is left in the installation's directories."""

    def plant(world: World) -> None:
        place = world.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)

    return plant


def another_deb(world: World) -> None:
    """The bytes that are published are others, also by the index."""
    fresh = make_deb(world.root, "hello", "1", architecture="all", files={"/usr/share/hello/answer": "another\n"})
    shutil.copy(fresh, in_package(world))


def added_again(world: World) -> None:
    """A second generation has what the first one has, and consumers see it."""
    world.sql(
        "INSERT INTO cleanroom.generation (number, switched_at, actor, reason, added)"
        " VALUES (2, now(), 'publisher', 'again', '[{\"file\": \"hello_1_all.deb\"}]')"
    )
    generations = world.state / "repository/generations"
    shutil.copytree(generations / "1", generations / "2", symlinks=True)
    (world.state / "repository/current").unlink()
    (world.state / "repository/current").symlink_to("generations/2")


def in_the_index(name: str) -> Callable[[World], None]:
    """A package is in the repository that is not to be there."""

    def plant(world: World) -> None:
        index = world.state / "repository/generations/1/apt/dists/testing/debian-12/binary-amd64/Packages.gz"
        text = gzip.decompress(index.read_bytes()).decode()
        index.write_bytes(gzip.compress(f"{text}\n{text.replace('Package: hello', f'Package: {name}')}".encode()))

    return plant


def without_artifact(world: World) -> None:
    shutil.rmtree(world.state / "artifacts")


PLANTED: list[tuple[str, Callable[[World], None]]] = [
    ("tag without exactly one release", statement("UPDATE cleanroom.release SET ref = 'v2' WHERE product = 'tool'")),
    ("target without exactly one build", statement("UPDATE cleanroom.build SET target = 'debian-13/deb'")),
    ("not in a final state", statement("UPDATE cleanroom.release SET state = 'held' WHERE product = 'hello'")),
    ("not in a final state", statement("UPDATE cleanroom.phase SET outcome = NULL, finished_at = NULL")),
    ("not in a final state", statement("UPDATE cleanroom.ref_event SET state = 'recorded' WHERE product = 'tool'")),
    ("failed by the torture", statement(f"UPDATE cleanroom.attempt SET outcome = 'failed' {OF.format('tool')}")),
    ("failed by the torture", statement(f"UPDATE cleanroom.phase SET outcome = 'failed' {IN.format('hello')}")),
    ("passed against the plan", statement(f"UPDATE cleanroom.attempt SET outcome = 'passed' {OF.format('bad')}")),
    ("not published exactly once", statement("DELETE FROM cleanroom.channel_release WHERE id = 1")),
    ("not published exactly once", statement(
        "INSERT INTO cleanroom.publication (release_id, channel, state, requested_by, generation)"
        f" VALUES ({RELEASE.format('tool')}, 'stable', 'published', 'x', 1)"
    )),
    ("not published exactly once", added_again),
    ("failed and published", statement(
        "INSERT INTO cleanroom.publication (release_id, channel, state, requested_by, generation)"
        f" VALUES ({RELEASE.format('bad')}, 'testing', 'published', 'x', 1)"
    )),
    ("failed and published", in_the_index("bad")),
    ("failed and published", in_the_index("nobody-s")),
    ("wrong bytes", another_deb),
    ("wrong bytes", lambda world: in_package(world).unlink()),
    ("wrong bytes", without_artifact),
    ("wrong bytes", lambda world: world.sql("DELETE FROM cleanroom.artifact WHERE file = 'result.txt'")),
    ("wrong bytes", in_the_index("bad")),
    ("record and repository disagree", lambda world: (world.state / "repository/generations/7").mkdir()),
    ("record and repository disagree", lambda world: (world.state / "repository/current").unlink()),
    ("log", lambda world: world.log("tool", "the answer of tool\n")),
    ("log", lambda world: shutil.rmtree(world.state / "logs")),
    ("lease", statement("INSERT INTO buildbot.buildrequests VALUES (1, 0)")),
    ("lease", statement(
        "UPDATE cleanroom.attempt SET outcome = NULL, finished_at = NULL, started_at = now(), lease_owner = 'x',"
        " lease_expires_at = now()"
    )),
    ("guest", file(f"state/guests/{GUEST}/guest.json", '{"state": "running"}')),
    ("guest", file(f"state/images/debian-12/users/{GUEST}")),
    ("guest", file(f"state/libvirt/etc/lxc/{GUEST}.xml")),
    ("lock", file(f"runtime/locks/{GUEST}")),
    ("temporary file", file("tmp/tmp01234567")),
    ("temporary file", file(f"runtime/libvirt/lxc/{GUEST}.devpts")),
    ("temporary file", file(f"state/libvirt/log/lxc/{GUEST}.log")),
    ("temporary file", file("state/temporary/publisher/tmp01234567")),
    ("temporary file", file("state/logs/growing/7-build-0-command.log")),
    ("temporary file", file("state/repository/.current.new")),
    ("temporary file", file("state/artifacts/ab/abcd.7.new")),
]  # fmt: skip


def test_nothing_is_said_of_what_is_well(world: World) -> None:
    assert world.complaints() == {}
    assert world.complaints("--ended") == {}


@pytest.mark.parametrize(("column", "plant"), PLANTED)
def test_what_is_wrong_is_seen(world: World, column: str, plant: Callable[[World], None]) -> None:
    plant(world)
    assert world.complaints()[column]


def test_guests_that_are_kept_ready_are_nobody_s_leftovers_while_it_runs(world: World) -> None:
    file(f"state/guests/{GUEST}/guest.json", '{"state": "ready"}')(world)
    file(f"runtime/locks/{GUEST}")(world)
    assert world.complaints() == {}
    assert set(world.complaints("--ended")) == {"guest", "lock"}


def test_a_process_that_still_runs_is_seen(world: World) -> None:
    running = subprocess.Popen(["sleep", "60"], cwd=world.state)
    try:
        assert [line for line in world.complaints("--ended")["process"] if line.startswith(f"{running.pid}:")]
    finally:
        running.kill()
        running.wait(20)


def test_the_auditor_shares_no_code_with_the_product() -> None:
    names = set()
    for node in ast.walk(ast.parse(AUDITOR.read_text())):
        if isinstance(node, ast.Import):
            names |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert names - set(sys.stdlib_module_names) == {"psycopg2"}
