"""Streams of files from a hostile guest."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from cleanroom_base.run import OutputLimitExceeded
from cleanroom_workers.transfer import UnsafeFile, pack, unpack


def stream(*members: tuple[str, bytes, bytes]) -> io.BytesIO:
    """A tar of members: name, type, content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), "/etc/passwd"
            tar.addfile(member, io.BytesIO(content))
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/x",
        "out/../../x",
        "out/" + "n" * 256,
        "out/a\nb",
        "out/\x1b[31m",
        "/".join(["out"] + ["d"] * 40),
    ],
)
def test_names_that_lead_elsewhere_or_lie(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeFile):
        unpack(stream((name, tarfile.REGTYPE, b"x")), tmp_path / "deep/out", top="out", limit=100)
    assert not list(tmp_path.rglob("x"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_what_is_no_regular_file(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(UnsafeFile):
        unpack(stream(("out/x", kind, b"")), tmp_path, top="out", limit=100)


def test_a_name_that_comes_twice(tmp_path: Path) -> None:
    for second in ("out/x", "out/x/y"):
        with pytest.raises(UnsafeFile):
            unpack(
                stream(("out/x", tarfile.REGTYPE, b"1"), (second, tarfile.REGTYPE, b"2")),
                tmp_path / second.replace("/", "-"),
                top="out",
                limit=100,
            )


def test_too_much(tmp_path: Path) -> None:
    with pytest.raises(OutputLimitExceeded):
        unpack(stream(("out/x", tarfile.REGTYPE, b"1" * 101)), tmp_path, top="out", limit=100)


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_a_broken_stream(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnsafeFile):
        unpack(io.BytesIO(content), tmp_path, top="out", limit=100)


def test_a_stream_that_ends_too_early(tmp_path: Path) -> None:
    whole = stream(("out/x", tarfile.REGTYPE, b"1" * 5000)).getvalue()
    with pytest.raises(UnsafeFile):
        unpack(io.BytesIO(whole[:2000]), tmp_path, top="out", limit=10_000)


def test_packed_and_unpacked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a/b").write_bytes(b"content")
    buffer = io.BytesIO()
    assert pack(source, "/srv/x", buffer) == "/srv/x"
    buffer.seek(0)
    assert unpack(buffer, tmp_path / "out", top="", limit=100) == [tmp_path / "out/a/b"]
