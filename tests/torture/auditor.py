"""Reads what an installation left in PostgreSQL, in its logs, in its repository and on the machine; says what is wrong.

It shares no code with the product, on purpose: who made a mistake there must not make the same one here. All it knows
is a plan (which tags there are, what is to become of each, and what they contain), the schema's tables, and formats
that others made: apt's indexes, OpenPGP, gzip, /proc.

    python auditor.py PLAN.json             while it runs, and nothing is under way
    python auditor.py PLAN.json --ended     after it was ended

Prints JSON: for each column of complaints, the complaints.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg2

PASSED, FAILED = "published", "failed"
COLUMNS = (
    "tag without exactly one release",
    "target without exactly one build",
    "not in a final state",
    "failed by the torture",
    "passed against the plan",
    "not published exactly once",
    "failed and published",
    "wrong bytes",
    "record and repository disagree",
    "log",
    "lease",
    "guest",
    "process",
    "mount",
    "overlay",
    "interface",
    "lock",
    "temporary file",
    "client",
)
_TIMEOUT = 120
_TEMPORARY = ("*.new", "*.partial", "*.removed", ".making-*", ".incoming-*", "*.tmp")
# Not the installation's own: what the image is, what the proxy keeps, and PostgreSQL's files.
_NOT_OURS = ("images", "proxy", "postgresql", "buildbot", "repositories")
# While it runs, a guest that nobody uses yet is nobody's leftover.
_KEPT = ("ready", "starting")

Complaints = dict[str, list[str]]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Planned:
    """A tag, what is to become of its release, and what it contains. `package` is None for what becomes no package."""

    product: str
    ref: str
    version: str
    targets: tuple[str, ...]
    expected: str
    answer: str
    package: str | None

    @property
    def name(self) -> str:
        """How it is called in complaints."""
        return f"{self.product} {self.ref}"


@dataclass
class Audit:
    """What was found."""

    complaints: Complaints = field(default_factory=lambda: {column: [] for column in COLUMNS})

    def complain(self, column: str, text: str) -> None:
        """Something is wrong."""
        self.complaints[column].append(text)


class Record:
    """The tables, read and not written."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.set_session(readonly=True, autocommit=True)

    def rows(self, statement: str, *values: object) -> Rows:
        """The rows of a query, by the names of their columns."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


# -- the record ----------------------------------------------------------------------------------------------------


def audit_record(audit: Audit, record: Record, planned: Sequence[Planned]) -> None:
    """Compare the tables with the plan."""
    releases: dict[tuple[str, str], Rows] = {}
    for row in record.rows("SELECT * FROM cleanroom.release"):
        releases.setdefault((row["product"], row["ref"]), []).append(row)
    wanted = {(one.product, one.ref) for one in planned}
    for key in releases.keys() - wanted:
        audit.complain("tag without exactly one release", f"{' '.join(key)} was never tagged, and has a release")
    for one in planned:
        found = releases.get((one.product, one.ref), [])
        if len(found) != 1:
            audit.complain("tag without exactly one release", f"{one.name} has {len(found)}")
        for release in found:
            _audit_release(audit, record, one, release)
    for row in record.rows("SELECT product, ref, state, why FROM cleanroom.ref_event WHERE state = 'recorded'"):
        audit.complain("not in a final state", f"the event of {row['product']} {row['ref']} waits: {row['why']}")
    _audit_open(audit, record)


def _audit_release(audit: Audit, record: Record, one: Planned, release: Mapping[str, Any]) -> None:
    if release["state"] not in (PASSED, FAILED):
        audit.complain("not in a final state", f"{one.name} is {release['state']}: {release['why']}")
    if one.expected == FAILED and release["state"] == PASSED:
        audit.complain("passed against the plan", f"{one.name} was meant to fail")
    builds = record.rows("SELECT * FROM cleanroom.build WHERE release_id = %s", release["id"])
    counted = Counter(build["target"] for build in builds)
    for target in sorted({*counted, *one.targets}):
        if counted[target] != (1 if target in one.targets else 0):
            audit.complain("target without exactly one build", f"{one.name} has {counted[target]} on {target}")
    for build in builds:
        _audit_attempts(audit, record, one, build)
    _audit_publication(audit, record, one, release)


def _audit_attempts(audit: Audit, record: Record, one: Planned, build: Mapping[str, Any]) -> None:
    attempts = record.rows("SELECT * FROM cleanroom.attempt WHERE build_id = %s ORDER BY number", build["id"])
    if [attempt["number"] for attempt in attempts] != list(range(1, len(attempts) + 1)):
        audit.complain("not in a final state", f"{one.name} has attempts {[each['number'] for each in attempts]}")
    for attempt in attempts[:-1]:
        if attempt["outcome"] != "infrastructure":
            audit.complain(
                "failed by the torture" if attempt["outcome"] != "passed" else "not published exactly once",
                f"{one.name} was tried again after an attempt that {attempt['outcome']}: {attempt['why']}",
            )
    last = attempts[-1]["outcome"] if attempts else None
    if one.expected == PASSED and last in ("failed", "regressed", "flaky", "cancelled"):
        audit.complain("failed by the torture", f"{one.name} {build['target']} {last}: {attempts[-1]['why']}")
    if one.expected == FAILED and last == "passed":
        audit.complain("passed against the plan", f"{one.name} {build['target']}")
    if one.expected == PASSED:
        for row in record.rows(
            "SELECT phase.name, phase.outcome, phase.why FROM cleanroom.phase JOIN cleanroom.attempt"
            " ON attempt.id = attempt_id WHERE build_id = %s AND phase.outcome IN ('failed', 'regressed', 'flaky')",
            build["id"],
        ):
            audit.complain("failed by the torture", f"{one.name}, phase {row['name']} {row['outcome']}: {row['why']}")


def _audit_publication(audit: Audit, record: Record, one: Planned, release: Mapping[str, Any]) -> None:
    publications = record.rows("SELECT * FROM cleanroom.publication WHERE release_id = %s", release["id"])
    present = record.rows("SELECT * FROM cleanroom.channel_release WHERE release_id = %s", release["id"])
    packages = record.rows(
        "SELECT * FROM cleanroom.channel_package WHERE release_id = %s AND format = 'deb'", release["id"]
    )
    if one.expected == FAILED:
        if publications or present or packages:
            found = [(row["channel"], row["state"]) for row in publications]
            audit.complain("failed and published", f"{one.name}: {found or present or packages}")
        return
    states = [row["state"] for row in publications]
    if states != ["published"] or len(present) != 1 or present[0]["removed_in"] is not None:
        audit.complain("not published exactly once", f"{one.name}: {states}, in a channel {len(present)} times")
        return
    switched = record.rows("SELECT switched_at FROM cleanroom.generation WHERE number = %s", present[0]["added_in"])
    if not switched or switched[0]["switched_at"] is None:
        audit.complain("not published exactly once", f"{one.name} is in generation {present[0]['added_in']}, not shown")
    if publications[0]["generation"] != present[0]["added_in"]:
        audit.complain("record and repository disagree", f"{one.name} is in two generations: {publications} {present}")
    there = [row for row in packages if row["removed_in"] is None]
    wanted = 1 if one.package else 0
    if len(packages) != wanted or len(there) != wanted:
        audit.complain("not published exactly once", f"{one.name} brought {len(packages)} packages")


def _audit_open(audit: Audit, record: Record) -> None:
    """What is still under way."""
    for table, open_ones in (
        ("attempt", "finished_at IS NULL"),
        ("phase", "outcome IS NULL"),
        ("step", "outcome IS NULL"),
        ("trial", "finished_at IS NULL"),
        ("publication", "state = 'pending'"),
        ("generation", "switched_at IS NULL"),
    ):
        key = "number" if table == "generation" else "id"
        for row in record.rows(f"SELECT {key} AS id FROM cleanroom.{table} WHERE {open_ones}"):
            audit.complain("not in a final state", f"{table} {row['id']} is open")
    for row in record.rows("SELECT id, lease_owner FROM cleanroom.attempt WHERE outcome IS NULL AND lease_owner <> ''"):
        audit.complain("lease", f"attempt {row['id']} is leased by {row['lease_owner']}")
    for row in record.rows("SELECT id FROM buildbot.buildrequests WHERE complete = 0"):
        audit.complain("lease", f"Buildbot still has the request {row['id']}")
    for row in record.rows("SELECT id FROM buildbot.builds WHERE complete_at IS NULL"):
        audit.complain("lease", f"Buildbot still has the build {row['id']}")
    for row in record.rows(
        "SELECT pid, state, query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'"
        " AND datname = current_database() AND pid <> pg_backend_pid()"
    ):
        audit.complain("lock", f"the server's process {row['pid']} is {row['state']}: {row['query'][:200]}")
    for row in record.rows("SELECT pid, mode FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
        audit.complain("lock", f"the server's process {row['pid']} waits for {row['mode']}")


# -- files of the record -------------------------------------------------------------------------------------------


def audit_files(audit: Audit, record: Record, planned: Sequence[Planned], state: Path) -> None:
    """Compare logs and artifacts with the tables and the plan."""
    for row in record.rows("SELECT DISTINCT log_sha256, log_size FROM cleanroom.step WHERE log_sha256 IS NOT NULL"):
        content = _log(state, row["log_sha256"])
        if content is None:
            audit.complain("log", f"log {row['log_sha256']} is not there, or cannot be read")
        elif hashlib.sha256(content).hexdigest() != row["log_sha256"] or len(content) != row["log_size"]:
            audit.complain("log", f"log {row['log_sha256']} has {len(content)} bytes of others")
    for row in record.rows("SELECT DISTINCT sha256, size, file FROM cleanroom.artifact"):
        stored = state / "artifacts" / row["sha256"][:2] / row["sha256"]
        if not stored.is_file() or _digest(stored) != row["sha256"] or stored.stat().st_size != row["size"]:
            audit.complain("wrong bytes", f"the stored artifact {row['file']} ({row['sha256']}) is another, or gone")
    for one in planned:
        if one.expected == PASSED:
            _audit_passed(audit, record, one, state)


def _audit_passed(audit: Audit, record: Record, one: Planned, state: Path) -> None:
    """What the attempts that passed said and made."""
    attempts = record.rows(
        "SELECT attempt.id, target FROM cleanroom.attempt JOIN cleanroom.build ON build.id = build_id"
        " JOIN cleanroom.release ON release.id = release_id"
        " WHERE product = %s AND ref = %s AND outcome = 'passed'",
        one.product,
        one.ref,
    )
    for attempt in attempts:
        rows = record.rows(
            "SELECT log_sha256 FROM cleanroom.step JOIN cleanroom.phase ON phase.id = phase_id"
            " WHERE attempt_id = %s AND phase.name = 'build' AND log_sha256 IS NOT NULL",
            attempt["id"],
        )
        said = [line for row in rows for line in (_log(state, row["log_sha256"]) or b"").decode().splitlines()]
        if said.count(one.answer) != 1:
            audit.complain("log", f"{one.name} was to say its line once, and said it {said.count(one.answer)} times")
        made = record.rows("SELECT file, sha256 FROM cleanroom.artifact WHERE attempt_id = %s", attempt["id"])
        if not any(_holds(one, state / "artifacts" / row["sha256"][:2] / row["sha256"], row["file"]) for row in made):
            audit.complain("wrong bytes", f"{one.name} made {[row['file'] for row in made]}: none has its answer")


def _holds(one: Planned, file: Path, name: str) -> bool:
    """Whether an artifact has the answer that its tag has."""
    if one.package is None:
        return name == "result.txt" and file.is_file() and file.read_text() == f"{one.answer}\n"
    return name.endswith(".deb") and file.is_file() and answer_of(file, one.package) == f"{one.answer}\n"


def _log(state: Path, digest: str) -> bytes | None:
    try:
        return gzip.decompress((state / "logs" / digest[:2] / f"{digest}.gz").read_bytes())
    except (OSError, EOFError, gzip.BadGzipFile):
        return None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def answer_of(deb: Path, package: str) -> str | None:
    """The answer that is in a package; None where there is none."""
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, timeout=_TIMEOUT, check=False)
    if done.returncode != 0:
        return None
    with tarfile.open(fileobj=BytesIO(done.stdout)) as tar:
        try:
            found = tar.extractfile(f"./usr/share/{package}/answer")
        except KeyError:
            return None
        return None if found is None else found.read().decode()


# -- the repository ------------------------------------------------------------------------------------------------


def audit_repository(audit: Audit, record: Record, planned: Sequence[Planned], repository: Path) -> None:
    """Compare what consumers see with the tables and the plan."""
    generations = record.rows("SELECT number, added FROM cleanroom.generation ORDER BY number")
    if not generations:
        return
    current = repository / "current"
    shown = int(current.readlink().name) if current.is_symlink() else None
    if shown != generations[-1]["number"]:
        audit.complain(
            "record and repository disagree", f"recorded is {generations[-1]['number']}, consumers see {shown}"
        )
    on_disk = {path.name for path in (repository / "generations").iterdir()}
    for name in sorted(on_disk - {str(row["number"]) for row in generations}):
        audit.complain("record and repository disagree", f"generation {name} is on the disk alone")
    counted = Counter(package["file"] for row in generations for package in row["added"])
    for file, times in counted.items():
        if times != 1:
            audit.complain("not published exactly once", f"{file} was added {times} times")
    if shown is None:
        return
    _audit_signature(audit, current)
    _audit_packages(audit, record, planned, current / "apt")


def _audit_packages(audit: Audit, record: Record, planned: Sequence[Planned], root: Path) -> None:
    """Each package that is to be there is there once, with its bytes, and no other."""
    listed = [stanza for index in sorted(root.glob("dists/*/*/binary-*/Packages.gz")) for stanza in _stanzas(index)]
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for stanza in listed:
        # What is for all architectures may stand in the index of each.
        key = (stanza["Package"], stanza["Version"])
        found.setdefault(key, set()).add((stanza["Filename"], stanza["SHA256"]))
    for one in planned:
        if one.package is None:
            continue
        places = found.pop((one.package, one.version), set())
        if one.expected == FAILED:
            if places:
                audit.complain("failed and published", f"{one.name} is in the repository: {sorted(places)}")
            continue
        if len(places) != 1:
            audit.complain("not published exactly once", f"{one.name} is at {len(places)} places: {sorted(places)}")
        for place, digest in places:
            file = root / place
            if not file.is_file() or _digest(file) != digest:
                audit.complain("wrong bytes", f"{place} is another file than the index says, or gone")
            elif answer_of(file, one.package) != f"{one.answer}\n":
                audit.complain("wrong bytes", f"{place} has the answer {answer_of(file, one.package)!r}")
            _audit_made(audit, record, one, digest)
    for name, version in found:
        audit.complain("failed and published", f"{name} {version} is in the repository, and in no plan")


def _audit_made(audit: Audit, record: Record, one: Planned, digest: str) -> None:
    """What is published is what the attempt that passed made."""
    made = record.rows(
        "SELECT artifact.sha256 FROM cleanroom.artifact JOIN cleanroom.attempt ON attempt.id = attempt_id"
        " JOIN cleanroom.build ON build.id = build_id JOIN cleanroom.release ON release.id = release_id"
        " WHERE product = %s AND ref = %s AND outcome = 'passed' AND file LIKE '%%.deb'",
        one.product,
        one.ref,
    )
    if [row["sha256"] for row in made] != [digest]:
        audit.complain("wrong bytes", f"{one.name} made {made}, published is {digest}")


def _audit_signature(audit: Audit, current: Path) -> None:
    """The index of each suite is signed by the published key, and what it lists is there."""
    for signed in sorted(current.glob("apt/dists/*/InRelease")):
        with tempfile.TemporaryDirectory() as scratch:
            keyring, text = Path(scratch, "key.gpg"), Path(scratch, "Release")
            key = (current / "keys/cleanroom.asc").read_bytes()
            packed = subprocess.run(["gpg", "--dearmor"], input=key, capture_output=True, timeout=_TIMEOUT, check=False)
            keyring.write_bytes(packed.stdout)
            command = ["gpgv", "--keyring", keyring, "--output", text, signed]
            done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)
            if done.returncode != 0:
                audit.complain("wrong bytes", f"{signed} is not signed by the published key: {done.stderr.decode()}")
                continue
            for digest, size, name in _listed(text.read_text()):
                file = signed.parent / name
                # Not every form of an index that a Release names has to be there.
                if file.exists() and (_digest(file) != digest or file.stat().st_size != size):
                    audit.complain("wrong bytes", f"{file} is not what InRelease says")


def _listed(release: str) -> Iterator[tuple[str, int, str]]:
    inside = False
    for line in release.splitlines():
        if not line.startswith(" "):
            inside = line.startswith("SHA256:")
        elif inside:
            digest, size, name = line.split()
            yield digest, int(size), name


def _stanzas(index: Path) -> Iterator[dict[str, str]]:
    for block in gzip.decompress(index.read_bytes()).decode().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+): ?(.*)$", block, re.MULTILINE))
        if fields:
            yield fields


# -- the machine ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """Where an installation leaves traces. `guests` are the names of all guests that there ever were; `ended`: it was
    ended, and nothing at all may be left."""

    state: Path
    runtime: Path
    temporary: Path
    instance: str
    guests: frozenset[str]
    ended: bool


def audit_machine(audit: Audit, machine: Machine) -> None:
    """Look for what guests and processes left on the machine."""
    kept = set() if machine.ended else _kept(machine)
    homes = {path.name for path in machine.state.glob("guests/*") if path.is_dir()}
    for name in sorted(homes - kept):
        audit.complain("guest", f"{name} has a directory")
    for file in machine.state.glob("libvirt/etc/*/*.xml"):
        if file.stem in machine.guests - kept:
            audit.complain("guest", f"{file.stem} is defined")
    for file in machine.state.glob("images/*/users/*"):
        if file.name not in kept:
            audit.complain("guest", f"{file.name} claims an image")
    _audit_mounts(audit, machine, kept)
    _audit_groups(audit, machine, kept)
    _audit_locks(audit, machine, kept)
    _audit_temporary(audit, machine, kept)
    if machine.ended:
        _audit_ended(audit, machine)
    else:
        for name in sorted(machine.guests - kept):
            for process in _processes(name):
                audit.complain("process", f"{name}: {process}")


def _kept(machine: Machine) -> set[str]:
    """The guests that are kept ready, or being made so."""
    names = set()
    for file in machine.state.glob("guests/*/guest.json"):
        try:
            if json.loads(file.read_text())["state"] in _KEPT:
                names.add(file.parent.name)
        except (OSError, ValueError, KeyError):
            continue
    return names


def _audit_mounts(audit: Audit, machine: Machine, kept: set[str]) -> None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, kind = line.split()[4], line.partition(" - ")[2].split()[0]
        parts = Path(place).parts
        if place.startswith(f"{machine.state}/") and not kept.intersection(parts):
            # The guests' own directory is shared with the daemon while it runs.
            if not machine.ended and place == str(machine.state / "guests"):
                continue
            audit.complain("overlay" if kind == "overlay" else "mount", place)
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        backing = Path(file.read_text().strip())
        if str(backing).startswith(f"{machine.state}/") and not kept.intersection(backing.parts):
            audit.complain("mount", f"{file.parts[3]} is {backing}")


def _audit_groups(audit: Audit, machine: Machine, kept: set[str]) -> None:
    for path in Path("/sys/fs/cgroup").glob("*/cleanroom-*"):
        if path.name.removeprefix("cleanroom-") in machine.guests - kept:
            audit.complain("process", f"the control group {path}")
    links = sorted(path.name for path in Path("/sys/class/net").glob(f"cg{machine.instance[:6]}*"))
    if machine.ended or len(links) > len(kept):
        for name in links:
            audit.complain("interface", f"{name}; {len(kept)} guests are kept ready")


def _audit_locks(audit: Audit, machine: Machine, kept: set[str]) -> None:
    for directory in ("locks", "ssh"):
        for path in (machine.runtime / directory).glob("*"):
            if path.name.split(".")[0] not in kept:
                audit.complain("lock", str(path))
    if machine.ended:
        held = {line.split()[5].rpartition(":")[2] for line in Path("/proc/locks").read_text().splitlines() if line}
        for root in (machine.state / "run", machine.state / "repository", machine.runtime):
            for path in root.rglob("*.lock"):
                if str(path.stat().st_ino) in held and _holder(path):
                    audit.complain("lock", f"{path} is held")


def _holder(path: Path) -> bool:
    """Whether somebody has a file open; numbers of files alone are not enough, other disks have them too."""
    wanted = path.stat()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found = link.stat()
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


def _audit_temporary(audit: Audit, machine: Machine, kept: set[str]) -> None:
    gone = machine.guests - kept
    for path in (*machine.runtime.glob("libvirt/**/*"), *machine.state.glob("libvirt/**/*")):
        if path.name.rpartition(".")[0] in gone or path.name.split("-", 2)[-1] in gone:
            audit.complain("temporary file", str(path))
    for path in (*machine.temporary.glob("*"), *machine.state.glob("temporary/*/*")):
        audit.complain("temporary file", str(path))
    for name in ("logs/growing", "incoming", "sources"):
        for path in (machine.state / name).glob("*"):
            audit.complain("temporary file", str(path))
    for top in machine.state.glob("*"):
        if (
            top.name in _NOT_OURS
            or top.is_symlink()
            or not top.is_dir()
            or (top.name == "guests" and not machine.ended)
        ):
            continue
        for pattern in _TEMPORARY:
            for path in top.rglob(pattern):
                audit.complain("temporary file", str(path))


def _audit_ended(audit: Audit, machine: Machine) -> None:
    for process in _processes(str(machine.state), str(machine.runtime), *machine.guests):
        audit.complain("process", process)
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, timeout=_TIMEOUT, check=False, text=True)
    network = machine.state / "network.json"
    name = json.loads(network.read_text())["name"] if network.exists() else None
    for line in tables.stdout.splitlines():
        if name is not None and line.split()[-1] == name:
            audit.complain("interface", line)
    if name is not None and Path("/sys/class/net", name).exists():
        audit.complain("interface", f"the network {name}")


def _processes(*words: str) -> Iterator[str]:
    """Processes whose command line or working directory names one of these; not this one."""
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) in (os.getpid(), os.getppid()):
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            there = str((entry / "cwd").readlink())
        except OSError:
            continue
        if any(word in line or there.startswith(word) for word in words):
            yield f"{entry.name}: {line[:200]}"


# -- all of it -----------------------------------------------------------------------------------------------------


def audit(plan: Mapping[str, Any], *, ended: bool) -> Complaints:
    """All complaints, by their columns."""
    found = Audit()
    planned = [Planned(**{**row, "targets": tuple(row["targets"])}) for row in plan["releases"]]
    machine = Machine(
        Path(plan["state"]),
        Path(plan["runtime"]),
        Path(plan["temporary"]),
        plan["instance"],
        frozenset(plan["guests"]),
        ended,
    )
    if not ended:
        record = Record(plan["url"])
        audit_record(found, record, planned)
        audit_files(found, record, planned, machine.state)
        audit_repository(found, record, planned, machine.state / "repository")
        record.close()
    audit_machine(found, machine)
    return found.complaints


def main() -> None:
    """Audit what a plan says, and print what is wrong."""
    plan = json.loads(Path(sys.argv[1]).read_text())
    json.dump(audit(plan, ended="--ended" in sys.argv[2:]), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
