"""The indexes of a yum repository: one repository a channel and image.

dnf fetches repomd.xml and its signature one after the other, and a switch in between would have it compare files of two
generations. So each state of a repository also has an address of its own, named by its content, and the repository's
`mirrorlist` names the present one: a client reads that once, and then fetches all that it needs from one state.

Every package's element is made once, by createrepo_c, when the package comes in; a new generation only puts
elements together. Source of the formats: createrepo_c's own output, and its documentation of repomd.xml.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from cleanroom_master.publish import pieces
from cleanroom_master.publish.generation import Draft, PartName, Run, root_of
from cleanroom_master.publish.package import PackageFile, Stream
from cleanroom_master.publish.pieces import Pieces
from cleanroom_master.publish.signing import Signer

_NAMESPACE = "http://linux.duke.edu/metadata"
_HEADER = '<?xml version="1.0" encoding="UTF-8"?>\n'
# Index, its root element and that element's namespaces.
_ROOTS = {
    "primary": ("metadata", f'xmlns="{_NAMESPACE}/common" xmlns:rpm="{_NAMESPACE}/rpm"'),
    "filelists": ("filelists", f'xmlns="{_NAMESPACE}/filelists"'),
    "other": ("otherdata", f'xmlns="{_NAMESPACE}/other"'),
}
INDEXES = tuple(_ROOTS)
_LISTED = re.compile(r'href="repodata/(([0-9a-f]{64})-([a-z]+)\.xml\.gz)"')
SIGNED = ("repomd.xml", "repomd.xml.asc")
MIRRORS = "mirrorlist"
STATES = "states"


def entry(package: PackageFile, index: str) -> bytes:
    """What an index says of a package."""
    return package.entries[index].encode()


def place_of(stream: Stream) -> Path:
    """Where a repository's indexes are."""
    return Path(root_of(stream)) / "repodata"


def write_repository(draft: Draft, stream: Stream, fresh: Pieces) -> None:
    """Write `yum/<image>/<channel>/repodata` but for the signature; what did not change is linked from before."""
    place = place_of(stream)
    name = PartName(stream, "")
    if draft.base is not None and stream in draft.base.streams and draft.alike(draft.base, [name]):
        for file in SIGNED:
            draft.link(draft.base.directory / place / file, place / file)
    else:
        _write(draft, stream, place, fresh)
    for earlier in draft.earlier:
        _keep_indexes(draft, earlier / place, place)


def sign_repository(draft: Draft, stream: Stream, signer: Signer) -> None:
    """Add the signature."""
    content, signature = (place_of(stream) / name for name in SIGNED)
    if not (draft.root / signature).exists():
        draft.write(signature, signer.detach_sign((draft.root / content).read_bytes()))


def state_of(repomd: bytes) -> str:
    """The name of a repository's state."""
    return hashlib.sha256(repomd).hexdigest()[:32]


def mirrors(url: str, stream: Stream, state: str) -> str:
    """What the mirrorlist says: where the state is, and, once that is gone, the repository.

    Source of the format: one URL a line, as dnf reads it (dnf.conf(5), mirrorlist).
    """
    repository = f"{url}/{root_of(stream)}/"
    return f"{repository}{STATES}/{state}/\n{repository}\n"


def listed(repomd: bytes) -> list[tuple[str, str]]:
    """The files that a repomd.xml of ours lists: name inside `repodata/`, and sha256."""
    return [(matched[1], matched[2]) for matched in _LISTED.finditer(repomd.decode(errors="replace"))]


def frame(index: str, packages: int) -> tuple[bytes, bytes]:
    """What an index begins and ends with, around the pieces of its runs, packed."""
    root, namespaces = _ROOTS[index]
    opening = f'{_HEADER}<{root} {namespaces} packages="{packages}">\n'
    return pieces.pack(opening.encode()).packed, pieces.pack(f"</{root}>\n".encode()).packed


def split(content: bytes, runs: Sequence[Run], index: str) -> dict[str, bytes]:
    """The packed pieces of an index by the listings of their runs."""
    opening, _ = frame(index, sum(run.packages for run in runs))
    return pieces.split(content, runs, index, start=len(opening))


def _write(draft: Draft, stream: Stream, place: Path, fresh: Pieces) -> None:
    runs = draft.generation.part(stream, "").runs
    before = draft.start.part(stream, "").runs if draft.start is not None else ()
    files = _indexes(draft.start.directory / place) if draft.start is not None else {}
    moment = int(draft.generation.at.timestamp())
    data = []
    for index in INDEXES:
        there = split(pieces.read(files[index]), before, index) if index in files else {}
        there |= {run.listing: fresh[index, run.listing].packed for run in runs if (index, run.listing) in fresh}
        opening, closing = frame(index, sum(run.packages for run in runs))
        content = b"".join([opening, *(there[run.listing] for run in runs), closing])
        sha256 = hashlib.sha256(content).hexdigest()
        name = f"{sha256}-{index}.xml.gz"
        # The same content as before, where only the time is another, has the same name.
        if index in files and files[index].name == name:
            draft.link(files[index], place / name)
        else:
            draft.write(place / name, content)
        data.append(_data(index, name, sha256, len(content), moment))
    repomd = (
        f'{_HEADER}<repomd xmlns="{_NAMESPACE}/repo" xmlns:rpm="{_NAMESPACE}/rpm">\n'
        f"  <revision>{moment}</revision>\n{''.join(data)}</repomd>\n"
    ).encode()
    draft.write(place / "repomd.xml", repomd)


def _data(index: str, name: str, sha256: str, size: int, moment: int) -> str:
    """An index's entry. Its checksum unpacked is left out: no client needs it, and it would cost the whole index."""
    return (
        f'  <data type="{index}">\n'
        f'    <checksum type="sha256">{sha256}</checksum>\n'
        f'    <location href="repodata/{name}"/>\n'
        f"    <timestamp>{moment}</timestamp>\n"
        f"    <size>{size}</size>\n"
        "  </data>\n"
    )


def _indexes(repodata: Path) -> dict[str, Path]:
    """The index files of a repository by their kind."""
    repomd = pieces.read(repodata / "repomd.xml").decode(errors="replace")
    return {matched[3]: repodata / matched[1] for matched in _LISTED.finditer(repomd)}


def _keep_indexes(draft: Draft, earlier: Path, place: Path) -> None:
    """Keep the index files of an earlier generation fetchable, for a client that has read its repomd.xml."""
    for file in _indexes(earlier).values():
        draft.link(file, place / file.name)
