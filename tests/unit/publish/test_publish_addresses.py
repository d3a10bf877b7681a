"""The order in which files are brought to a mirror, and what caches may keep."""

from __future__ import annotations

import random

import pytest

from cleanroom_master.publish import addresses
from cleanroom_master.publish.addresses import Stage

DIGEST = "0" * 64
PLACES = {
    "apt/pool/tiny/0123456789abcdef/tiny_1.0_amd64.deb": Stage.CONTENT,
    "apt/dists/testing/debian-12/binary-amd64/by-hash/SHA256/" + DIGEST: Stage.CONTENT,
    "yum/debian-12/testing/pool/tiny/0123456789abcdef/tiny-1.0-1.noarch.rpm": Stage.CONTENT,
    f"yum/debian-12/testing/repodata/{DIGEST}-primary.xml.gz": Stage.CONTENT,
    f"listing/{DIGEST}.json": Stage.CONTENT,
    f"yum/debian-12/testing/states/{DIGEST}/repodata/repomd.xml": Stage.CONTENT,
    "apt/dists/testing/debian-12/binary-amd64/Packages.gz": Stage.INDEXES,
    "keys/cleanroom.asc": Stage.INDEXES,
    "style.css": Stage.INDEXES,
    # A package may call a file as it likes.
    "apt/pool/InRelease/0123456789abcdef/InRelease": Stage.CONTENT,
    "provenance/InRelease": Stage.INDEXES,
    "apt/dists/testing/Release": Stage.ENTRIES,
    "apt/dists/testing/Release.gpg": Stage.ENTRIES,
    "apt/dists/testing/InRelease": Stage.ENTRIES,
    "yum/debian-12/testing/repodata/repomd.xml.asc": Stage.ENTRIES,
    "yum/debian-12/testing/repodata/repomd.xml": Stage.ENTRIES,
    "yum/debian-12/testing/mirrorlist": Stage.ENTRIES,
    "index.html": Stage.ENTRIES,
    "generation.json": Stage.ENTRIES,
}


@pytest.mark.parametrize(("place", "stage"), PLACES.items())
def test_what_names_other_files_comes_after_them(place: str, stage: Stage) -> None:
    assert addresses.stage(place) is stage
    assert addresses.immutable(place) == (stage is Stage.CONTENT)


def test_what_clients_read_first_comes_last_and_the_page_at_the_very_end() -> None:
    places = list(PLACES)
    random.Random(1).shuffle(places)
    entries = [place for place in sorted(places, key=addresses.order) if addresses.stage(place) is Stage.ENTRIES]
    assert [place.rpartition("/")[2] for place in entries] == [
        "Release",
        "Release.gpg",
        "InRelease",
        "repomd.xml.asc",
        "repomd.xml",
        "mirrorlist",
        "index.html",
        "generation.json",
    ]
    stages = [addresses.stage(place) for place in sorted(places, key=addresses.order)]
    assert stages == sorted(stages)
