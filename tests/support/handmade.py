"""Source trees of small packages that are built by hand: nothing has to be installed to build them."""

from __future__ import annotations

from collections.abc import Mapping

_RULES = """#!/usr/bin/make -f
build build-arch build-indep binary-arch:
clean:
	rm -rf debian/{name} debian/files
binary binary-indep:
	install -D -m 644 answer debian/{name}/usr/share/{name}/answer
	mkdir -p debian/{name}/DEBIAN
	dpkg-gencontrol -Pdebian/{name}
	dpkg-deb --root-owner-group --build debian/{name} ..
"""


def deb(name: str, version: str, answer: str, recipe: str = "", *, depends: str = "") -> dict[str, str]:
    """A package with the file /usr/share/NAME/answer; `recipe` is what its cleanroom.toml says besides."""
    needs = f"Depends: {depends}\n" if depends else ""
    return {
        "cleanroom.toml": (
            f'builder = "deb"\n{recipe}\n[phases.build]\nwithout = ["lint"]\n'
            "[phases.upgrade]\nenabled = false\n[phases.remove]\nenabled = false\n"
        ),
        "debian/control": (
            f"Source: {name}\nMaintainer: Nobody <nobody@example.org>\nStandards-Version: 4.6.2\n"
            "Rules-Requires-Root: no\n\n"
            f"Package: {name}\nArchitecture: all\n{needs}Description: a tiny package\n It has an answer.\n"
        ),
        "debian/changelog": (
            f"{name} ({version}) unstable; urgency=medium\n\n  * A version.\n\n"
            " -- Nobody <nobody@example.org>  Thu, 01 Jan 2026 12:00:00 +0000\n"
        ),
        "debian/rules": _RULES.format(name=name),
        "debian/source/format": "3.0 (native)\n",
        "answer": f"{answer}\n",
    }


def rpm(
    name: str, version: str, answer: str, recipe: str = "", *, scripts: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The same as an rpm; `scripts` are its scriptlets by name ("post")."""
    scriptlets = "".join(f"%{script}\n{content}\n\n" for script, content in (scripts or {}).items())
    return {
        "cleanroom.toml": (
            f'builder = "rpm"\n{recipe}\n[phases.build]\nwithout = ["lint"]\n'
            "[phases.upgrade]\nenabled = false\n[phases.remove]\nenabled = false\n"
        ),
        f"{name}.spec": (
            f"Name: {name}\nVersion: {version}\nRelease: 1\nSummary: a tiny package\nLicense: GPL-2.0-or-later\n"
            f"BuildArch: noarch\nSource0: %{{name}}-%{{version}}.tar.gz\n\n%description\nIt has an answer.\n\n"
            "%prep\n%setup -q\n\n"
            "%install\ninstall -D -m 644 answer %{buildroot}%{_datadir}/%{name}/answer\n\n"
            f"{scriptlets}%files\n%{{_datadir}}/%{{name}}/answer\n"
        ),
        "answer": f"{answer}\n",
    }
