"""Small real packages, made by the real tools in a fraction of a second."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

NOTHING: Mapping[str, str] = {}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def make_deb(
    directory: Path,
    name: str = "tiny",
    version: str = "1.0",
    *,
    architecture: str = "amd64",
    more_control: str = "",
    greeting: str = "hello",
    files: Mapping[str, str] = NOTHING,
    scripts: Mapping[str, str] = NOTHING,
) -> Path:
    """A package with one file, under the name that its content asks for.

    `files` are further ones by their absolute path (`-> TARGET` is a link), those in /etc its conffiles; `scripts` are
    its maintainer scripts and other control files by name.
    """
    tree = directory / f"{name}_{version.replace(':', '%')}_{architecture}.tree"
    (tree / "DEBIAN").mkdir(parents=True)
    shared = tree / "usr/share" / name
    shared.mkdir(parents=True)
    (shared / "greeting").write_text(greeting + "\n")
    _write(tree, files)
    conffiles = "".join(f"{file}\n" for file in files if file.startswith("/etc/"))
    _write(tree / "DEBIAN", {"conffiles": conffiles, **scripts} if conffiles else scripts)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMulti-Arch: foreign\n"
        f"Maintainer: Nobody <nobody@example.invalid>\n{more_control}"
        "Description: a tiny package\n It says hello.\n .\n It says no more.\n"
    )
    file = directory / f"{name}_{version.rpartition(':')[2]}_{architecture}.deb"
    _run("dpkg-deb", "--root-owner-group", "--nocheck", "--build", tree, file)
    return file


def make_rpm(
    directory: Path,
    name: str = "tiny",
    version: str = "1.0",
    *,
    source: bool = False,
    greeting: str = "hello",
    tags: str = "",
    files: Mapping[str, str] = NOTHING,
    scripts: Mapping[str, str] = NOTHING,
) -> Path:
    """A noarch rpm with one file (or its source rpm), unsigned.

    `files` are further ones by their absolute path, those in /etc its configuration that is not to be replaced;
    `scripts` are its scriptlets by name ("post"), `tags` further lines of its header.
    """
    top = directory / f"rpmbuild-{name}-{version}"
    top.mkdir()
    spec = top / f"{name}.spec"
    _write(top / "files", files)
    listed = "".join(f"{'%config(noreplace) ' * file.startswith('/etc/')}{file}\n" for file in files)
    scriptlets = "".join(f"%{script}\n{content}\n" for script, content in scripts.items())
    spec.write_text(
        f"Name: {name}\nVersion: {version}\nRelease: 1\nSummary: a tiny package\nLicense: GPL-2.0-or-later\n"
        f"BuildArch: noarch\n{tags}%description\nIt says <hello> & no more.\n"
        f"%install\nmkdir -p %{{buildroot}}/usr/share/{name}\n"
        f"echo {greeting} > %{{buildroot}}/usr/share/{name}/greeting\ncp -a {top}/files/. %{{buildroot}}/\n"
        f"{scriptlets}%files\n/usr/share/{name}/greeting\n{listed}"
    )
    _run("rpmbuild", "--quiet", "--define", f"_topdir {top}", "-bs" if source else "-bb", spec)
    (built,) = top.glob("SRPMS/*.rpm" if source else "RPMS/noarch/*.rpm")
    return built


def make_source(directory: Path, name: str = "tiny", version: str = "1.0-1") -> Path:
    """A source package in the format 3.0 (quilt); returns its .dsc, with the tarballs beside it."""
    upstream = version.rpartition("-")[0]
    tree = directory / f"{name}-{upstream}"
    tree.mkdir(parents=True)
    (tree / "README").write_text("hello\n")
    _run("tar", "-czf", directory / f"{name}_{upstream}.orig.tar.gz", "-C", directory, tree.name)
    (tree / "debian/source").mkdir(parents=True)
    (tree / "debian/source/format").write_text("3.0 (quilt)\n")
    (tree / "debian/control").write_text(
        f"Source: {name}\nMaintainer: Nobody <nobody@example.invalid>\nStandards-Version: 4.6.2\n\n"
        f"Package: {name}\nArchitecture: all\nDescription: a tiny package\n It says hello.\n"
    )
    (tree / "debian/changelog").write_text(
        f"{name} ({version}) unstable; urgency=medium\n\n  * Hello.\n\n"
        " -- Nobody <nobody@example.invalid>  Mon, 01 Jan 2024 00:00:00 +0000\n"
    )
    _run("dpkg-source", "--build", tree.name, cwd=directory)
    return directory / f"{name}_{version}.dsc"


def _write(tree: Path, files: Mapping[str, str]) -> None:
    tree.mkdir(exist_ok=True)
    for name, content in files.items():
        file = tree / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            file.symlink_to(content[3:])
            continue
        file.write_text(content)
        file.chmod(0o755 if content.startswith("#!") else 0o644)


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=cwd)
