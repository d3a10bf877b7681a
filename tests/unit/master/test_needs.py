"""What a build used and what its packages name, from its artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_packages import make_deb, make_rpm

from cleanroom_db.phases import NewArtifact
from cleanroom_db.states import DependencyOrigin
from cleanroom_master.needs import named, read, used

BUILDINFO = """\
Format: 1.0
Source: tiny
Installed-Build-Depends:
 autoconf (= 2.71-3),
 libc6:amd64 (= 2.36-9),
 ../evil (= 1),
 library (= 1.0)
Environment:
 LANG="C"
"""


def test_a_buildinfo_says_what_was_installed() -> None:
    assert list(used(BUILDINFO)) == ["autoconf", "libc6", "library"]
    assert list(used("Format: 1.0\n")) == []


@pytest.mark.parametrize(
    ("relation", "found"),
    [
        ("libc6 (>= 2.36), library | other:any, x [amd64] <!nocheck>", ["libc6", "library", "other", "x"]),
        ("", []),
        ("-evil, A, ${shlibs:Depends}", []),
    ],
)
def test_all_packages_of_a_relation_are_named(relation: str, found: list[str]) -> None:
    # A name of one letter is none.
    assert list(named(relation)) == [name for name in found if len(name) > 1]


def test_packages_say_what_they_need_and_broken_ones_nothing(tmp_path: Path) -> None:
    deb = make_deb(tmp_path, more_control="Depends: library (>= 1.0), libc6\n")
    rpm = make_rpm(tmp_path, tags="Requires: rpm-library\n")
    info = tmp_path / "tiny_1.0_amd64.buildinfo"
    info.write_text(BUILDINFO)
    broken = tmp_path / "broken.deb"
    broken.write_bytes(b"!<arch>\nnot really")
    files = {"a": deb, "b": rpm, "c": info, "d": broken, "e": tmp_path / "gone.deb"}
    kinds = {"a": "deb", "b": "rpm", "c": "buildinfo", "d": "deb", "e": "deb"}
    artifacts = [NewArtifact(file.name, key, 1, kinds[key], None, None, None) for key, file in files.items()]
    found = read(artifacts, lambda key: files[key])
    assert {name for origin, name in found if origin is DependencyOrigin.BUILD} == {"autoconf", "libc6", "library"}
    assert {"library", "libc6", "rpm-library"} <= {name for origin, name in found if origin is DependencyOrigin.PACKAGE}
