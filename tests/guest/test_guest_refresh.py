"""Images that are built anew are tried by real guests before they are taken; here one that extends another."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from surroundings import IMAGE

from cleanroom_workers.host import Host
from cleanroom_workers.records import Owner
from cleanroom_workers.refresh import refresh

NAME = "refreshed"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "site/guest_images" / NAME
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text(f'extends = "{IMAGE}"\nprovision = "provision"\n')
    provide(folder, "true")
    return folder


@pytest.fixture
def here(host: Host, folder: Path) -> Iterator[Host]:
    """A host of the site with the image, which was built as its base is."""
    home, base = host.catalogue.store.directory / NAME, host.catalogue.image(IMAGE)
    subprocess.run(["rm", "-rf", home], check=True)
    home.mkdir()
    subprocess.run(["cp", "-al", base.directory, home / base.digest], check=True)
    seal = json.loads(base.directory.with_name(f"{base.digest}.json").read_text())
    (home / f"{base.digest}.json").write_text(json.dumps({**seal, "name": NAME}))
    (home / "current").symlink_to(base.digest)
    here = Host(replace(host.settings, site=folder.parents[1]))
    yield here
    here.close()
    host.catalogue.remove(NAME, force=True)


def provide(folder: Path, program: str) -> None:
    (folder / "provision").write_text(f"#!/bin/sh\nset -eu\n{program}\n")
    (folder / "provision").chmod(0o755)


@pytest.mark.usefixtures("traces")
def test_a_broken_image_is_refused_and_a_good_one_is_taken(here: Host, folder: Path) -> None:
    told: list[str] = []
    old = here.catalogue.image(NAME)
    assert here.catalogue.entry(NAME).outdated == f"it was not built from {IMAGE}"
    with here.reset(NAME, isolation="container", network="none", owner=Owner.current()) as guest:
        # Half installed, as dpkg is left when it is interrupted.
        provide(
            folder, 'sed -i "/^Package: hostname$/,/^$/s/ok installed$/ok half-configured/" "$1/var/lib/dpkg/status"'
        )
        (refused,) = refresh(here.settings, [NAME], told.append)
        assert (refused.outcome, refused.digest) == ("refused", old.digest)
        assert "packages are half installed" in str(refused.why)
        assert "hostname" in str(refused.why)
        assert here.catalogue.verify(NAME) == old
        assert sorted(path.name for path in old.directory.parent.glob("*.json")) == [f"{old.digest}.json"]

        provide(folder, 'echo new > "$1/etc/new"')
        (taken,) = refresh(here.settings, [NAME], told.append)
        assert (taken.outcome, taken.why) == ("refreshed", None)
        assert told.count(f"trying the new {NAME}") == 2
        assert here.catalogue.entry(NAME).outdated is None
        # Whoever runs from the old one still does, and the next one starts from the new one.
        guest.succeed(["dpkg", "--version"], timeout=20)
        guest.fail(["test", "-e", "/etc/new"], timeout=20)
        here.reap()
        assert here.verify(guest.name) == []
        with here.reset(NAME, isolation="container", network="none", owner=Owner.current()) as other:
            assert other.digest == taken.digest
            assert other.succeed(["cat", "/etc/new"], timeout=20).text == "new\n"
    here.reap()
    assert not old.directory.exists()
