"""What a product declares becomes a program, and nothing else of the product does."""

from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cleanroom_recipes import loader
from cleanroom_recipes.model import RefKind, Target
from cleanroom_recipes.plan import plan
from cleanroom_recipes.request import PhaseRequest
from cleanroom_workers import declarations

CONTROL = """\
# A comment.
Source: tiny
Maintainer: Nobody <nobody@example.org>
Build-Depends: debhelper-compat (= 13),
# bc is for the tests.
\tbc <!nocheck>,
 it's (>= 1) [amd64]
build-conflicts-indep: sl
Homepage: https://example.org

Package: tiny
Build-Depends: not-this
Architecture: all
"""
BUILD_DEPENDS = "debhelper-compat (= 13), bc <!nocheck>, it's (>= 1) [amd64]"


def source(tmp_path: Path, control: bytes, name: str = "debian/control", kind: bytes = tarfile.REGTYPE) -> Path:
    """A source as it is packed of a commit."""
    file = tmp_path / "source.tar"
    with tarfile.open(file, "w") as tar:
        tar.addfile(tarfile.TarInfo("README"))
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "elsewhere" if kind == tarfile.SYMTYPE else ""
        member.size = len(control) if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(control))
    return file


def request(tmp_path: Path, recipe: str = "", target: str = "debian-12/deb", phase: str = "build") -> PhaseRequest:
    """The order to run a phase of a product with this recipe."""
    builder = target.partition("/")[2]
    text = f'builder = "{builder}"\n{recipe}'
    read = loader.load(text.encode(), source="x", name="x", url="file:///x")
    parsed = Target.parse(target)
    return PhaseRequest(
        product="x",
        ref="v1",
        kind=RefKind.TAG,
        commit="0" * 40,
        commit_time=datetime(2026, 1, 1, tzinfo=UTC),
        expected_version=None,
        target=parsed,
        attempt=1,
        phase=next(one for one in plan(read, parsed) if one.name == phase),
        source=tmp_path / "source.tar",
        artifacts=None,
        previous=None,
        output=tmp_path,
    )


def programs(tmp_path: Path, control: str, recipe: str = "") -> tuple[str, ...]:
    source(tmp_path, control.encode())
    return declarations.programs(request(tmp_path, recipe))


def test_the_fields_about_dependencies_are_read_as_apt_reads_them() -> None:
    assert declarations.declared_in(CONTROL) == {"build-conflicts-indep": "sl", "build-depends": BUILD_DEPENDS}


@pytest.mark.parametrize(
    "control",
    [
        "",
        "\nSource: tiny\nBuild-Depends: bc\n",
        "Build-Depends: bc\n",
        " bc\nSource: tiny\n",
        "Source: tiny\nBuild-Depends: bc\nBUILD-DEPENDS: dc\n",
        "Source: tiny\nBuild-Depends: bc\n \n dc\n",
        "Source: tiny\nBuild-Depends: bc\rdc\n",
        "Source: tiny\nBuild-Depends: bc\x1b[1m\n",
        "Source: tiny\nBuild Depends: bc\n",
        "-----BEGIN PGP SIGNED MESSAGE-----\n\nSource: tiny\n",
    ],
)
def test_what_not_every_reader_reads_the_same_declares_nothing(control: str) -> None:
    assert declarations.declared_in(control) is None


def test_only_a_plain_file_of_moderate_size_is_read(tmp_path: Path) -> None:
    assert declarations.read_control(source(tmp_path, b"Source: x\n")) == "Source: x\n"
    assert declarations.read_control(source(tmp_path, b"Source: x\n", "./debian/control")) == "Source: x\n"
    assert declarations.read_control(source(tmp_path, b"Source: x\n", "other/debian/control")) is None
    assert declarations.read_control(source(tmp_path, b"", kind=tarfile.SYMTYPE)) is None
    assert declarations.read_control(source(tmp_path, b"", kind=tarfile.FIFOTYPE)) is None
    assert declarations.read_control(source(tmp_path, b"Source: \xff\n")) is None
    assert declarations.read_control(source(tmp_path, b"#" * (300 << 10))) is None
    (tmp_path / "source.tar").write_bytes(b"nonsense" * 1000)
    assert declarations.read_control(tmp_path / "source.tar") is None


def test_the_program_does_the_step_on_a_tree_with_the_declaration_alone(tmp_path: Path) -> None:
    [program] = programs(tmp_path, CONTROL, '[environment]\nMARK = "it\'s"\n')
    # What apt would be told, by an apt that shows it.
    fake = tmp_path / "programs/apt-get"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\necho "$MARK" "$@" >> {tmp_path}/told\n'
        f"case $* in *build-dep*) find . -type f; cat debian/control; echo $CLEANROOM_TREE > {tmp_path}/tree;; esac\n"
    )
    fake.chmod(0o755)
    path = {"PATH": f"{fake.parent}:/usr/bin:/bin"}
    shown = subprocess.run(["sh"], input=program, env=path, capture_output=True, text=True, check=True, timeout=20)
    declared = f"Source: declared\nbuild-conflicts-indep: sl\nbuild-depends: {BUILD_DEPENDS}\n"
    assert shown.stdout == f"./debian/control\n{declared}"
    told = (tmp_path / "told").read_text().splitlines()
    assert [line.split()[0] for line in told] == ["it's", "it's"]
    assert told[0].endswith("install fakeroot")
    assert not Path((tmp_path / "tree").read_text().strip()).exists()
    # What fails in the step fails here, its first command too.
    fake.write_text("#!/bin/sh\ncase $* in *fakeroot*) exit 100;; esac\n")
    failed = subprocess.run(["sh"], input=program, env=path, capture_output=True, text=True, check=False, timeout=20)
    assert failed.returncode == 100


def test_another_declaration_is_another_program_and_nothing_else_is(tmp_path: Path) -> None:
    first = programs(tmp_path, CONTROL)
    for same in (
        CONTROL.replace("Nobody", "Somebody").replace("Package: tiny", "Package: big"),
        CONTROL.replace("\n\tbc", "\n  bc").replace("# A comment.\n", ""),
    ):
        assert programs(tmp_path, same) == first
    assert programs(tmp_path, CONTROL, 'tests = ["true"]\n') == first
    others = [
        programs(tmp_path, CONTROL.replace("\tbc <!nocheck>,\n", "")),
        programs(tmp_path, CONTROL.replace("build-conflicts-indep", "Build-Conflicts")),
        programs(tmp_path, CONTROL, '[environment]\nDEB_BUILD_PROFILES = "nocheck"\n'),
    ]
    assert len({first, *others}) == 4
    assert all(others)


def test_no_program_without_a_declaration(tmp_path: Path) -> None:
    assert programs(tmp_path, "Source: tiny\n\nPackage: tiny\n") == ()
    assert programs(tmp_path, "Source: tiny\nBuild-Depends: a\x00b\n") == ()
    assert programs(tmp_path, f"Source: tiny\nBuild-Depends: {'a, ' * 60_000}\n") == ()
    assert declarations.programs(request(tmp_path, phase="install")) == ()
    assert declarations.programs(replace(request(tmp_path), source=None)) == ()


@pytest.mark.parametrize("builder", ["rpm", "script"])
def test_a_recipe_declares_by_its_packages(tmp_path: Path, builder: str) -> None:
    commands, other = (
        ('commands = ["true"]\nartifacts = ["x"]\n', "") if builder == "script" else ("", 'spec = "x.spec"\n')
    )
    target = f"debian-12/{builder}"
    packages = 'packages = ["bc", "dc"]\n'
    [program] = declarations.programs(request(tmp_path, commands + packages, target))
    assert "export CLEANROOM_PACKAGES='bc dc'\n" in program
    otherwise = commands.replace("x", "y") + other + packages
    assert declarations.programs(request(tmp_path, otherwise, target)) == (program,)
    assert declarations.programs(request(tmp_path, f'{commands}packages = ["bc"]\n', target)) not in ((program,), ())
    assert declarations.programs(request(tmp_path, commands, target)) == ()
