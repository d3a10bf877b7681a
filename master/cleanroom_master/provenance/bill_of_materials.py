"""The bill of materials of a package: what it is, of what source, and what it needs, in CycloneDX 1.6.

What it was built with stands in its provenance, and not here once more. The same package of the same build has the same
bill, byte for byte: nothing in it says when it was written.
"""

from __future__ import annotations

import html
import re
import uuid
from collections.abc import Iterable, Mapping

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from cleanroom_db.provenance import RecordedBuild, Source
from cleanroom_master.provenance.statement import package_url, public_url
from cleanroom_master.publish import control
from cleanroom_master.publish.package import PackageFile

_DEPENDS = ("Pre-Depends", "Depends")
_INCLUDES = ("Built-Using", "Static-Built-Using")
_NAME = re.compile(r"\s*([a-z0-9][a-z0-9+.-]*)")
_EXACT = re.compile(r"\s*([a-z0-9][a-z0-9+.-]*)\s*\(=\s*([^)\s]+)\s*\)")
# A package that names more than this is none of this world; the rest is left out.
_MOST = 2000
_REQUIRES = re.compile(r"<rpm:requires>(.*?)</rpm:requires>", re.DOTALL)
_ENTRY = re.compile(r'<rpm:entry name="([^"]+)"')


def write(package: PackageFile, source: Source, build: RecordedBuild, *, url: str, vendor: str) -> bytes:
    """The bill of a package as `vendor` publishes it in the repository at `url`."""
    distribution = build.target.partition("/")[0]
    named = {"arch": package.architecture, "distro": distribution, "repository_url": url}
    kind = "rpm" if package.format == "rpm" else "deb"
    root = _component(package, source, PackageURL(kind, vendor, package.name, package.version, named))
    parts = [*_needed(package, build, distribution), *_included(package, distribution)]
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"sha256:{package.sha256}"),
        components=list({part.bom_ref.value: part for part in parts}.values()),
    )
    bom.metadata.component = root
    bom.metadata.timestamp = build.finished_at.replace(microsecond=0)
    bom.register_dependency(root, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1).encode() + b"\n"


def _component(package: PackageFile, source: Source, url: PackageURL) -> Component:
    return Component(
        type=ComponentType.APPLICATION,
        name=package.name,
        version=package.version,
        bom_ref=url.to_string(),
        purl=url,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)],
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.VCS, url=XsUri(public_url(source.url)), comment=f"commit {source.commit}"
            )
        ],
        properties=[Property(name="cleanroom:file", value=package.file)],
    )


def _needed(package: PackageFile, build: RecordedBuild, distribution: str) -> list[Component]:
    """What it says it needs, in the versions that were there when it was installed, where its guest told."""
    prefix = "rpm:" if package.format == "rpm" else ""
    return [
        _part(prefix + name, build.installed.get(prefix + name), distribution, "needs", ComponentScope.REQUIRED)
        for name in list(dict.fromkeys(_depends(package)))[:_MOST]
        # Of several that would do, those that were not there did not.
        if not build.installed or prefix + name in build.installed
    ]


def _included(package: PackageFile, distribution: str) -> list[Component]:
    """Source packages of which parts are in it, where its control data says so (Debian policy, 7.8)."""
    fields = _control(package)
    named = [found for field in _INCLUDES for found in map(_EXACT.match, fields.get(field, "").split(",")) if found]
    return [_part(one[1], one[2], distribution, "includes", ComponentScope.REQUIRED) for one in named[:_MOST]]


def _part(name: str, version: str | None, distribution: str, role: str, scope: ComponentScope) -> Component:
    bare = name.rpartition(":")[2]
    url = package_url(name, version or "", distribution)
    return Component(
        type=ComponentType.LIBRARY,
        name=bare,
        version=version,
        bom_ref=url,
        purl=PackageURL.from_string(url),
        scope=scope,
        properties=[Property(name="cleanroom:role", value=role)],
    )


def _depends(package: PackageFile) -> Iterable[str]:
    """The names of packages that it depends on, those that would do in each other's place too."""
    if package.format == "rpm":
        return _requires(package.entries.get("primary", ""))
    fields = _control(package)
    relations = [one for field in _DEPENDS for one in re.split(r"[,|]", fields.get(field, ""))]
    return [found[1] for found in map(_NAME.match, relations) if found]


def _requires(primary: str) -> list[str]:
    """What an rpm requires that is the name of a package. Source of the format: createrepo_c's own output."""
    found = _REQUIRES.search(primary)
    names = map(html.unescape, _ENTRY.findall(found[1])) if found else ()
    return [name for name in names if not re.search(r"[(/\s:]", name)]


def _control(package: PackageFile) -> Mapping[str, str]:
    paragraph = package.entries.get("Packages", "")
    return control.parse(paragraph.encode()) if paragraph else {}
