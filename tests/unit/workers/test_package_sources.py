"""The published channel as a guest's source of packages."""

from __future__ import annotations

from dataclasses import replace

from cleanroom_recipes.request import Repository
from cleanroom_workers.package_sources import published

CHANNEL = Repository("testing", "the key\n", apt=True, yum=True)


def test_apt_and_dnf_are_told_where_it_is_and_by_what_key_it_is_signed() -> None:
    files = published(CHANNEL, "debian-12", "http://10.0.0.1:9480")
    key = "/etc/apt/keyrings/cleanroom-published.asc"
    assert files[key] == "the key\n"
    sources = files["/etc/apt/sources.list.d/published.sources"].splitlines()
    assert sources == [
        "Types: deb",
        "URIs: http://10.0.0.1:9480/apt",
        "Suites: testing",
        "Components: debian-12",
        f"Signed-By: {key}",
    ]
    assert files["/etc/apt/apt.conf.d/99published"] == 'Acquire::http::Proxy::10.0.0.1 "DIRECT";\n'
    repo = files["/etc/yum.repos.d/published.repo"].splitlines()
    assert "baseurl=http://10.0.0.1:9480/yum/debian-12/testing/" in repo
    assert {"gpgcheck=1", "repo_gpgcheck=1", f"gpgkey=file://{key}"} <= set(repo)


def test_dnf_is_told_of_keys_that_signed_once_and_apt_is_not() -> None:
    files = published(replace(CHANNEL, retired="old keys\n"), "debian-12", "http://10.0.0.1:9480")
    place = "/etc/pki/rpm-gpg/cleanroom-published-retired.asc"
    assert files[place] == "old keys\n"
    repo = files["/etc/yum.repos.d/published.repo"].splitlines()
    assert f"gpgkey=file:///etc/apt/keyrings/cleanroom-published.asc file://{place}" in repo
    assert place not in files["/etc/apt/sources.list.d/published.sources"]


def test_only_what_is_there_is_a_source() -> None:
    apt = published(replace(CHANNEL, yum=False), "debian-12", "http://10.0.0.1:9480")
    assert not [name for name in apt if "yum" in name]
    yum = published(replace(CHANNEL, apt=False), "debian-12", "http://10.0.0.1:9480")
    assert not [name for name in yum if "sources" in name]
