import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_packages import make_deb, make_rpm, make_source, sha256

from cleanroom_base.errors import InputError
from cleanroom_master.publish import control
from cleanroom_master.publish.inspect import inspect


def test_a_deb_is_what_its_control_data_says(tmp_path: Path):
    file = make_deb(tmp_path, version="2:1.0~rc1+b-3", architecture="all")
    package = inspect(file)
    assert (package.name, package.version, package.architecture) == ("tiny", "2:1.0~rc1+b-3", "all")
    assert (package.format, package.file) == ("deb", "tiny_1.0~rc1+b-3_all.deb")
    assert (package.sha256, package.size) == (sha256(file), file.stat().st_size)
    stanza = control.parse(package.entries["Packages"].encode())
    assert stanza["Filename"] == f"pool/tiny/{package.sha256[:16]}/{file.name}"
    assert stanza["SHA256"] == package.sha256
    assert stanza["Description"].endswith("It says no more.")


def test_an_rpm_is_what_its_header_says(tmp_path: Path):
    file = make_rpm(tmp_path)
    package = inspect(file)
    assert (package.name, package.version, package.architecture) == ("tiny", "1.0-1", "noarch")
    assert f'href="pool/tiny/{package.sha256[:16]}/{file.name}"' in package.entries["primary"]
    assert "&lt;hello&gt; &amp; no more" in package.entries["primary"]
    assert package.entries["filelists"].count("<package ") == 1


def test_a_source_rpm_has_the_architecture_src(tmp_path: Path):
    assert inspect(make_rpm(tmp_path, source=True)).architecture == "src"


def test_a_dsc_names_what_it_needs(tmp_path: Path):
    package = inspect(make_source(tmp_path))
    assert (package.format, package.name, package.version) == ("dsc", "tiny", "1.0-1")
    assert package.companions == {
        name: sha256(tmp_path / name) for name in ("tiny_1.0.orig.tar.gz", "tiny_1.0-1.debian.tar.xz")
    }
    stanza = control.parse(package.entries["Sources"].encode())
    assert stanza["Package"] == "tiny"
    assert "Source" not in stanza
    assert f"{package.sha256} {package.size} tiny_1.0-1.dsc" in stanza["Checksums-Sha256"]


@pytest.mark.parametrize(
    "lie", ["tiny_1.1_amd64.deb", "other_1.0_amd64.deb", "tiny_1.0_all.deb", "tiny_1.0_amd64.rpm", "tiny.txt"]
)
def test_a_name_that_lies_is_refused(tmp_path: Path, lie: str):
    file = make_deb(tmp_path).rename(tmp_path / lie)
    with pytest.raises(InputError):
        inspect(file)


def test_the_message_says_what_the_file_really_is(tmp_path: Path):
    file = make_deb(tmp_path).rename(tmp_path / "tiny_1.1_amd64.deb")
    with pytest.raises(InputError, match=r"tiny_1\.1_amd64\.deb is really tiny_1\.0_amd64\.deb"):
        inspect(file)


def test_an_rpm_under_another_name_is_refused(tmp_path: Path):
    file = make_rpm(tmp_path).rename(tmp_path / "tiny-1.0-1.x86_64.rpm")
    with pytest.raises(InputError, match=r"is really tiny-1\.0-1\.noarch\.rpm"):
        inspect(file)


@pytest.mark.parametrize("suffix", ["deb", "rpm", "dsc"])
@pytest.mark.parametrize("content", [b"", b"not a package\n", b"\x00" * 4096, b"!<arch>\n", b"\xed\xab\xee\xdb" * 99])
def test_what_is_no_package_is_refused(tmp_path: Path, suffix: str, content: bytes):
    file = tmp_path / f"tiny_1.0_amd64.{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError):
        inspect(file)


@pytest.mark.parametrize("kept", [100, -40])
def test_a_deb_that_was_cut_off_is_refused(tmp_path: Path, kept: int):
    file = make_deb(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"is no (whole )?Debian package"):
        inspect(file)


@pytest.mark.parametrize("kept", [100, -10])
def test_an_rpm_that_was_cut_off_is_refused(tmp_path: Path, kept: int):
    file = make_rpm(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"is no (whole )?rpm"):
        inspect(file)


def test_links_and_pipes_are_refused(tmp_path: Path):
    file = make_deb(tmp_path)
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / file.name).symlink_to(file)
    with pytest.raises(InputError, match="no plain file"):
        inspect(place / file.name)
    os.mkfifo(place / "pipe_1.0_all.deb")
    with pytest.raises(InputError, match="no plain file"):
        inspect(place / "pipe_1.0_all.deb")


@pytest.mark.parametrize("name", ["-tiny_1.0_all.deb", "a b.deb", "tiny\n.deb", "ä.deb", "x" * 300 + ".deb", ".deb"])
def test_names_that_are_unsafe_in_a_path_or_an_address_are_refused(tmp_path: Path, name: str):
    with pytest.raises(InputError, match="no acceptable name"):
        inspect(tmp_path / name)


def test_a_package_cannot_set_what_only_the_repository_says(tmp_path: Path):
    more = "Filename: pool/evil.deb\nsha256: 0000\nSize: 1\nMD5sum: 0\n"
    package = inspect(make_deb(tmp_path, more_control=more))
    stanza = package.entries["Packages"]
    assert stanza.lower().count("filename:") == stanza.lower().count("sha256:") == 1
    assert "evil" not in stanza
    assert "MD5sum" not in stanza


def test_control_data_without_end_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is no Debian package"):
        inspect(make_deb(tmp_path, more_control="Padding: " + "x" * (2 << 20) + "\n"))


def test_a_package_cannot_bring_a_second_paragraph(tmp_path: Path):
    with pytest.raises(InputError):
        inspect(make_deb(tmp_path, more_control="Description: a\n\nPackage: sudo\nVersion: 99\n"))


@pytest.mark.parametrize("name", ["../tiny_1.0.orig.tar.gz", "other_1.0.orig.tar.gz", "tiny_1.0 .tar.gz"])
def test_a_dsc_that_names_files_elsewhere_is_refused(tmp_path: Path, name: str):
    dsc = make_source(tmp_path)
    dsc.write_text(dsc.read_text().replace("tiny_1.0.orig.tar.gz", name))
    with pytest.raises(InputError):
        inspect(dsc)


LARGE = """
import resource, sys
from pathlib import Path
from cleanroom_master.publish.inspect import hash_file, inspect

# What is read is streamed: a file of any size fits into this much memory.
resource.setrlimit(resource.RLIMIT_AS, (260 << 20, 260 << 20))
package = inspect(Path(sys.argv[1]))
print(package.name, package.size, (package.sha256, package.size) == hash_file(Path(sys.argv[1])))
"""


def make_large_deb(directory: Path, size: int) -> Path:
    """A package whose data is `size` bytes of nothing, which take no room on the disk."""
    small = make_deb(directory)
    control = subprocess.run(["ar", "p", small, "control.tar.xz"], check=True, capture_output=True).stdout
    large = directory / "large" / small.name
    large.parent.mkdir()

    def header(name: str, length: int) -> bytes:
        return f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{length:<10}`\n".encode()

    padding = b"\n" * (len(control) % 2)
    with large.open("wb") as file:
        file.write(b"!<arch>\n" + header("debian-binary", 4) + b"2.0\n")
        file.write(header("control.tar.xz", len(control)) + control + padding + header("data.tar", size))
        file.truncate(file.tell() + size)
    return large


def test_a_package_larger_than_the_memory_is_read_as_a_stream(tmp_path: Path):
    file = make_large_deb(tmp_path, 300 << 20)
    done = subprocess.run([sys.executable, "-c", LARGE, file], check=False, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["tiny", str(file.stat().st_size), "True"], done.stderr
