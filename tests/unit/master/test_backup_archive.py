"""The file of a backup: what is complete and as it was written is told from what is not."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cleanroom_base.errors import InputError
from cleanroom_master.backup import archive
from cleanroom_master.backup.archive import Damaged, Writer

ABOUT = b'{"format": 1, "schema": 1}'


def quiet(*_: object) -> None:
    """Nobody watches."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a file of two names, a symbolic link, and something large."""
    home = tmp_path / "tree"
    home.mkdir()
    (home / "a").write_bytes(b"what went wrong")
    os.link(home / "a", home / "b")
    (home / "c").symlink_to("a")
    (home / "large").write_bytes(os.urandom(3 << 20))
    return home


@pytest.fixture
def backup(tree: Path, tmp_path: Path) -> Path:
    """An archive of that."""
    file = tmp_path / "backup"
    with file.open("wb") as stream, Writer(stream, tmp_path, quiet) as writer:
        writer.text(archive.ABOUT, ABOUT)
        for path in sorted(tree.iterdir()):
            assert writer.file(path, f"state/{path.name}")
        assert not writer.file(tree / "gone", "state/gone")
        writer.close()
    return file


def test_what_was_written_is_read(backup: Path, tree: Path) -> None:
    assert archive.verify(backup, quiet) == {"format": 1, "schema": 1}
    found = {
        member.name: content.read() if content else (member.target, member.hard)
        for member, content in archive.members(backup)
    }
    assert found == {
        archive.ABOUT: ABOUT,
        "state/a": b"what went wrong",
        "state/b": ("state/a", True),
        "state/c": ("a", False),
        "state/large": (tree / "large").read_bytes(),
    }
    # Any program can check it: that is what the manifest is for.
    with tarfile.open(backup) as tar:
        manifest = tar.extractfile("MANIFEST")
        assert manifest is not None
        assert len(manifest.read().splitlines()) == len(found)


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def flip(content: bytes) -> bytes:
    return content.replace(b"what went wrong", b"what went right")


def rename(content: bytes) -> bytes:
    """Another name of the same length, with the checksum that the archive's own format has."""
    return _rewritten(content, lambda info: setattr(info, "name", info.name.replace("state/a", "state/z")))


def lose_manifest(content: bytes) -> bytes:
    return _rewritten(content, lambda info: None, left_out="MANIFEST")


def lose_a_file(content: bytes) -> bytes:
    return _rewritten(content, lambda info: None, left_out="state/large")


def lead_elsewhere(content: bytes) -> bytes:
    return _rewritten(content, lambda info: setattr(info, "name", info.name.replace("state/a", "../../a")))


def add_a_device(content: bytes) -> bytes:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "state/c":
            info.type = tarfile.CHRTYPE

    return _rewritten(content, change)


def _rewritten(content: bytes, change: Callable[[tarfile.TarInfo], object], left_out: str = "") -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as old, tarfile.open(fileobj=written, mode="w") as new:
        for info in old:
            data = old.extractfile(info) if info.isreg() else None
            change(info)
            if info.name != left_out:
                new.addfile(info, data)
    return written.getvalue()


@pytest.mark.parametrize(
    "harm",
    [cut, flip, rename, lose_manifest, lose_a_file, lead_elsewhere, add_a_device, lambda _: b"", lambda _: b"x" * 999],
)
def test_what_is_not_what_was_written_is_refused(backup: Path, harm: Callable[[bytes], bytes]) -> None:
    harmed = harm(backup.read_bytes())
    assert harmed != backup.read_bytes()
    backup.write_bytes(harmed)
    with pytest.raises(Damaged):
        archive.verify(backup, quiet)


def test_every_byte_of_it_counts(backup: Path) -> None:
    """One changed bit anywhere in what it holds, one in every part of it."""
    content = backup.read_bytes()
    for place in range(520, len(content) - 20_000, 200_003):
        backup.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(Damaged):
            archive.verify(backup, quiet)


def test_a_file_that_shrinks_while_it_is_copied_is_an_error(tree: Path, tmp_path: Path) -> None:
    info = tarfile.TarInfo("state/a")
    info.size = 100
    with (
        (tmp_path / "backup").open("wb") as stream,
        (tree / "a").open("rb") as source,
        Writer(stream, tmp_path, quiet) as writer,
        pytest.raises(OSError, match="unexpected end of data"),
    ):
        writer._add(info, source)


def test_another_form_and_no_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        archive.verify(tmp_path / "none", quiet)
    with (tmp_path / "later").open("wb") as stream, Writer(stream, tmp_path, quiet) as writer:
        writer.text(archive.ABOUT, b'{"format": 99}')
        writer.close()
    with pytest.raises(InputError, match="a form that this version does not know"):
        archive.verify(tmp_path / "later", quiet)


@pytest.mark.parametrize("name", ["/etc/passwd", "state/../../x", "state//x", "state/a\nb"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(Damaged, match="no such name"):
        archive.safe(name)
