"""Publication into a repository that holds many packages already, beside reprepro, aptly and createrepo_c.

Ours is the real publisher, a process of its own that is woken by the row, from the row's commit until the release is
published: packages checked and signed, indexes, InRelease, Release.gpg and repomd.xml.asc, clients' programs, switch.
The packages that are there beforehand are put in without it, and the rpms among them without a signature.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import many_packages
import released
from figures import Row, ratio
from installation import fresh, home, say
from many_packages import make_deb, make_rpm

from cleanroom_base import run
from cleanroom_base.errors import InfrastructureError, TimedOut
from cleanroom_base.settings import Settings
from cleanroom_db import generations
from cleanroom_db.cluster import open_database
from cleanroom_db.connection import Database
from cleanroom_db.generations import NewPackage
from cleanroom_db.roles import Role
from cleanroom_master.places import Places
from cleanroom_master.publish import control
from cleanroom_master.publish.inspect import hash_file
from cleanroom_master.publish.package import Package, PackageFile, file_path
from cleanroom_master.publish.repository import Repository
from cleanroom_master.publish.signing import ALGORITHM
from cleanroom_master.publish.site import open_repository, open_signer

SIZES = (1_000, 10_000, 50_000)
RUNS = 7
_NEW = 90_000
_LONG = 3600.0
_TIMEOUT = 300.0
# Short beside what is measured, and long beside what a look costs.
_GLANCE = 0.001
_TITLE = (
    "three packages published into so many of each kind, medians in seconds (ours: apt and yum; reprepro, aptly: apt;"
    " createrepo_c --update with rpmsign and gpg: yum, one package)"
)
_CREATE = ("createrepo_c", "--quiet", "--no-database", "--simple-md-filenames", "--general-compress-type=gz")
_KEY = "Bench <bench@example.invalid>"


def measure(runs: int | None = None) -> dict[str, Any]:
    """Every size, each tool in turn."""
    wanted = os.environ.get("BENCH_SIZES")
    sizes = [int(size) for size in wanted.split(",")] if wanted else SIZES
    found: list[Row] = []
    for size in sizes:
        work = home() / f"packages-{size}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            found.append({"packages": size, **_measure(work, size, runs or RUNS)})
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return {"publish": found}


def tables(measured: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """What of it people want to see."""
    rows = measured["publish"]
    compared = [
        {
            "packages": row["packages"],
            **{name: row.get(name) for name in ("ours", "reprepro", "aptly", "createrepo_c")},
            "of reprepro": _share(row, "reprepro"),
            "of aptly": _share(row, "aptly"),
        }
        for row in rows
    ]
    rest = [
        {
            name: row.get(name)
            for name in ("packages", "rollback", "rollback_of_half", "recorded", "switch", "memory_mib")
        }
        for row in rows
    ]
    return [
        (_TITLE, compared),
        (
            "rollbacks of a few and of half of all packages until consumers see them, until the latter is recorded, and"
            " the switch itself (seconds); the publisher's memory",
            rest,
        ),
    ]


def _share(row: Row, peer: str) -> float | None:
    value = row.get(peer)
    return ratio(float(str(value)), float(str(row["ours"]))) if value else None


def _measure(work: Path, size: int, runs: int) -> Row:
    debs, rpms = _packages(size)
    (work / "new").mkdir()
    fresh_debs = [[make_deb(work / "new", _NEW + 3 * turn + one) for one in range(3)] for turn in range(runs)]
    fresh_rpms = [make_rpm(work / "new", _NEW + turn) for turn in range(runs)]
    signer = _Gpg(work)
    row: Row = _createrepo(work, signer, rpms[0].parent, fresh_rpms)
    row |= _ours(debs, rpms, [[*three[:2], rpm] for three, rpm in zip(fresh_debs, fresh_rpms, strict=True)])
    say(f"publish: {json.dumps(row)}")
    for peer in (_reprepro, _aptly):
        row |= peer(work, signer, debs, fresh_debs)
    signer.close()
    say(f"publish: {json.dumps(row)}")
    return row


def _packages(size: int) -> tuple[list[Path], list[Path]]:
    """So many .deb and .rpm, the latter with their indexes; they are kept from one measurement to the next."""
    kept = home() / f"tiny-packages-{size}"
    if not kept.is_dir():
        begun = time.monotonic()
        partial = kept.with_name(kept.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for kind in ("deb", "rpm"):
            (partial / kind).mkdir(parents=True)
        for number in range(size):
            make_deb(partial / "deb", number)
            make_rpm(partial / "rpm", number)
        run.run([*_CREATE, partial / "rpm"], timeout=_LONG)
        partial.rename(kept)
        say(f"publish: {size} .deb and {size} .rpm with their indexes took {time.monotonic() - begun:.1f} s to make")
    return sorted((kept / "deb").glob("*.deb")), sorted((kept / "rpm").glob("*.rpm"))


# -- ours ----------------------------------------------------------------------------------------------------------


def _ours(debs: list[Path], rpms: list[Path], releases: list[list[Path]]) -> Row:
    with fresh("publish", CLEANROOM_PUBLISHER_POLL="60") as settings:
        database = open_database(settings, Role.OWNER)
        released.add_product(database)
        with open_signer(settings) as key:
            repository = open_repository(settings, key)
            say("publish: putting them into our repository")
            _fill(database, repository, debs, rpms)
        with _publisher(settings) as process:
            taken = [_publish(database, settings, number, files) for number, files in enumerate(releases)]
            back = [_rollback(database, repository, 3 + number % 2)[0] for number in range(len(releases))]
            memory = _peak(process)
            half = [_rollback(database, repository, number) for number in (1, 3)]
        row: Row = {
            "ours": _median(taken),
            "ours_all": [round(one, 3) for one in taken],
            "rollback": _median(back),
            "rollback_of_half": round(max(seen for seen, _ in half), 3),
            "recorded": round(max(recorded for _, recorded in half), 3),
            "switch": _median([_switch(repository) for _ in releases], 6),
            "memory_mib": memory,
        }
        database.close()
        return row


def _fill(database: Database, repository: Repository, debs: list[Path], rpms: list[Path]) -> None:
    """Packages as the pool would have them; half of them in the first generation, and all in the second."""
    known = [*map(_deb_facts, debs), *_rpm_facts(rpms)]
    packages = []
    for file, facts in zip([*debs, *rpms], known, strict=True):
        place = repository.directory / "pool" / facts.sha256[:2] / facts.sha256
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, place)
        note = repository.directory / "facts" / facts.sha256[:2] / f"{facts.sha256}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(asdict(facts)))
        packages.append(facts.published_in("testing", f"debian-12/{facts.format}"))
        _address(repository, packages[-1], place)
    os.sync()
    built = [
        NewPackage(
            *(one.channel, one.target, one.format, one.name, one.version, one.architecture, one.file),
            *(one.sha256, one.sha256, one.size, None),
        )
        for one in packages
    ]
    for number, part in ((1, slice(0, None, 2)), (2, slice(1, None, 2))):
        repository.build(number, packages[part] if number == 1 else packages)
        generations.prepare(database, actor="bench", reason="what is there", added=built[part])
        repository.switch(number)
        generations.switched(database, number)
    with database.transaction() as cursor:
        cursor.execute("ANALYZE")


def _address(repository: Repository, package: Package, place: Path) -> None:
    """Its address, which the repository would make one by one, each flushed."""
    root = "apt" if package.format == "deb" else "yum/debian-12/testing"
    address = repository.directory / "files" / root / package.path
    address.parent.mkdir(parents=True, exist_ok=True)
    os.link(place, address)


def _deb_facts(file: Path) -> PackageFile:
    sha256, size = hash_file(file)
    package, version, _ = file.name.split("_")
    fields = many_packages.control(int(package.removeprefix("tiny")), version)
    place = {"Filename": file_path(package, sha256, file.name), "Size": str(size), "SHA256": sha256}
    entries = {"Packages": control.write({**fields, **place})}
    return PackageFile("deb", file.name, sha256, sha256, size, package, version, "amd64", entries, {})


def _rpm_facts(files: list[Path]) -> Iterator[PackageFile]:
    """As createrepo_c says it of all of them at once (the indexes that it made for itself)."""
    repodata = files[0].parent / "repodata"
    names = ("primary", "filelists", "other")
    found = zip(*(many_packages.elements(repodata, index) for index in names), strict=True)
    by_file = {three[0].partition('href="')[2].partition('"')[0]: three for three in found}
    for file in files:
        sha256, size = hash_file(file)
        package, version = file.name.split("-")[:2]
        entries = dict(zip(names, by_file[file.name], strict=True))
        entries["primary"] = entries["primary"].replace(
            f'href="{file.name}"', f'href="{file_path(package, sha256, file.name)}"'
        )
        yield PackageFile("rpm", file.name, sha256, sha256, size, package, f"{version}-1", "noarch", entries, {})


@contextmanager
def _publisher(settings: Settings) -> Iterator[int]:
    log = Places(settings).service_log("publisher")
    process = run.start([sys.executable, "-m", "cleanroom_master.publisher"], log=log, end_with_parent=True)
    try:
        yield process.pid
    except TimedOut as error:
        raise InfrastructureError(f"{error.message}:\n{log.read_text()[-2000:]}") from error
    finally:
        process.terminate()
        run.wait(process, 60)
        run.kill_group(process)


def _publish(database: Database, settings: Settings, number: int, files: list[Path]) -> float:
    released.keep(settings, files)
    with released.Watch(database) as watch:
        begun = time.monotonic()
        watch.release(released.record(database, number, files))
        return time.monotonic() - begun


def _rollback(database: Database, repository: Repository, target: int) -> tuple[float, float]:
    """How long until consumers see what was there, and until all of it is recorded."""
    before = repository.current()
    with released.Watch(database) as watch:
        begun = time.monotonic()
        request = released.ask_for_rollback(database, target)
        while repository.current() == before:
            if time.monotonic() - begun > _TIMEOUT:
                raise TimedOut("the publisher did not go back")
            time.sleep(_GLANCE)
        seen = time.monotonic() - begun
        watch.request(request)
        return seen, time.monotonic() - begun


def _switch(repository: Repository) -> float:
    """From the old generation being visible until the new one is: one rename."""
    name = repository.directory / "current"
    beside = name.with_name(".bench")
    beside.symlink_to(name.readlink())
    begun = time.perf_counter()
    beside.rename(name)
    return time.perf_counter() - begun


def _peak(process: int) -> int:
    """The most memory that a process had, in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) >> 10


# -- peers ---------------------------------------------------------------------------------------------------------


class _Gpg:
    """A key of the kind that ours is, for the peers."""

    def __init__(self, work: Path) -> None:
        self.home = work / "gnupg"
        self.home.mkdir(mode=0o700)
        self.environment = {"GNUPGHOME": str(self.home), "HOME": str(work)}
        words = ["--batch", "--passphrase", "", "--quick-generate-key", _KEY, ALGORITHM, "sign", "never"]
        run.run(["gpg", *words], environment=self.environment, timeout=_TIMEOUT)
        listed = run.run(["gpg", "--with-colons", "--list-keys"], environment=self.environment, timeout=_TIMEOUT).text
        self.key = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))

    def close(self) -> None:
        """End the agent that gpg has started."""
        run.run(["gpgconf", "--kill", "gpg-agent"], environment=self.environment, timeout=_TIMEOUT, check=False)


def _reprepro(work: Path, signer: _Gpg, debs: list[Path], releases: list[list[Path]]) -> Row:
    if not _is_there("reprepro"):
        return {}
    base = work / "reprepro"
    (base / "conf").mkdir(parents=True)
    (base / "conf/distributions").write_text(
        f"Codename: testing\nArchitectures: amd64\nComponents: main\nSignWith: {signer.key}\n"
    )

    def include(files: list[Path]) -> None:
        command = ["reprepro", "--silent", "--basedir", base, "includedeb", "testing", *files]
        run.run(command, environment=signer.environment, timeout=_LONG)

    say("publish: filling reprepro")
    for first in range(0, len(debs), 5000):
        include(debs[first : first + 5000])
    return {"reprepro": _median(_timed(include, releases))}


def _aptly(work: Path, signer: _Gpg, debs: list[Path], releases: list[list[Path]]) -> Row:
    if not _is_there("aptly"):
        return {}
    settings = work / "aptly.json"
    settings.write_text(json.dumps({"rootDir": str(work / "aptly"), "architectures": ["amd64"], "gpgProvider": "gpg"}))

    def aptly(*words: str | Path) -> None:
        run.run(["aptly", f"-config={settings}", *words], environment=signer.environment, timeout=_LONG)

    def publish(files: list[Path]) -> None:
        aptly("repo", "add", "bench", *files)
        aptly("publish", "update", "-batch", f"-gpg-key={signer.key}", "-skip-contents", "testing")

    say("publish: filling aptly")
    aptly("repo", "create", "bench")
    aptly("repo", "add", "bench", debs[0].parent)
    aptly("publish", "repo", "-batch", f"-gpg-key={signer.key}", "-skip-contents", "-distribution=testing", "bench")
    return {"aptly": _median(_timed(publish, releases))}


def _createrepo(work: Path, signer: _Gpg, directory: Path, files: list[Path]) -> Row:
    """createrepo_c over all packages with one more, which is signed, as is the result."""
    published = work / "createrepo"
    run.run(["cp", "--archive", "--link", directory, published], timeout=_LONG)

    def publish(added: list[Path]) -> None:
        (file,) = added
        shutil.copyfile(file, published / file.name)
        sign = [
            "rpmsign",
            "--addsign",
            "--define",
            f"__gpg {shutil.which('gpg')}",
            "--define",
            f"_gpg_name {signer.key}",
        ]
        run.run([*sign, published / file.name], environment=signer.environment, timeout=_TIMEOUT)
        run.run([*_CREATE, "--update", published], timeout=_LONG)
        repomd = published / "repodata/repomd.xml"
        repomd.with_suffix(".xml.asc").unlink(missing_ok=True)
        run.run(
            ["gpg", "--batch", "--armor", "--detach-sign", repomd], environment=signer.environment, timeout=_TIMEOUT
        )

    taken = _timed(publish, [[file] for file in files])
    shutil.rmtree(published)
    return {"createrepo_c": _median(taken)}


def _is_there(program: str) -> bool:
    if shutil.which(program) is None:
        say(f"{program} is not installed (apt-get install {program}): no peer to compare with")
        return False
    return True


def _timed(work: Callable[[list[Path]], None], releases: list[list[Path]]) -> list[float]:
    taken = []
    for files in releases:
        begun = time.monotonic()
        work(files)
        taken.append(time.monotonic() - begun)
    return taken


def _median(values: list[float], digits: int = 3) -> float:
    return round(statistics.median(values), digits)
