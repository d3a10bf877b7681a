"""The indexes of a yum repository: one repository a channel and image.

Every package's element is made once, by createrepo_c, when the package comes in; a new generation only puts
elements together. Source of the formats: createrepo_c's own output, and its documentation of repomd.xml.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

from cleanroom_master.publish import storage
from cleanroom_master.publish.generation import Draft, root_of
from cleanroom_master.publish.package import Stream
from cleanroom_master.publish.pool import Pool
from cleanroom_master.publish.signing import Signer

_NAMESPACE = "http://linux.duke.edu/metadata"
_HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'
# Index, its root element and that element's namespaces.
_INDEXES = (
    ("primary", "metadata", f'xmlns="{_NAMESPACE}/common" xmlns:rpm="{_NAMESPACE}/rpm"'),
    ("filelists", "filelists", f'xmlns="{_NAMESPACE}/filelists"'),
    ("other", "otherdata", f'xmlns="{_NAMESPACE}/other"'),
)
_LISTED = re.compile(r'href="repodata/(([0-9a-f]{64})-[a-z]+\.xml\.gz)"')
_SIGNED = ("repomd.xml", "repomd.xml.asc")


def write_repository(draft: Draft, stream: Stream, pool: Pool, signer: Signer) -> None:
    """Write `yum/<image>/<channel>/repodata`; what did not change is linked from the generation before."""
    place = Path(root_of(stream)) / "repodata"
    directory = draft.root / place
    base = draft.unchanged(stream)
    if base is not None:
        for name in _SIGNED:
            storage.link(base / place / name, directory / name)
    else:
        _write_indexes(draft, stream, directory, pool, signer)
    for earlier in draft.earlier:
        _keep_indexes(earlier / place, directory)


def listed(repomd: bytes) -> list[tuple[str, str]]:
    """The files that a repomd.xml of ours lists: name inside `repodata/`, and sha256."""
    return [(matched[1], matched[2]) for matched in _LISTED.finditer(repomd.decode(errors="replace"))]


def _write_indexes(draft: Draft, stream: Stream, directory: Path, pool: Pool, signer: Signer) -> None:
    packages = [pool.facts(package.sha256) for package in draft.generation.of(stream)]
    moment = int(draft.generation.at.timestamp())
    data = []
    for index, root, namespaces in _INDEXES:
        elements = "".join(package.entries[index] for package in packages)
        opening = f'<{root} {namespaces} packages="{len(packages)}">\n'
        plain = f"{_HEADER}{opening}{elements}</{root}>\n".encode()
        packed = gzip.compress(plain, mtime=0)
        sha256 = hashlib.sha256(packed).hexdigest()
        storage.write(directory / f"{sha256}-{index}.xml.gz", packed)
        data.append(_data(index, plain, packed, moment))
    repomd = (
        f'{_HEADER}<repomd xmlns="{_NAMESPACE}/repo" xmlns:rpm="{_NAMESPACE}/rpm">\n'
        f"  <revision>{moment}</revision>\n{''.join(data)}</repomd>\n"
    ).encode()
    for name, content in zip(_SIGNED, (repomd, signer.detach_sign(repomd)), strict=True):
        storage.write(directory / name, content, modified=moment)


def _data(index: str, plain: bytes, packed: bytes, moment: int) -> str:
    sha256 = hashlib.sha256(packed).hexdigest()
    return (
        f'  <data type="{index}">\n'
        f'    <checksum type="sha256">{sha256}</checksum>\n'
        f'    <open-checksum type="sha256">{hashlib.sha256(plain).hexdigest()}</open-checksum>\n'
        f'    <location href="repodata/{sha256}-{index}.xml.gz"/>\n'
        f"    <timestamp>{moment}</timestamp>\n"
        f"    <size>{len(packed)}</size>\n"
        f"    <open-size>{len(plain)}</open-size>\n"
        "  </data>\n"
    )


def _keep_indexes(earlier: Path, directory: Path) -> None:
    """Keep the index files of an earlier generation fetchable, for a client that has read its repomd.xml."""
    repomd = earlier / "repomd.xml"
    for name, _ in listed(repomd.read_bytes()) if repomd.exists() else ():
        storage.link(earlier / name, directory / name)
