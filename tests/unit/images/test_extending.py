"""Images that extend another: what they have from it, what is added, and when they are outdated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_base.run import run
from cleanroom_images.build import build
from cleanroom_images.catalogue import Catalogue

# Runs the hooks on a root directory as mmdebstrap does, with what was installed when it installs.
MMDEBSTRAP = """#!/bin/sh
set -eu
root=$(mktemp -d)
mkdir -p "$root/etc"
echo the host > "$root/etc/hostname"
hooks=
for word in "$@"; do
  case $word in
  --variant=apt) cp -a {tree}/. "$root" ;;
  --setup-hook=*) sh -c "${{word#--setup-hook=}}" sh "$root" ;;
  --customize-hook=/*) "${{word#--customize-hook=}}" "$root" ;;
  --customize-hook=*) sh -c "${{word#--customize-hook=}}" sh "$root" ;;
  esac
done
exec tar -C "$root" -cf "$word" .
"""
# Notes what would be installed, and whether there is a network for it.
CHROOT = """#!/bin/sh
set -eu
cat "$1/etc/resolv.conf" > "$1/etc/seen"
echo "$@" | grep -o "install .*" >> "$1/etc/installed"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


@pytest.fixture
def catalogue(tmp_path: Path, site: Path) -> Catalogue:
    site.mkdir()
    describe(site, "tiny", 'distribution = "debian"\nsuite = "bookworm"\nformats = ["deb", "script"]\n')
    return Catalogue(tmp_path / "state", site)


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tree that the fake mmdebstrap installs."""
    tree, programs = tmp_path / "ground", tmp_path / "programs"
    for directory in (tree / "etc", tree / "usr/bin", programs):
        directory.mkdir(parents=True)
    (tree / "usr/bin/apt-get").touch()
    (tree / "etc/resolv.conf").symlink_to("/nonexistent/of-the-image")
    (tree / "etc/hostname").write_text("of the image\n")
    for name, content in (("mmdebstrap", MMDEBSTRAP.format(tree=tree)), ("chroot", CHROOT)):
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tree


def describe(site: Path, name: str, content: str, provision: str = "") -> None:
    folder = site / "guest_images" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.toml").write_text(content)
    if provision:
        (folder / "provision").write_text(f"#!/bin/sh\nset -eu\n{provision}\n")
        (folder / "provision").chmod(0o755)


def test_an_extension_is_its_base_and_what_is_added(catalogue: Catalogue, site: Path, ground: Path) -> None:
    extension = 'extends = "tiny"\npackages = ["cmake", "tool-{architecture}"]\nprovision = "provision"\n'
    describe(site, "more", extension, 'cat "$1/etc/installed" > "$1/etc/provisioned"')
    described = catalogue.description("more")
    assert (described.suite, described.formats) == ("bookworm", ("deb", "script"))
    image = build(catalogue, "more")
    base = catalogue.image("tiny")
    assert (image.extends, image.parent) == ("tiny", base.digest)
    assert image == catalogue.verify("more")
    assert image.tree is not None
    added = f"install cmake tool-{described.architecture}\n"
    assert (image.tree / "etc/provisioned").read_text() == added
    assert (image.tree / "etc/seen").read_bytes() == Path("/etc/resolv.conf").read_bytes()
    # What the image says of itself is as it was, and the base is untouched.
    assert str((image.tree / "etc/resolv.conf").readlink()) == "/nonexistent/of-the-image"
    assert (image.tree / "etc/hostname").read_text() == "of the image\n"
    assert sorted(path.name for path in (image.tree / "etc").iterdir()) == sorted(
        ["hostname", "installed", "provisioned", "resolv.conf", "seen"]
    )
    catalogue.verify("tiny")


def test_an_extension_of_another_base_is_outdated(catalogue: Catalogue, site: Path, ground: Path) -> None:
    describe(site, "more", 'extends = "tiny"\npackages = ["cmake"]\n')
    describe(site, "most", 'extends = "more"\npackages = ["gdb"]\n')
    build(catalogue, "most")
    assert [catalogue.entry(name).outdated for name in ("tiny", "more", "most")] == [None, None, None]
    (ground / "etc/new").touch()
    build(catalogue, "tiny")
    assert catalogue.entry("more").outdated == "tiny was built anew since"
    assert catalogue.entry("most").outdated == "more is outdated"
    build(catalogue, "more")
    assert catalogue.entry("more").outdated is None
    assert catalogue.entry("most").outdated == "more was built anew since"
    build(catalogue, "most")
    assert catalogue.entry("most").outdated is None
    describe(site, "most", 'extends = "tiny"\n')
    assert catalogue.entry("most").outdated == "it was not built from tiny"


def test_the_same_content_from_another_base_is_up_to_date(catalogue: Catalogue, site: Path, ground: Path) -> None:
    describe(site, "less", 'extends = "tiny"\nprovision = "provision"\n', 'rm -f "$1/etc/new"')
    first = build(catalogue, "less")
    (ground / "etc/new").touch()
    base = build(catalogue, "tiny")
    second = build(catalogue, "less")
    assert (second.digest, second.parent) == (first.digest, base.digest)
    assert catalogue.entry("less").outdated is None


def test_an_imported_image_can_be_extended_and_packages_need_apt(
    catalogue: Catalogue, site: Path, ground: Path, tmp_path: Path
) -> None:
    from cleanroom_images.importing import import_image

    (ground / "usr/lib").mkdir()
    (ground / "usr/lib/os-release").write_text("ID=rocky\nID_LIKE=rhel\nVERSION_ID=9.4\n")
    (ground / "usr/bin/apt-get").unlink()
    run(["tar", "-C", ground, "-cf", tmp_path / "root.tar", "."], timeout=60)
    import_image(catalogue, "rocky-9", tmp_path / "root.tar")
    describe(site, "more", 'extends = "rocky-9"\nprovision = "provision"\n', 'touch "$1/etc/new"')
    described = catalogue.description("more")
    assert (described.distribution, described.suite, described.formats) == ("rocky", "9.4", ("rpm", "script"))
    image = build(catalogue, "more")
    assert image.tree is not None
    assert (image.tree / "etc/new").exists()
    describe(site, "more", 'extends = "rocky-9"\npackages = ["gcc"]\n')
    with pytest.raises(InputError, match="has none"):
        build(catalogue, "more")


def test_a_base_that_was_tampered_with_is_not_extended(catalogue: Catalogue, site: Path, ground: Path) -> None:
    describe(site, "more", 'extends = "tiny"\n')
    base = build(catalogue, "tiny")
    assert base.tree is not None
    (base.tree / "etc/hostname").write_text("tampered")
    with pytest.raises(InfrastructureError, match="not what was sealed"):
        build(catalogue, "more")
    assert catalogue.entry("more").image is None


def test_what_is_wrong_with_an_extension_is_told_at_once(catalogue: Catalogue, site: Path) -> None:
    describe(site, "more", 'extends = "nothing"\nsuite = "x"\npackages = ["-o"]\nother = 1\n')
    with pytest.raises(InputError) as caught:
        catalogue.entry("more")
    problems = {problem.place: problem.message for problem in caught.value.problems}
    assert problems.keys() == {"extends", "suite", "packages[0]", "other"}
    assert problems["extends"] == "there is no image 'nothing'"
    assert problems["suite"] == "comes from the image that is extended"


@pytest.mark.parametrize("bases", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_a_circle_of_extensions_is_refused(catalogue: Catalogue, site: Path, bases: dict[str, str]) -> None:
    for name, base in bases.items():
        describe(site, name, f'extends = "{base}"\nother = 1\n')
    with pytest.raises(InputError, match="in a circle") as caught:
        catalogue.entry("a")
    assert len([problem for problem in caught.value.problems if "circle" in str(problem)]) == 1
    assert "other" in {problem.place for problem in caught.value.problems}


def test_what_is_wrong_with_a_base_is_told_of_what_extends_it(catalogue: Catalogue, site: Path) -> None:
    describe(site, "a", 'extends = "b"\n')
    describe(site, "b", 'suite = "bookworm"\n')
    with pytest.raises(InputError) as caught:
        catalogue.entry("a")
    assert [str(problem) for problem in caught.value.problems] == ["extends: b: distribution: is missing"]
