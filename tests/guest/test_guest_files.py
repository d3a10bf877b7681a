"""Files into a guest and out of it; what comes out is not believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom_base.run import OutputLimitExceeded
from cleanroom_workers.guest import Guest
from cleanroom_workers.transfer import UnsafeFile


def test_a_tree_goes_in_and_comes_out(guest: Guest, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file with space").write_bytes(b"\0\xff" * 1000)
    (source / "script").write_text("#!/bin/sh\necho ran\n", encoding="utf-8")
    (source / "script").chmod(0o755)
    guest.copy_in(source, "/srv/in")
    assert guest.succeed(["/srv/in/script"], timeout=10).text == "ran\n"
    files = guest.copy_out("/srv/in", tmp_path / "out", limit=1 << 20)
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in files) == [
        "deep/file with space",
        "script",
    ]
    assert (tmp_path / "out/deep/file with space").read_bytes() == b"\0\xff" * 1000


def test_one_file_and_bytes(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"content")
    guest.copy_in(tmp_path / "one", "/srv/new/name")
    guest.copy_in_bytes(b"more", "/srv/new/other", mode=0o600)
    assert guest.succeed(["stat", "--format=%a %U", "/srv/new/other"], timeout=10).text == "600 root\n"
    assert guest.copy_out("/srv/new/name", tmp_path / "out", limit=100) == [tmp_path / "out/name"]
    assert (tmp_path / "out/name").read_bytes() == b"content"


@pytest.mark.parametrize(
    "make", ["ln -s /etc/passwd x", "mkfifo x", "touch a && ln a b", "touch \"$(printf 'x\\033y')\""]
)
def test_what_is_no_plain_file_is_refused(guest: Guest, tmp_path: Path, make: str) -> None:
    guest.succeed(["sh", "-c", f"mkdir /srv/out && cd /srv/out && {make}"], timeout=10)
    with pytest.raises(UnsafeFile):
        guest.copy_out("/srv/out", tmp_path / "out", limit=1 << 20)


def test_too_much_is_refused(guest: Guest, tmp_path: Path) -> None:
    guest.succeed(["sh", "-c", "mkdir /srv/out; head -c 3000000 /dev/zero > /srv/out/big"], timeout=10)
    with pytest.raises(OutputLimitExceeded):
        guest.copy_out("/srv/out", tmp_path / "out", limit=1_000_000)


def test_a_tar_that_lies_cannot_write_elsewhere(guest: Guest, tmp_path: Path) -> None:
    script = """#!/bin/sh
cd /usr && exec /usr/bin/perl -e '
  my $name = "../../escaped"; my $header = pack("a100 a8 a8 a8 a12 a12 A8 a1 a100 a6 a2", $name, "0000644", "0", "0",
    "00000000001", "0", "", "0", "", "ustar", "00");
  $header .= "\\0" x (512 - length $header);
  my $sum = unpack("%32C*", $header); substr($header, 148, 8) = sprintf("%06o\\0 ", $sum);
  print $header, "x", "\\0" x 511, "\\0" x 1024;'
"""
    guest.succeed(["mv", "/usr/bin/tar", "/usr/bin/tar.real"], timeout=10)
    guest.run(["sh", "-c", "cat > /usr/bin/tar && chmod 755 /usr/bin/tar"], timeout=10, stdin=script.encode())
    with pytest.raises(UnsafeFile, match="leads out"):
        guest.copy_out("/srv", tmp_path / "deep/out", limit=1 << 20)
    assert not (tmp_path / "escaped").exists()
