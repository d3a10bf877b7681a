"""Many tiny packages that are real, made in a fraction of a millisecond each.

A .deb is written as deb(5) says: an ar archive with two tar archives. An rpm is built once by rpmbuild, and then gets
another name of the same length in its header, whose checksums are calculated anew; rpm and createrepo_c take each of
them for what it is.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cleanroom_base import run

_TEMPLATE = "tiny00000"
_LEAD = 96


def name(number: int) -> str:
    """What the package with this number is called."""
    return f"tiny{number:05}"


def control(number: int, version: str) -> dict[str, str]:
    """The control data of a .deb."""
    return {
        "Package": name(number),
        "Version": version,
        "Architecture": "amd64",
        "Maintainer": "Nobody <nobody@example.invalid>",
        "Depends": "libc6 (>= 2.36)",
        "Section": "misc",
        "Priority": "optional",
        "Description": "a tiny package\n It says hello.",
    }


def make_deb(directory: Path, number: int, version: str = "1.0") -> Path:
    """One .deb."""
    text = "".join(f"{key}: {value}\n" for key, value in control(number, version).items()).encode()
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _tar({"control": text}),
        "data.tar.gz": _tar({f"usr/share/{name(number)}/greeting": b"hello\n"}),
    }
    file = directory / f"{name(number)}_{version}_amd64.deb"
    with file.open("wb") as stream:
        stream.write(b"!<arch>\n")
        for member, content in members.items():
            stream.write(f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            stream.write(content + b"\n" * (len(content) % 2))
    return file


def make_rpm(directory: Path, number: int, version: str = "1") -> Path:
    """One rpm; `version` has one digit."""
    lead, signature, header, payload = _template(version)
    renamed = header.replace(_TEMPLATE.encode(), name(number).encode())
    for before, after in (
        (hashlib.sha256(header).hexdigest().encode(), hashlib.sha256(renamed).hexdigest().encode()),
        (hashlib.sha1(header).hexdigest().encode(), hashlib.sha1(renamed).hexdigest().encode()),
        (hashlib.md5(header + payload).digest(), hashlib.md5(renamed + payload).digest()),
    ):
        signature = signature.replace(before, after)
    file = directory / f"{name(number)}-{version}-1.noarch.rpm"
    file.write_bytes(lead.replace(_TEMPLATE.encode(), name(number).encode()) + signature + renamed + payload)
    return file


def elements(repodata: Path, index: str) -> Iterator[str]:
    """The `<package>` elements of an index of createrepo_c, each with its line's end."""
    text = gzip.decompress((repodata / f"{index}.xml.gz").read_bytes()).decode()
    for part in text.split("<package ")[1:]:
        yield "<package " + part.rpartition("</package>\n")[0] + "</package>\n"


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for place, content in files.items():
            information = tarfile.TarInfo(f"./{place}")
            information.size = len(content)
            archive.addfile(information, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


@cache
def _template(version: str) -> tuple[bytes, bytes, bytes, bytes]:
    """The lead, the signature's header with its padding, the header and the payload of a built rpm."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        spec = Path(place, "tiny.spec")
        spec.write_text(
            f"Name: {_TEMPLATE}\nVersion: {version}\nRelease: 1\nSummary: a tiny package\nLicense: GPL-2.0-or-later\n"
            "BuildArch: noarch\n%description\nIt says hello.\n"
            "%install\nmkdir -p %{buildroot}/usr/share\necho hello > %{buildroot}/usr/share/greeting\n"
            "%files\n/usr/share/greeting\n"
        )
        run.run(["rpmbuild", "--quiet", "--define", f"_topdir {place}", "-bb", spec], timeout=300)
        (built,) = Path(place).glob("RPMS/noarch/*.rpm")
        content = built.read_bytes()
    end = _LEAD + _header_length(content[_LEAD:])
    end += -end % 8
    header = _header_length(content[end:])
    return content[:_LEAD], content[_LEAD:end], content[end : end + header], content[end + header :]


def _header_length(content: bytes) -> int:
    """The length of a header structure: 16 bytes, 16 for each entry, and the store."""
    entries, store = struct.unpack(">II", content[8:16])
    return 16 + 16 * int(entries) + int(store)
