"""Parts of statements."""

from __future__ import annotations

import pytest

from cleanroom_master.provenance.statement import builder, package_url, public_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@example.org/a.git", "https://example.org/a.git"),
        ("https://token@example.org:8443/a.git?x=1", "https://example.org:8443/a.git?x=1"),
        ("ssh://git@example.org/a.git", "ssh://example.org/a.git"),
        ("git@example.org:a.git", "git@example.org:a.git"),
        ("/srv/git/a@b.git", "/srv/git/a@b.git"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_password(url: str, shown: str) -> None:
    assert public_url(url) == shown


@pytest.mark.parametrize(
    ("name", "version", "url"),
    [
        ("gcc", "4:12.2.0-3", "pkg:deb/debian/gcc@4:12.2.0-3?distro=debian-12"),
        ("libstdc++6", "12~rc1+1", "pkg:deb/debian/libstdc%2B%2B6@12~rc1%2B1?distro=debian-12"),
        ("rpm:glibc", "2.36-1", "pkg:rpm/glibc@2.36-1?distro=debian-12"),
    ],
)
def test_packages_have_the_names_that_others_know(name: str, version: str, url: str) -> None:
    assert package_url(name, version, "debian-12") == url


def test_a_builder_is_named_after_its_isolation() -> None:
    assert builder("https://packages.example", "kvm") == "https://packages.example/provenance.html#builder-kvm"
