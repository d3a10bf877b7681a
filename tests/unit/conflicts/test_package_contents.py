"""What packages hold and need, read from files that nobody can trust."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_packages import make_deb, make_rpm

from cleanroom_base.errors import InputError
from cleanroom_db.packages import FileType
from cleanroom_master.conflicts import contents
from cleanroom_master.conflicts.contents import normal_path, read


def hostile_deb(directory: Path, fill: Callable[[tarfile.TarFile], None], *, control: bytes | None = None) -> Path:
    """A .deb whose archive of files is written by `fill`, which need not be one that dpkg-deb would make."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        fill(archive)
    said = io.BytesIO()
    text = control or b"Package: tiny\nVersion: 1.0\nArchitecture: all\nDescription: x\n"
    with tarfile.open(fileobj=said, mode="w") as archive:
        add(archive, "./control", text)
    parts = {"debian-binary": b"2.0\n", "control.tar": said.getvalue(), "data.tar": data.getvalue()}
    file = directory / "tiny_1.0_all.deb"
    # The form of ar(5): a magic line, and before each part a header of 60 bytes.
    file.write_bytes(
        b"!<arch>\n"
        + b"".join(
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
            for name, part in parts.items()
        )
    )
    return file


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **more: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in more.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


def test_a_deb_says_what_it_needs_and_holds(tmp_path: Path) -> None:
    file = make_deb(
        tmp_path,
        more_control="Depends: libc6 (>= 2.4),\n other | another:any\nReplaces: old (<< 2)\n",
        files={
            "/bin/tool": "tool\n",
            "/usr/bin/tool": "-> ../../bin/tool",
            "/etc/link": "-> /etc/passwd",
        },
    )
    found = read(file, "deb")
    assert (found.format, found.name, found.version, found.architecture) == ("deb", "tiny", "1.0", "amd64")
    assert found.relations == (
        "Package: tiny\nVersion: 1.0\nArchitecture: amd64\nDepends: libc6 (>= 2.4), other | another:any\n"
        "Replaces: old (<< 2)\nMulti-Arch: foreign\n"
    )
    files = {one.path: one for one in found.files}
    assert set(files) == {
        *("/etc", "/etc/link", "/usr", "/usr/bin", "/usr/bin/tool", "/usr/share", "/usr/share/tiny"),
        "/usr/share/tiny/greeting",
    }
    # On a merged /usr the link is the file itself.
    assert (files["/usr/bin/tool"].type, files["/usr/bin/tool"].size) == (FileType.FILE, 5)
    assert (files["/etc/link"].type, files["/etc/link"].target) == (FileType.LINK, "/etc/passwd")
    assert files["/usr/share/tiny/greeting"].digest == (
        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    )


def test_a_link_to_itself_on_a_merged_usr_is_the_file_in_whatever_order_they_come(tmp_path: Path) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        add(archive, "./bin/tool", type=tarfile.SYMTYPE, linkname="/usr/bin/tool")
        add(archive, "./usr/bin/tool", b"tool")

    [found] = read(hostile_deb(tmp_path, fill), "deb").files
    assert (found.path, found.type, found.size) == ("/usr/bin/tool", FileType.FILE, 4)


def test_what_a_script_diverts_is_known(tmp_path: Path) -> None:
    script = "#!/bin/sh\nset -e\ndpkg-divert --package tiny --add --rename --divert /bin/x.real '/bin/x'\n"
    assert read(make_deb(tmp_path, scripts={"preinst": script}), "deb").diverts == (
        *("/usr/bin/sh", "/usr/bin/x.real", "/usr/bin/x"),
    )


def test_an_rpm_says_what_it_needs_and_holds(tmp_path: Path) -> None:
    file = make_rpm(
        tmp_path,
        tags="Epoch: 2\nRequires: other >= 3\nRequires: /bin/sh\nConflicts: old < 2\nObsoletes: older\n",
        files={"/usr/bin/tool": "tool"},
    )
    found = read(file, "rpm")
    assert (found.name, found.version, found.architecture) == ("tiny", "2:1.0-1", "noarch")
    assert found.relations.splitlines() == [
        "=Pkg: tiny 2:1.0 1 noarch",
        *("+Req:", "/bin/sh", "other >= 3", "-Req:"),
        *("+Prv:", "tiny = 2:1.0-1", "/usr/bin/tool", "/bin/tool", "-Prv:"),
        *("+Con:", "old < 2", "-Con:", "+Obs:", "older", "-Obs:"),
    ]
    assert {one.path: one.type for one in found.files} == {
        "/usr/bin/tool": FileType.FILE,
        "/usr/share/tiny/greeting": FileType.FILE,
    }


@pytest.mark.parametrize("kind", ["deb", "rpm"])
@pytest.mark.parametrize("content", [b"", b"no package\n", b"!<arch>\n", b"\xed\xab\xee\xdb" * 99])
def test_what_is_no_package_is_refused(tmp_path: Path, kind: str, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(InputError):
        read(file, kind)


@pytest.mark.parametrize("kept", [100, -40, -4])
def test_a_deb_that_was_cut_off_is_refused(tmp_path: Path, kept: int) -> None:
    file = make_deb(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InputError, match="is no whole Debian package"):
        read(file, "deb")


def test_a_deb_of_which_dpkg_says_that_it_is_broken_is_refused_although_all_of_it_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_deb(tmp_path)
    program = tmp_path / "bin/dpkg-deb"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n/usr/bin/dpkg-deb "$@"\nexit 2\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(InputError, match="is no whole Debian package"):
        read(file, "deb")


def test_a_path_that_leads_out_of_its_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="path that no package may have"):
        read(hostile_deb(tmp_path, lambda archive: add(archive, "./usr/../../etc/passwd")), "deb")


def test_a_name_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        add(archive, "././@LongLink", b"x" * (1 << 20), type=tarfile.GNUTYPE_LONGNAME)

    with pytest.raises(InputError, match="name that is too long"):
        read(hostile_deb(tmp_path, fill), "deb")


def test_too_many_paths_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "PATHS", 20)
    few = hostile_deb(tmp_path, lambda archive: [add(archive, f"./{number}") for number in range(20)])
    assert len(read(few, "deb").files) == 20
    many = hostile_deb(tmp_path, lambda archive: [add(archive, f"./{number}") for number in range(21)])
    with pytest.raises(InputError, match="more than 20 paths"):
        read(many, "deb")


def test_what_unpacks_to_more_than_it_may_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_UNPACKED_LIMIT", 1 << 20)
    tree = tmp_path / "bomb"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: bomb\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    )
    (tree / "zeros").write_bytes(bytes(8 << 20))
    subprocess.run(["dpkg-deb", "--nocheck", "--build", tree], check=True, capture_output=True, timeout=60)
    bomb = tmp_path / "bomb.deb"
    assert bomb.stat().st_size < 100_000
    with pytest.raises(InputError, match="unpacks to more than a package may"):
        read(bomb, "deb")


def test_a_hard_link_is_the_file_it_leads_to(tmp_path: Path) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        add(archive, "./usr/a", b"content")
        add(archive, "./usr/b", type=tarfile.LNKTYPE, linkname="./usr/a")
        add(archive, "./usr/c", type=tarfile.LNKTYPE, linkname="./usr/nothing")
        add(archive, "./usr/pipe", type=tarfile.FIFOTYPE)

    files = {one.path: one for one in read(hostile_deb(tmp_path, fill), "deb").files}
    assert files["/usr/b"].digest == files["/usr/a"].digest is not None
    assert files["/usr/c"].digest is None
    assert files["/usr/pipe"].type is FileType.OTHER


@pytest.mark.parametrize(
    "control",
    [
        b"Package: tiny\nVersion: 1.0\n",
        b"Package: a b\nVersion: 1.0\nArchitecture: all\n",
        b"Package: tiny\nVersion: 1.0\nArchitecture: all\n\nPackage: other\nVersion: 1\nArchitecture: all\n",
    ],
)
def test_control_data_that_would_speak_for_others_is_refused(tmp_path: Path, control: bytes) -> None:
    with pytest.raises(InputError):
        read(hostile_deb(tmp_path, lambda archive: None, control=control), "deb")


@given(st.text(max_size=60))
def test_a_normal_path_is_absolute_and_stays_as_it_is(text: str) -> None:
    try:
        path = normal_path(text)
    except InputError:
        assert ".." in text.split("/")
        return
    assert path.startswith("/")
    assert normal_path(path) == path
    assert path.split("/")[1] not in ("bin", "sbin", "lib")
