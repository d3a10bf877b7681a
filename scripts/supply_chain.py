"""What Cleanroom itself consists of: licences, a bill of materials, known advisories. Run it by the Makefile.

    python scripts/supply_chain.py licenses [--check]    write LICENSES.md, or say whether it is up to date
    python scripts/supply_chain.py sbom FILE             write a bill of materials (CycloneDX 1.6, JSON)
    python scripts/supply_chain.py audit [--advisories FILE | --service URL]

Exit status: 0 fine; 1 something was found; 2 bad input; 3 the service with the advisories cannot be reached.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
OURS = "GPL-2.0-or-later"
LISTED = ROOT / "LICENSES.md"
# Source: https://www.gnu.org/licenses/license-list.html
COMPATIBLE = {
    *("0BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0", "TCL", "ZPL-2.1", "MPL-2.0"),
    *("GPL-2.0-only", "GPL-2.0-or-later", "LGPL-2.0-or-later", "LGPL-2.1-or-later", "LGPL-3.0-or-later"),
}
# Compatible with version 3 of the GPL, to which our "or later" leads, and not with version 2 alone.
VERSION_3 = {"Apache-2.0"}
# What packages say that do not use SPDX's words.
_SAID = {
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    # Both of Pallets and of gitdb say so and mean this, as their files do.
    "BSD License": "BSD-3-Clause",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-3.0-or-later",
    "LGPL with exceptions": "LGPL-3.0-or-later",
    "LGPL-v2.0-or-later": "LGPL-2.0-or-later",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF-2.0",
}
# Packages that say nothing in a form that programs read, or not all; looked up in their own files.
_LOOKED_UP = {"axe-playwright-python": "MIT AND MPL-2.0", "uvloop": "Apache-2.0 OR MIT"}
_SERVICE = "https://api.osv.dev"
_TIMEOUT = 30.0
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)[^\\\n]*\\?\n((?:\s+--hash=\S+[ \\]*\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Locked:
    """One line of the lock file. `runtime`: Cleanroom needs it to run, not only for its own tests."""

    name: str
    version: str
    hashes: tuple[str, ...]
    runtime: bool

    @property
    def licence(self) -> str:
        """As SPDX says it, by what the installed package says. Raises ValueError."""
        if self.name in _LOOKED_UP:
            return _LOOKED_UP[self.name]
        told = metadata.metadata(self.name)
        classifiers = told.get_all("Classifier") or []
        said = [
            told.get("License-Expression"),
            *(told.get("License") or "").splitlines()[:1],
            *(one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License ::")),
        ]
        words = [_SAID.get(one, one) for one in said if one]
        found = next((one for one in words if _known(one)), None)
        if found is None:
            raise ValueError(f"{self.name} {self.version}: nobody decided about {' / '.join(words) or 'no licence'}")
        return found


def _known(expression: str) -> bool:
    return all(one in COMPATIBLE | VERSION_3 for one in re.split(r" (?:AND|OR) ", expression))


def version_3_only(expression: str) -> bool:
    """Whether what is under these licences can be combined with version 3 of the GPL, but not with version 2."""
    return not any(all(one in COMPATIBLE for one in way.split(" AND ")) for way in expression.split(" OR "))


def locked(lock: str, project: Mapping[str, Any]) -> list[Locked]:
    """All packages of a lock file, by name; what the project needs to run is found by what is installed."""
    lines = {
        canonicalize_name(match[1]): (match[2], tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", match[3])))
        for match in _LOCKED.finditer(lock)
    }
    needed = _closure(project["dependencies"])
    return [Locked(name, version, hashes, name in needed) for name, (version, hashes) in sorted(lines.items())]


def _closure(requirements: Iterable[str]) -> set[str]:
    """The names of requirements, of what they require here, and so on."""
    found: set[str] = set()
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if one.marker is not None and not any(one.marker.evaluate({"extra": extra}) for extra in one.extras | {""}):
            continue
        new = name not in found
        found.add(name)
        if new or one.extras:
            waiting += [inner for inner in _required_by(name, one.extras) if canonicalize_name(inner.name) not in found]
    return found


def _required_by(name: str, extras: set[str]) -> Iterator[Requirement]:
    for line in metadata.requires(name) or ():
        inner = Requirement(line)
        if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            inner.marker = None
            yield inner


def table(packages: Iterable[Locked]) -> str:
    """LICENSES.md. Raises ValueError with every licence that nobody decided about."""
    rows, problems = [], []
    for one in packages:
        try:
            licence = one.licence
        except (ValueError, metadata.PackageNotFoundError) as error:
            problems.append(str(error))
            continue
        note = "with version 3 of the GPL" if version_3_only(licence) else ""
        rows.append(f"| {one.name} | {one.version} | {licence} | {'running' if one.runtime else 'tests'} | {note} |")
    if problems:
        raise ValueError("\n".join(problems))
    return _HEAD.format(ours=OURS) + "\n".join(rows) + "\n"


_HEAD = """\
# Licences

Cleanroom is under {ours} ([`LICENSE`](LICENSE)). It uses the packages below, as `requirements.lock` has them; none of \
them is part of it. `make licenses` writes this page from what the installed packages say; a test fails when it does \
not fit the lock file, or when somebody has yet to decide whether a licence fits ours.

Where the last column says so, a work that has both can be passed on under version 3 of the GPL, to which "or later" \
leads, and not under version 2. Buildbot calls itself version 2 of the GPL, and itself requires packages of that kind: \
who passes on all of it as one work has to look at that; whoever installs and runs it need not.

| package | version | licence | for | fits |
|---|---|---|---|---|
"""


def bill(packages: Iterable[Locked], project: Mapping[str, Any]) -> str:
    """A bill of materials of Cleanroom, the same for the same lock file."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    licences = LicenseFactory()
    all_packages = list(packages)
    components = {
        one.name: Component(
            type=ComponentType.LIBRARY,
            name=one.name,
            version=one.version,
            bom_ref=f"pkg:pypi/{one.name}@{one.version}",
            purl=PackageURL("pypi", None, one.name, one.version),
            scope=ComponentScope.REQUIRED if one.runtime else ComponentScope.EXCLUDED,
            licenses=[licences.make_from_string(one.licence)],
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in one.hashes[:1]]
            if len(one.hashes) == 1
            else [],
        )
        for one in all_packages
    }
    root = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=project["version"],
        bom_ref=f"pkg:pypi/{project['name']}@{project['version']}",
        licenses=[licences.make_from_string(OURS)],
    )
    content = "\n".join(f"{one.name}=={one.version}" for one in all_packages)
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, content), components=components.values())
    bom.metadata.component = root
    bom.metadata.timestamp = None
    direct = {canonicalize_name(Requirement(one).name) for one in project["dependencies"]}
    bom.register_dependency(root, [components[name] for name in sorted(direct & components.keys())])
    for name, component in components.items():
        inner = {canonicalize_name(one.name) for one in _required_by(name, set())}
        bom.register_dependency(component, [components[one] for one in sorted(inner & components.keys())])
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


@dataclass(frozen=True)
class Advisory:
    """Something that is known to be wrong with one version of a package."""

    package: str
    version: str
    id: str
    summary: str


def advised(packages: Iterable[Locked], advisories: Iterable[Mapping[str, Any]]) -> list[Advisory]:
    """What advisories say of packages. Source of the format: the Open Source Vulnerability schema (OSV)."""
    versions = {one.name: one.version for one in packages}
    found = []
    for advisory in advisories:
        for affected in advisory.get("affected", ()) if not advisory.get("withdrawn") else ():
            package = affected.get("package", {})
            name = canonicalize_name(str(package.get("name", "")))
            if package.get("ecosystem") != "PyPI" or name not in versions:
                continue
            if _is_affected(versions[name], affected):
                told = str(advisory.get("summary") or advisory.get("details", ""))[:200]
                found.append(Advisory(name, versions[name], str(advisory["id"]), told))
    return sorted(set(found), key=lambda one: (one.package, one.id))


def _is_affected(version: str, affected: Mapping[str, Any]) -> bool:
    if version in affected.get("versions", ()):
        return True
    ranges = [one.get("events", ()) for one in affected.get("ranges", ()) if one.get("type") == "ECOSYSTEM"]
    return any(_within(Version(version), events) for events in ranges)


def _within(version: Version, events: Iterable[Mapping[str, str]]) -> bool:
    """Whether the last event before or at a version says that it is affected."""
    inside = False
    for kind, at in sorted((_at(event) for event in events), key=lambda pair: (pair[1], pair[0] == "introduced")):
        if kind == "introduced" and at <= version:
            inside = True
        elif (kind == "fixed" and at <= version) or (kind == "last_affected" and at < version):
            inside = False
    return inside


def _at(event: Mapping[str, str]) -> tuple[str, Version]:
    kind, text = next(iter(event.items()))
    try:
        return kind, Version(text)
    except InvalidVersion:
        # What cannot be compared is taken for the beginning, so that it is rather told than not.
        return kind, Version("0")


def _from_file(file: Path) -> Iterator[Mapping[str, Any]]:
    """Advisories of a file: JSON (one, or a list) or a zip of these, as OSV has them. Raises ValueError, OSError."""
    if not zipfile.is_zipfile(file):
        content = json.loads(file.read_text(encoding="utf-8"))
        yield from content if isinstance(content, list) else [content]
        return
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                yield json.loads(archive.read(name))


def _from_service(packages: Iterable[Locked], service: str) -> Iterator[Mapping[str, Any]]:
    """What a service in OSV's form knows about packages. Raises requests.RequestException, ValueError."""
    import requests

    queries = [{"package": {"name": one.name, "ecosystem": "PyPI"}, "version": one.version} for one in packages]
    answer = requests.post(f"{service}/v1/querybatch", json={"queries": queries}, timeout=_TIMEOUT)
    answer.raise_for_status()
    ids = {found["id"] for result in answer.json()["results"] for found in (result or {}).get("vulns", ())}
    for one in sorted(ids):
        answer = requests.get(f"{service}/v1/vulns/{one}", timeout=_TIMEOUT)
        answer.raise_for_status()
        yield answer.json()


def _audit(packages: list[Locked], options: argparse.Namespace) -> int:
    import requests

    try:
        known = list(_from_file(options.advisories) if options.advisories else _from_service(packages, options.service))
        found = advised(packages, known)
    except requests.RequestException as error:
        print(
            f"audit: {options.service} cannot be reached ({type(error).__name__}): nothing was checked\n"
            "  hint: give a file with advisories, make audit ADVISORIES=all.zip",
            file=sys.stderr,
        )
        return 3
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        print(f"audit: the advisories cannot be read: {error}", file=sys.stderr)
        return 2
    for one in found:
        print(f"{one.package} {one.version}: {one.id}: {one.summary}")
    print(f"{len(packages)} packages, {len(found)} advisories about them")
    return 1 if found else 0


def _licenses(packages: list[Locked], options: argparse.Namespace) -> int:
    try:
        text = table(packages)
    except ValueError as error:
        print(f"licenses: {error}", file=sys.stderr)
        return 1
    if not options.check:
        LISTED.write_text(text, encoding="utf-8")
    elif LISTED.read_text(encoding="utf-8") != text:
        print("licenses: LICENSES.md does not fit requirements.lock; run make licenses", file=sys.stderr)
        return 1
    return 0


def _sbom(packages: list[Locked], options: argparse.Namespace) -> int:
    options.file.write_text(bill(packages, _project()), encoding="utf-8")
    return 0


def _project() -> Mapping[str, Any]:
    project: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    licences = commands.add_parser("licenses")
    licences.add_argument("--check", action="store_true")
    licences.set_defaults(run=_licenses)
    sbom = commands.add_parser("sbom")
    sbom.add_argument("file", type=Path)
    sbom.set_defaults(run=_sbom)
    audit = commands.add_parser("audit")
    audit.add_argument("--advisories", type=Path, metavar="FILE")
    audit.add_argument("--service", default=_SERVICE, metavar="URL")
    audit.set_defaults(run=_audit)
    options = parser.parse_args()
    packages = locked((ROOT / "requirements.lock").read_text(encoding="utf-8"), _project())
    status: int = options.run(packages, options)
    return status


if __name__ == "__main__":
    sys.exit(main())
