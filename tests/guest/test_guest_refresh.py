"""Images that are built anew are tried by real guests before they are taken; here one that extends another."""

from __future__ import annotations

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
    return folder


@pytest.fixture
def here(host: Host, folder: Path) -> Iterator[Host]:
    """A host whose site describes the image."""
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
    # Half installed, as dpkg leaves it when it is interrupted.
    provide(folder, 'sed -i "/^Package: hostname$/,/^$/s/ok installed$/ok half-configured/" "$1/var/lib/dpkg/status"')
    (refused,) = refresh(here.settings, [NAME], told.append)
    assert (refused.outcome, refused.digest) == ("refused", None)
    assert "packages are half installed" in str(refused.why)
    assert "hostname" in str(refused.why)
    assert not list((here.catalogue.store.directory / NAME).glob("*.json"))

    provide(folder, 'echo new > "$1/etc/new"')
    (taken,) = refresh(here.settings, [NAME], told.append)
    assert (taken.outcome, taken.why) == ("refreshed", None)
    assert told.count(f"trying the new {NAME}") == 2
    entry = here.catalogue.entry(NAME)
    assert entry.image is not None
    assert (entry.image.digest, entry.image.parent) == (taken.digest, here.catalogue.image(IMAGE).digest)
    with here.reset(NAME, isolation="container", network="none", owner=Owner.current()) as guest:
        assert guest.digest == taken.digest
        assert guest.succeed(["cat", "/etc/new"], timeout=20).text == "new\n"
        assert here.verify(guest.name) == []
