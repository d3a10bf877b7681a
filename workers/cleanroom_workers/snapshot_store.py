"""The files of snapshots: how they are known to be what was made, who uses them, and what goes when.

    STATE/snapshots/KEY/          disk.qcow2 (on the image's disk) memory state
    STATE/snapshots/KEY.json      the seal: what it was made of, checksums; its own time is that of the last use
    STATE/snapshots/KEY.refused   why guests of this key are booted; it counts for a day
    STATE/guests/GUEST/snapshot   holds the KEY that a guest goes on from

There is one for each set of limits that anybody asks for, so there may be many: those that were not used for the
longest time go when all together take more than their share of the disk, and so do the copies in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cleanroom_base.settings import Settings
from cleanroom_images.manifest import file_digest
from cleanroom_workers import sealed_memory
from cleanroom_workers.daemon import emulator_account
from cleanroom_workers.locks import attempted, locked
from cleanroom_workers.plan import Limits

PARTS = ("disk.qcow2", "memory", "state")
_LOCK_TIMEOUT = 60.0
_MAKE_TIMEOUT = 600.0
# What all snapshots together may take of the whole disk, and their copies in memory of the whole memory.
_SHARE = 0.1
# What spoilt a snapshot may be gone after a day (in seconds).
_REFUSED_FOR = 86400.0


@dataclass(frozen=True, slots=True)
class Key:
    """What a snapshot depends on. A guest with other limits needs another one: it has booted with them."""

    image: str
    digest: str
    architecture: str
    emulator: str
    machine: str
    processor: str
    accelerator: str
    limits: Limits
    preparation: str

    @property
    def name(self) -> str:
        """A short name that only this key has."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


class SnapshotStore:
    """The snapshots of one installation."""

    def __init__(self, settings: Settings, *, disk: float = _SHARE, memory: float = _SHARE) -> None:
        """`disk` and `memory` are the parts of both that snapshots may have."""
        self.directory = settings.state / "snapshots"
        self._guests = settings.state / "guests"
        self._runtime = settings.runtime / "snapshots"
        self._disk, self._memory = disk, memory

    @contextlib.contextmanager
    def claimed(self, key: Key, guest: Path) -> Iterator[None]:
        """Hold the snapshot of a key for the guest at home in `guest`, sound or not, and lock it meanwhile."""
        (guest / "snapshot").write_text(key.name, encoding="ascii")
        with locked(self._lock(key.name), timeout=_MAKE_TIMEOUT):
            yield

    def sound(self, key: Key) -> bool:
        """Whether a snapshot is there, and is what was sealed; see `Store.check` for how that is seen at once.

        It counts as used now. The caller has locked it.
        """
        try:
            seal = json.loads(self._seal(key.name).read_text(encoding="utf-8"))
            checksums = {part: str(seal["checksums"][part]) for part in PARTS}
            places = {part: self.directory / key.name / part for part in PARTS}
            if any(place.stat().st_ctime > float(seal["sealed_at"]) for place in places.values()):
                if {part: _checksum(place) for part, place in places.items()} != checksums:
                    return False
                self._write_seal(key, checksums)
            os.utime(self._seal(key.name))
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    @contextlib.contextmanager
    def making(self, key: Key) -> Iterator[Path]:
        """Gives a directory in which the parts of a snapshot are to be made; then they are sealed, and take the
        place of an earlier one. The caller has locked it."""
        self.drop(key.name)
        half = self.directory / f".new-{key.name}"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        half.chmod(0o711)
        try:
            yield half
            checksums = {part: _settled(half / part) for part in PARTS}
            half.rename(self.directory / key.name)
            self._write_seal(key, checksums)
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def memory(self, key: Key) -> Path:
        """The path at which the emulator opens a copy of a snapshot's memory that nobody can change."""
        sealed = json.loads(self._seal(key.name).read_text(encoding="utf-8"))["checksums"]["memory"]
        with locked(self._lock(key.name), timeout=_LOCK_TIMEOUT):
            file = self.directory / key.name / "memory"
            return sealed_memory.provide(file, sealed, self._note(key.name), emulator_account())

    def refuse(self, key: Key, why: str) -> None:
        """Have guests of a key boot for a day."""
        content = {"key": asdict(key), "why": why, "at": time.time()}
        self._write(self._refusal(key.name), content)

    def refused(self, key: Key) -> str | None:
        """Why guests of a key are to boot; None when they are not."""
        try:
            content = json.loads(self._refusal(key.name).read_text(encoding="utf-8"))
            lately = 0 <= time.time() - float(content["at"]) < _REFUSED_FOR
            return str(content["why"]) if lately else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def drop(self, name: str) -> None:
        """Remove the snapshot with the key's name `name`; machines that use its memory keep that."""
        self._seal(name).unlink(missing_ok=True)
        sealed_memory.withdraw(self._note(name))
        shutil.rmtree(self.directory / name, ignore_errors=True)

    def tidy(self, current: Callable[[Key], bool]) -> None:
        """Remove what was left half made, what no new guest would use, and what is beyond the share of snapshots.

        `current` tells whether a guest that starts now could use a snapshot of that key. What a guest uses stays.
        """
        if not self.directory.is_dir():
            return
        self._remove_remains()
        for refusal in self.directory.glob("*.refused"):
            key = _key(refusal)
            if key is None or not current(key) or self.refused(key) is None:
                refusal.unlink(missing_ok=True)
        outdated: list[str] = []
        kept: list[str] = []
        for seal in sorted(self.directory.glob("*.json"), key=_time, reverse=True):
            key = _key(seal)
            useful = key is not None and current(key) and self.refused(key) is None
            (kept if useful else outdated).append(seal.stem)
        disk = shutil.disk_usage(self.directory).total * self._disk
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * self._memory
        sizes = {name: _allocated(self.directory / name) for name in kept}
        for name in [*outdated, *beyond(kept, sizes, disk)]:
            self._unless_used(name, self.drop)
        held = [name for name in kept if self._note(name).exists()]
        for name in beyond(held, sizes, memory):
            self._unless_used(name, lambda name: sealed_memory.withdraw(self._note(name)))

    def stop(self) -> None:
        """Let go of everything in memory."""
        for note in self._runtime.glob("*.holder"):
            sealed_memory.withdraw(note)

    def _remove_remains(self) -> None:
        for entry in self.directory.iterdir():
            name = entry.name.removeprefix(".new-").split(".")[0]
            if entry.suffix in (".json", ".refused") or (entry.name == name and self._seal(name).exists()):
                continue
            with attempted(self._lock(name)) as held:
                if held and entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                elif held:
                    entry.unlink(missing_ok=True)

    def _unless_used(self, name: str, remove: Callable[[str], None]) -> None:
        """A guest says what it uses before it asks for the lock, so none can come in between."""
        with attempted(self._lock(name)) as held:
            if held and name not in self._used():
                remove(name)

    def _used(self) -> set[str]:
        found = set()
        for note in self._guests.glob("*/snapshot"):
            with contextlib.suppress(OSError):
                found.add(note.read_text(encoding="ascii"))
        return found

    def _write_seal(self, key: Key, checksums: dict[str, str]) -> None:
        content = {"key": asdict(key), "checksums": checksums, "sealed_at": time.time()}
        self._write(self._seal(key.name), content)

    def _write(self, file: Path, content: dict[str, object]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        temporary.replace(file)

    def _seal(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def _refusal(self, name: str) -> Path:
        return self.directory / f"{name}.refused"

    def _note(self, name: str) -> Path:
        return self._runtime / f"{name}.holder"

    def _lock(self, name: str) -> Path:
        return self._runtime / f"{name}.lock"


def beyond(names: Collection[str], sizes: dict[str, int], room: float) -> list[str]:
    """Which of the names, the last used first, are too much for `room` bytes; the first never is."""
    found, taken = [], 0
    for name in names:
        if taken and taken + sizes[name] > room:
            found.append(name)
        else:
            taken += sizes[name]
    return found


def _key(file: Path) -> Key | None:
    """The key in a seal or a refusal, None when it cannot be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))["key"]
        return Key(**{**content, "limits": Limits(**content["limits"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _time(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _allocated(directory: Path) -> int:
    """The bytes of disk that a snapshot takes; its memory has holes."""
    found = 0
    for part in PARTS:
        with contextlib.suppress(OSError):
            found += (directory / part).stat().st_blocks * 512
    return found


def _settled(part: Path) -> str:
    """Make a part of a snapshot lasting and unchangeable for the emulator; returns its checksum."""
    os.chown(part, 0, 0)
    part.chmod(0o444)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    return _checksum(part)


def _checksum(part: Path) -> str:
    return sealed_memory.checksum(part) if part.name == "memory" else file_digest(part)
