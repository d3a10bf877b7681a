"""The proxy's configuration: package mirrors and nothing else."""

from __future__ import annotations

from pathlib import Path

from cleanroom_workers.proxy import Proxy, configure, mirrors_of

PLAIN = "http://mirror.example/debian"
SECURE = "https://secure.example:8443/debian"


def test_mirrors_are_read_from_both_formats_and_not_through_links(tmp_path: Path) -> None:
    directory = tmp_path / "etc/apt/sources.list.d"
    directory.mkdir(parents=True)
    (directory.parent / "sources.list").write_text(f"deb {PLAIN} bookworm main\n# deb http://no.example/ x\n")
    (directory / "one.sources").write_text(f"Types: deb\nURIs: {SECURE}/ file:/srv\nSuites: x\n")
    outside = tmp_path / "outside"
    outside.write_text("deb http://outside.example/ x y\n")
    (directory / "link.list").symlink_to(outside)
    assert mirrors_of(tmp_path) == {PLAIN, SECURE}


def test_only_mirrors_are_served(tmp_path: Path) -> None:
    lines = configure(Proxy("10.0.0.1", 3142), tmp_path, [PLAIN, SECURE], upstream=None).splitlines()
    assert "ForceManaged: 1" in lines
    assert f"Remap-mirror0: {PLAIN} ; {PLAIN}" in lines
    assert r"PassThroughPattern: ^(secure\.example:8443)$" in lines
    assert "BindAddress: 10.0.0.1" in lines


def test_no_tunnel_is_open_when_no_mirror_needs_one(tmp_path: Path) -> None:
    lines = configure(Proxy("10.0.0.1", 3142), tmp_path, [PLAIN], upstream="http://up.example:3128").splitlines()
    assert "PassThroughPattern: ^(-)$" in lines
    assert "Proxy: http://up.example:3128" in lines
