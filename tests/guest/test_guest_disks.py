"""A guest's disk is a file: what becomes of the guest's file system where the host has no room for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cleanroom_workers import mounts
from cleanroom_workers.host import Host

_MIB = 1 << 20


def _disk(file: Path, mebibytes: int, place: Path) -> None:
    """A file system of that size in a sparse file, mounted."""
    place.mkdir()
    with file.open("wb") as new:
        new.truncate(mebibytes * _MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", file], check=True, timeout=60)
    mounts.mount(file, place, options="loop")


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A small disk of a host, and on it the larger one of a guest; where they are mounted."""
    host, guest = tmp_path / "host", tmp_path / "guest"
    try:
        _disk(tmp_path / "host.disk", 64, host)
        _disk(host / "guest.disk", 256, guest)
        yield host, guest
    finally:
        for place in (guest, host):
            if mounts.mounted(place):
                subprocess.run(["umount", place], check=True, timeout=60)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(_MIB))
            os.fsync(filler.fileno())


def _synchronized(place: Path) -> bool:
    return (
        subprocess.run(["sync", "--file-system", place], check=False, capture_output=True, timeout=60).returncode == 0
    )


def test_a_disk_for_which_the_host_has_no_room_is_damaged_and_stays_so(places: tuple[Path, Path]) -> None:
    host, guest = places
    (guest / "before").write_bytes(bytes(_MIB))
    assert _synchronized(guest)
    assert not mounts.damaged(guest)
    _fill(host / "filler")
    (guest / "lost").write_bytes(bytes(4 * _MIB))
    assert not _synchronized(guest)
    assert mounts.damaged(guest)
    (host / "filler").unlink()
    _synchronized(guest)
    assert mounts.damaged(guest)
    assert not mounts.damaged(host)


def test_a_disk_that_its_own_guest_filled_is_not_damaged(tmp_path: Path) -> None:
    place = tmp_path / "guest"
    _disk(tmp_path / "guest.disk", 16, place)
    try:
        _fill(place / "filler")
        with pytest.raises(OSError, match="No space left on device"):
            (place / "more").write_bytes(bytes(_MIB))
        _synchronized(place)
        assert not mounts.damaged(place)
    finally:
        subprocess.run(["umount", place], check=True, timeout=60)


@pytest.mark.parametrize("place", ["/proc", "/none"])
def test_what_is_no_such_disk_is_not_damaged(place: str) -> None:
    assert not mounts.damaged(Path(place))


def test_a_guest_knows_whether_its_disk_is_damaged(host: Host) -> None:
    with host.reset("debian-12", isolation="container") as guest:
        assert not guest.damaged()
        # The kernel's own counts, of the very disk that is the guest's.
        [device] = [source for found, source in mounts._mounts() if found.endswith(f"{guest.name}/store")]
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("tried")
        assert guest.damaged()
