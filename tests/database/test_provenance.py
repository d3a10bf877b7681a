"""What is signed of published packages: made of rows, published beside them, and checked with nothing but the key."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from database_server import Server, begin, claim, end
from shop import Killed, Shop
from test_taking_back import promoted, rolled_back
from tiny_packages import make_deb, make_rpm, make_source, sha256

from cleanroom_db import attempts, phases, requests
from cleanroom_db.connection import Database
from cleanroom_db.phases import NewArtifact, Reset, StepResult, TestResult
from cleanroom_db.releases import Release
from cleanroom_db.requests import Request
from cleanroom_db.roles import Role
from cleanroom_db.states import ReleaseState, RequestKind
from cleanroom_db.view import release_view
from cleanroom_master import cli
from cleanroom_master.publish.attachments import BILL, PROVENANCE, Attachments
from cleanroom_master.publish.beside import add_addresses
from cleanroom_master.publish.signing import Signer
from cleanroom_recipes.model import Outcome

IMAGE = "1" * 64
ENVIRONMENT = {"gcc": "4:12.2.0-3", "libc6": "2.36-9+deb12u9", "rpm:glibc": "2.36-1"}
INSTALLED = {"libc6": "2.36-9+deb12u10", "adduser": "3.134"}
NAMED = "Depends: libc6 (>= 2.36), adduser | sysvinit, exim4 | mail-transport-agent\nBuilt-Using: glibc (= 2.36-9)\n"
LOG = "2" * 64


def passed(shop: Shop, tag: str, *files: Path, environment: dict[str, str] | None = None, **kinds: str) -> Release:
    """A release whose build, with a phase that builds and one that installs, is recorded as the master does it."""
    release = claim(shop.owner, tag)
    held = begin(shop.owner, release)
    attempts.describe(shop.owner, held, worker="worker-1", isolation="container")
    for position, (name, packages) in enumerate((("build", environment or ENVIRONMENT), ("install", INSTALLED))):
        phase = phases.start(shop.owner, held, position, name)
        phases.reset(shop.owner, held, phase, Reset("debian-12", IMAGE, "container", "mirror", "pool", 0.02))
        step = phases.start_step(shop.owner, held, phase, 0, "tests")
        if name == "install":
            cases = [TestResult("one", Outcome.PASSED, 0.1), TestResult("two", Outcome.SKIPPED, 0.1)]
            phases.add_tests(shop.owner, held, phase, "tests", cases)
        phases.finish_step(shop.owner, held, step, StepResult(Outcome.PASSED, 0, 1.0, log_sha256=LOG))
        phases.set_packages(shop.owner, held, phase, packages)
        phases.finish(shop.owner, held, phase, Outcome.PASSED, seconds=2.0, command_seconds=1.0)
    artifacts = [
        NewArtifact(file.name, sha256(file), file.stat().st_size, kinds.get(file.suffix[1:], file.suffix[1:]))
        for file in files
    ]
    phases.add_artifacts(shop.owner, held, "build", artifacts)
    for file, artifact in zip(files, artifacts, strict=True):
        shop.files.take(file, artifact.sha256)
    end(shop.owner, held)
    return release


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A package whose control data names others."""
    return make_deb(tmp_path, more_control=NAMED)


@pytest.fixture
def package(shop: Shop, file: Path) -> Path:
    """That package, as it is published."""
    passed(shop, "v1", file)
    assert shop.settle() == 1
    return published(shop, "apt/pool/tiny/*/tiny_1.0_amd64.deb")


@pytest.fixture(scope="module")
def reader(server: Server, signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The same, published once for all tests that only look at it."""
    name, home = f"provenance_{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("reader")
    server.execute(f"CREATE DATABASE {name} TEMPLATE cleanroom")
    databases = [Database(server.url(role, name), wait=20) for role in (Role.OWNER, Role.PUBLISHER)]
    shop = Shop(*databases, signer, home / "site")
    passed(shop, "v1", make_deb(home, more_control=NAMED))
    assert shop.settle() == 1
    yield shop
    for database in databases:
        database.close()
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def seen(reader: Shop) -> Path:
    """The package that is only looked at, as it is published."""
    return published(reader, "apt/pool/tiny/*/tiny_1.0_amd64.deb")


def published(shop: Shop, pattern: str) -> Path:
    [found] = (shop.home / "repository/current").glob(pattern)
    return found


def statement(file: Path) -> Any:
    envelope = json.loads(Path(f"{file}{PROVENANCE}").read_bytes())
    return json.loads(base64.b64decode(envelope["payload"]))


@dataclass
class Consumer:
    """The command where there is nothing but the key: no settings, no state, no database."""

    key: Path
    _captured: pytest.CaptureFixture[str]

    def verify(self, package: Path, *words: str | Path, key: Path | None = None) -> tuple[int, str, str]:
        status = cli.run(["provenance", "verify", str(package), "--key", str(key or self.key), *map(str, words)])
        told = self._captured.readouterr()
        return status, told.out, told.err


@pytest.fixture
def consumer(
    tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Consumer:
    for name, value in of_a_consumer(tmp_path).items():
        monkeypatch.setenv(name, value)
    key = tmp_path / "key.asc"
    key.write_bytes(signer.public_key())
    return Consumer(key, capsys)


def of_a_consumer(tmp_path: Path) -> dict[str, str]:
    """Variables that lead to nothing."""
    nothing = tmp_path / "nothing"
    nothing.mkdir(exist_ok=True)
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(nothing),
        "CLEANROOM_STATE": str(nothing / "state"),
        "CLEANROOM_SITE": str(nothing / "site"),
        "CLEANROOM_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
    }


def test_a_statement_has_all_that_in_toto_and_slsa_demand(seen: Path) -> None:
    told = statement(seen)
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "https://slsa.dev/provenance/v1"
    assert told["subject"] == [{"name": "tiny_1.0_amd64.deb", "digest": {"sha256": sha256(seen)}}]
    definition, run = told["predicate"]["buildDefinition"], told["predicate"]["runDetails"]
    assert definition["buildType"] == "http://repository.example/provenance.html#build-type-v1"
    assert definition["externalParameters"] == {
        "product": "hello",
        "repository": "https://example.org/hello.git",
        "ref": "v1",
        "commit": "a" * 40,
        "target": "debian-12/deb",
        "recipe": {"digest": {"sha256": "digest"}},
    }
    assert run["builder"]["id"] == "http://repository.example/provenance.html#builder-container"
    assert run["metadata"]["invocationId"] == "hello/v1/debian-12/deb/1"
    for name in ("startedOn", "finishedOn"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", run["metadata"][name])
    # SLSA v1: of a resource at least one of these is known.
    for resource in [*definition["resolvedDependencies"], *run["byproducts"]]:
        assert {"uri", "digest", "content"} & set(resource)


def test_it_says_who_asked_and_what_it_was_built_from(seen: Path) -> None:
    told = statement(seen)["predicate"]["buildDefinition"]
    internal = told["internalParameters"]
    assert (internal["recordedBy"], internal["requestedBy"]) == ("test", "test")
    assert (internal["publicationRequestedBy"], internal["channel"]) == ("verdict", "testing")
    source, image, *packages = told["resolvedDependencies"]
    assert source["uri"] == "git+https://example.org/hello.git@refs/tags/v1"
    assert source["digest"] == {"gitCommit": "a" * 40}
    assert image == {"name": "image debian-12", "digest": {"sha256": IMAGE}}
    assert [one["uri"] for one in packages] == [
        "pkg:deb/debian/gcc@4:12.2.0-3?distro=debian-12",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?distro=debian-12",
        "pkg:rpm/glibc@2.36-1?distro=debian-12",
    ]
    # The rest is what we did ourselves.
    assert all(one["annotations"] == {"cleanroom_reportedBy": "guest"} for one in packages)
    assert "annotations" not in source


def test_it_has_every_phase_with_its_isolation_its_reset_and_its_tests(seen: Path) -> None:
    build, install = statement(seen)["predicate"]["runDetails"]["cleanroom_phases"]
    assert (build["name"], build["outcome"], build["replay"]) == ("build", "passed", 0)
    assert (build["isolation"], build["network"]) == ("container", "mirror")
    assert build["reset"] == {"method": "pool", "seconds": 0.02}
    assert build["image"] == {"name": "debian-12", "digest": {"sha256": IMAGE}}
    assert build["steps"] == [{"name": "tests", "outcome": "passed", "exitStatus": 0, "log": {"sha256": LOG}}]
    counts = {"passed": 1, "failed": 0, "skipped": 1, "flaky": 0}
    assert install["tests"] == {**counts, "cleanroom_reportedBy": "guest"}
    assert "cleanroom_reportedBy" not in build["tests"]


def test_passwords_in_addresses_stay_here(shop: Shop, file: Path) -> None:
    with shop.owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.product SET url = 'https://me:secret@example.org:8443/hello.git'")
    passed(shop, "v1", file)
    shop.settle()
    envelope = Path(f"{published(shop, 'apt/pool/tiny/*/*.deb')}{PROVENANCE}").read_bytes()
    payload = base64.b64decode(json.loads(envelope)["payload"])
    assert b"secret" not in payload
    assert b"git+https://example.org:8443/hello.git@refs/tags/v1" in payload


def test_the_bill_of_materials_says_what_it_needs_in_the_versions_that_were_there(seen: Path) -> None:
    bill = json.loads(Path(f"{seen}{BILL}").read_bytes())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == ("tiny", "1.0")
    assert root["hashes"] == [{"alg": "SHA-256", "content": sha256(seen)}]
    assert root["externalReferences"][0]["url"] == "https://example.org/hello.git"
    parts = {part["name"]: part for part in bill["components"]}
    # Nothing was installed for exim4: it was there before, or is not.
    assert {name: part["version"] for name, part in parts.items()} == {
        "libc6": "2.36-9+deb12u10",
        "adduser": "3.134",
        "glibc": "2.36-9",
    }
    roles = {name: part["properties"][0]["value"] for name, part in parts.items()}
    assert roles == {"libc6": "needs", "adduser": "needs", "glibc": "includes"}
    [needs] = [one["dependsOn"] for one in bill["dependencies"] if one["ref"] == root["bom-ref"]]
    assert set(needs) == {part["bom-ref"] for part in bill["components"]}


def test_one_signature_is_made_for_all_packages_of_a_build(shop: Shop, tmp_path: Path) -> None:
    source = make_source(tmp_path)
    tarballs = [tmp_path / "tiny_1.0.orig.tar.gz", tmp_path / "tiny_1.0-1.debian.tar.xz"]
    files = [make_deb(tmp_path, name) for name in ("one", "two")]
    passed(shop, "v1", *files, source, *tarballs, gz="source", xz="source")
    assert shop.settle() == 1
    found = list((shop.home / "repository/files/apt").rglob(f"*{PROVENANCE}"))
    assert {file.name for file in found} == {
        f"{name}{PROVENANCE}" for name in ("one_1.0_amd64.deb", "two_1.0_amd64.deb", "tiny_1.0-1.dsc")
    }
    assert len({file.stat().st_ino for file in found}) == 1
    told = statement(published(shop, "apt/pool/one/*/*.deb"))
    assert len(told["subject"]) == 3
    assert len(told["predicate"]["runDetails"]["byproducts"]) == 3


def test_of_an_rpm_the_bytes_that_are_published_are_what_the_statement_is_about(
    shop: Shop, tmp_path: Path, consumer: Consumer
) -> None:
    built = make_rpm(tmp_path, tags="Requires: bash\nRequires: /bin/sh\n")
    digest = sha256(built)
    passed(shop, "v1", built)
    assert shop.settle() == 1
    package = published(shop, "yum/debian-12/testing/pool/tiny/*/*.rpm")
    assert sha256(package) != digest
    assert consumer.verify(package)[0] == 0


def test_a_consumer_checks_it_with_nothing_but_the_key(seen: Path, tmp_path: Path, consumer: Consumer) -> None:
    """In a process of its own, which opens nothing else."""
    nothing = of_a_consumer(tmp_path)
    program = [sys.executable, "-c", "from cleanroom_master.cli import main; main()"]
    done = subprocess.run(
        [*program, "provenance", "verify", seen, "--key", consumer.key, "--format", "json"],
        env=nothing,
        cwd=nothing["HOME"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(Path(nothing["HOME"]).iterdir()) == []
    told = json.loads(done.stdout)
    assert told["verified"] is True
    assert (told["product"], told["ref"], told["commit"]) == ("hello", "v1", "a" * 40)
    assert told["builder"].endswith("#builder-container")
    assert told["sha256"] == sha256(seen)
    assert told["bill_of_materials"]["checked"] is True
    assert [phase["name"] for phase in told["phases"]] == ["build", "install"]


def test_people_are_told_what_holds(seen: Path, consumer: Consumer, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = consumer.verify(seen)
    assert status == 0
    for word in ("tiny_1.0_amd64.deb is what was signed", "digest holds", "signature holds", "a" * 40, "container"):
        assert word in out
    assert cli.run(["provenance", "show", str(seen)]) == 0
    assert "not verified" in capsys.readouterr().out


def test_its_page_says_how_to_check_it_without_any_program_of_ours(
    seen: Path, tmp_path: Path, consumer: Consumer, reader: Shop
) -> None:
    class Commands(HTMLParser):
        found: list[str] = []

        def handle_data(self, data: str) -> None:
            if "gpgv --keyring" in data:
                self.found.append(data)

    Commands().feed((reader.home / "repository/current/provenance.html").read_text())
    [commands] = Commands.found
    # Not everyone who runs the tests has jq: this does what is needed of it.
    jq = tmp_path / "bin/jq"
    jq.parent.mkdir()
    jq.write_text(
        f"#!{sys.executable}\nimport json, sys\nvalue = json.load(sys.stdin) if len(sys.argv) == 3 or"
        " sys.argv[1] == '.subject' else None\npath = sys.argv[-1].strip('.').replace('[0]', '.0').split('.')\n"
        "for name in path:\n    value = value[int(name)] if name.isdecimal() else value[name]\n"
        "print(value if isinstance(value, str) else json.dumps(value))\n"
    )
    jq.chmod(0o755)
    script = commands.replace("FILE", str(seen)).replace("cleanroom.asc", str(consumer.key))
    done = subprocess.run(
        ["sh", "-euc", script],
        cwd=tmp_path,
        env={"PATH": f"{jq.parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Good signature" in done.stderr
    assert done.stdout.count(sha256(seen)) == 2
    (tmp_path / "signed").write_bytes((tmp_path / "signed").read_bytes() + b" ")
    again = ["gpgv", "--keyring", tmp_path / "cleanroom.gpg", tmp_path / "signed.sig", tmp_path / "signed"]
    assert subprocess.run(again, capture_output=True, timeout=60, check=False).returncode == 1


def copied(package: Path, tmp_path: Path) -> Path:
    """The package with what is beside it, as a consumer has downloaded it."""
    tmp_path.mkdir()
    for suffix in ("", PROVENANCE, BILL):
        (tmp_path / f"{package.name}{suffix}").write_bytes(Path(f"{package}{suffix}").read_bytes())
    return tmp_path / package.name


def forged(sealed: Path) -> None:
    """Say that it was built from another commit."""
    envelope = json.loads(sealed.read_bytes())
    payload = base64.b64decode(envelope["payload"]).replace(b"a" * 40, b"b" * 40)
    sealed.write_text(json.dumps({**envelope, "payload": base64.b64encode(payload).decode()}))


TAMPERED: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "file": (lambda file: file.write_bytes(file.read_bytes() + b" "), 1, "is not what the statement is about"),
    "statement": (lambda file: forged(Path(f"{file}{PROVENANCE}")), 1, "is not signed by the key"),
    "bill": (lambda file: Path(f"{file}{BILL}").write_text("{}"), 1, "is not the one that was signed"),
    "no statement": (lambda file: Path(f"{file}{PROVENANCE}").unlink(), 2, "there is no signed statement"),
    "no JSON": (lambda file: Path(f"{file}{PROVENANCE}").write_text("x"), 2, "this is no signed statement"),
    "no file": (lambda file: file.unlink(), 2, "cannot read"),
}


def test_what_does_not_hold_is_told(seen: Path, tmp_path: Path, consumer: Consumer) -> None:
    for name, (change, expected, words) in TAMPERED.items():
        file = copied(seen, tmp_path / name)
        change(file)
        status, out, problem = consumer.verify(file)
        assert (status, out) == (expected, ""), name
        assert words in problem, name


def test_another_key_and_no_key_are_told(seen: Path, tmp_path: Path, consumer: Consumer, two_keys: Signer) -> None:
    other = tmp_path / "other.asc"
    other.write_bytes(two_keys.public_key())
    status, _, problem = consumer.verify(seen, key=other)
    assert (status, "another key signed it" in problem) == (1, True)
    status, _, problem = consumer.verify(seen, key=tmp_path / "none.asc")
    assert (status, "cannot read the key" in problem) == (2, True)
    (tmp_path / "text").write_text("no key")
    status, _, problem = consumer.verify(seen, key=tmp_path / "text")
    assert (status, "no OpenPGP public key" in problem) == (2, True)


def test_the_statement_of_another_version_does_not_do(
    shop: Shop, package: Path, tmp_path: Path, consumer: Consumer
) -> None:
    passed(shop, "v2", make_deb(tmp_path, version="2.0"))
    shop.settle()
    other = published(shop, "apt/pool/tiny/*/tiny_2.0_amd64.deb")
    status, _, problem = consumer.verify(package, "--provenance", f"{other}{PROVENANCE}")
    assert (status, "belongs to another version" in problem) == (1, True)
    assert consumer.verify(other, "--provenance", f"{other}{PROVENANCE}")[0] == 0


def test_release_show_and_the_page_lead_to_it(reader: Shop, seen: Path, signer: Signer) -> None:
    view = release_view(reader.owner, "hello", "v1")
    [told] = view["provenance"]
    add_addresses(view, "http://repository.example")
    place = seen.relative_to(reader.home / "repository/current")
    assert told["statement_url"] == f"http://repository.example/{place}{PROVENANCE}"
    assert told["statement_sha256"] == sha256(Path(f"{seen}{PROVENANCE}"))
    assert told["bill_sha256"] == sha256(Path(f"{seen}{BILL}"))
    assert told["signed_by"] == [signer.key.fingerprint]
    page = (reader.home / "repository/current/index.html").read_text()
    assert f'href="{place}{PROVENANCE}"' in page
    assert f'href="{place}{BILL}"' in page


def asked(shop: Shop, kind: RequestKind) -> Request:
    request = requests.ask(shop.owner, kind, actor="anna", subject="x")
    shop.publisher().turn()
    return requests.get(shop.owner, request.id)


EDITS: dict[str, Callable[[Path], object]] = {
    "changed": lambda file: file.write_bytes(b"other"),
    "removed": lambda file: file.unlink(),
    "replaced": lambda file: (file.unlink(), file.write_bytes(b"other")),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_somebody_changed_by_hand_is_named_and_made_whole(
    shop: Shop, package: Path, consumer: Consumer, edit: str
) -> None:
    for suffix in (PROVENANCE, BILL):
        EDITS[edit](Path(f"{package}{suffix}"))
    places = {problem["place"] for problem in asked(shop, RequestKind.VERIFY).result["problems"]}
    for suffix in (PROVENANCE, BILL):
        assert any(place.endswith(f"{package.name}{suffix}") for place in places)
    done = asked(shop, RequestKind.REPAIR)
    assert (done.result["left"], done.generation) == ([], 2)
    assert asked(shop, RequestKind.VERIFY).result["problems"] == []
    assert consumer.verify(package)[0] == 0


class Forgetful(Attachments):
    """Does not give attachments their names beside packages."""

    def place(self, sha256: str, address: Path) -> bool:
        return False


def test_nothing_leaves_without_its_statement(shop: Shop, file: Path) -> None:
    """The publisher's own verification looks for what is beside a package before it shows it."""
    passed(shop, "v1", file)
    repository = shop.repository()
    repository.attachments = Forgetful(repository.directory / "attached")
    assert shop.publisher(repository).turn() == 0
    assert repository.current() is None


def test_what_is_promoted_keeps_its_statement_and_what_is_collected_loses_it(shop: Shop, tmp_path: Path) -> None:
    release = passed(shop, "v1", make_rpm(tmp_path))
    assert shop.settle() == 1
    testing = published(shop, "yum/debian-12/testing/pool/tiny/*/*.rpm")
    promoted(shop, release)
    assert shop.settle() == 1
    stable = published(shop, "yum/debian-12/stable/pool/tiny/*/*.rpm")
    for suffix in (PROVENANCE, BILL):
        assert Path(f"{stable}{suffix}").samefile(f"{testing}{suffix}")
    passed(shop, "v2", make_deb(tmp_path))
    shop.settle()
    rolled_back(shop, 2)
    shop.publisher().turn()
    kept = shop.home / "repository/attached"
    assert len(list(kept.glob("*/*"))) == 4
    shop.kept, shop.grace = 1, timedelta(seconds=-1)
    assert asked(shop, RequestKind.COLLECT).result["files"] == 1
    assert len(list(kept.glob("*/*"))) == 2
    assert asked(shop, RequestKind.VERIFY).result["problems"] == []


def test_the_same_bytes_again_keep_the_statement_that_consumers_have(
    shop: Shop, package: Path, tmp_path: Path, file: Path
) -> None:
    before = Path(f"{package}{PROVENANCE}").read_bytes()
    copy = tmp_path / "copy" / package.name
    copy.parent.mkdir()
    copy.write_bytes(package.read_bytes())
    again = passed(shop, "v1-again", copy)
    assert shop.settle() == 1
    assert shop.state(again)[0] is ReleaseState.PUBLISHED
    assert Path(f"{package}{PROVENANCE}").read_bytes() == before
    assert asked(shop, RequestKind.VERIFY).result["problems"] == []


def test_what_was_prepared_in_vain_is_signed_anew_for_what_is_published(shop: Shop, file: Path, tmp_path: Path) -> None:
    """The same bytes of another release: the statement is about the one that is published."""
    copy = tmp_path / "copy" / file.name
    copy.parent.mkdir()
    copy.write_bytes(file.read_bytes())
    passed(shop, "v1", file)
    with pytest.raises(Killed):
        shop.publisher(shop.deadly("before build")).turn()
    shop.publisher().recover()
    with shop.owner.transaction() as cursor:
        cursor.execute("UPDATE cleanroom.publication SET state = 'cancelled'")
    passed(shop, "v2", copy)
    assert shop.settle() == 1
    told = statement(published(shop, "apt/pool/tiny/*/*.deb"))
    assert told["predicate"]["buildDefinition"]["externalParameters"]["ref"] == "v2"
    assert asked(shop, RequestKind.VERIFY).result["problems"] == []


def test_a_guest_may_say_what_it_likes(shop: Shop, file: Path, consumer: Consumer) -> None:
    hostile = {"a\x1b[31m": '"}, {"uri": "git+https://evil"}', "b" * 500: "\n\t<script>"}
    passed(shop, "v1", file, environment=hostile)
    assert shop.settle() == 1
    package = published(shop, "apt/pool/tiny/*/*.deb")
    uris = [one["uri"] for one in statement(package)["predicate"]["buildDefinition"]["resolvedDependencies"][2:]]
    assert len(uris) == 2
    assert all(re.fullmatch(r"[!-~]+", uri) for uri in uris)
    status, out, _ = consumer.verify(package)
    assert (status, "\x1b" in out) == (0, False)
