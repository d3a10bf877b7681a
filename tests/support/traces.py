"""Everything that guests and snapshots leave on a machine while they are there, to be counted before and after."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cleanroom_base.settings import Settings

# Their names end in eight digits.
_OF_A_GUEST = re.compile(r"-[0-9a-f]{8}(\.(dev|devpts|fuse|sock|log))?$")


def of_guests(settings: Settings) -> dict[str, list[str]]:
    """What the guests of an installation consist of at this moment, by kind."""
    state, runtime = settings.state, settings.runtime
    return {
        "guests": _names(state / "guests"),
        "processes": sorted(map(str, processes(settings).items())),
        "domains": sorted(path.name for path in (state / "libvirt/etc").glob("*/*-*.xml")),
        "mounts": sorted(place for place in _mount_points() if place.startswith(f"{state}/")),
        "links": [name for name in _names(Path("/sys/class/net")) if name.startswith(f"cg{settings.instance[:6]}")],
        "addresses": _addresses(settings),
        "connections": _names(runtime / "ssh"),
        "locks": _names(runtime / "locks"),
        "libvirt": sorted(
            str(path)
            for place in (runtime / "libvirt", state / "libvirt/lib", state / "libvirt/log")
            for path in place.rglob("*")
            if path.parent.name != "network" and _OF_A_GUEST.search(path.name)
        ),
        "users": sorted(str(path) for path in (state / "images").glob("*/users/*")),
        "loops": sorted(
            path.parent.parent.name
            for path in Path("/sys/block").glob("loop*/loop/backing_file")
            if path.read_text(encoding="utf-8").startswith(f"{state}/")
        ),
        "groups": sorted(
            str(path)
            for path in Path("/sys/fs/cgroup").glob("*/cleanroom-*")
            if (state / "guests" / path.name.removeprefix("cleanroom-")).exists()
        ),
    }


def of_snapshots(settings: Settings) -> dict[str, list[str]]:
    """What the snapshots of an installation consist of."""
    return {
        "snapshots": sorted(str(path) for path in (settings.state / "snapshots").rglob("*")),
        "memories": sorted(path.name for path in (settings.runtime / "snapshots").glob("*.holder")),
    }


def processes(settings: Settings, guest: str = "") -> dict[int, str]:
    """The host's processes that belong to guests, or to one: emulators, containers' keepers, connections.

    Their programs' names, by their numbers.
    """
    names = set(_names(settings.state / "guests"))
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = os.fsdecode((place / "cmdline").read_bytes()).split("\0")
        except OSError:
            continue
        program = Path(words[0]).name
        ours = any(word in names or f"{settings.state}/guests/" in word for word in words)
        if program.startswith(("qemu-system", "libvirt_lxc", "ssh")) and ours and any(guest in word for word in words):
            found[int(place.name)] = program
    return found


def _addresses(settings: Settings) -> list[str]:
    """The addresses that guests may send from."""
    chosen = json.loads((settings.state / "network.json").read_text(encoding="utf-8"))["name"]
    listing = ["nft", "-j", "list", "set", "bridge", chosen, "guests"]
    content = json.loads(subprocess.run(listing, capture_output=True, check=True).stdout)
    sets = [entry["set"] for entry in content["nftables"] if "set" in entry]
    return sorted(str(element["concat"][-1]) for found in sets for element in found.get("elem", []))


def _mount_points() -> Iterator[str]:
    with Path("/proc/self/mountinfo").open(encoding="utf-8") as table:
        yield from (line.split()[4] for line in table)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
