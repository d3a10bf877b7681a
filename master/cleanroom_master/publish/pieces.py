"""Indexes out of pieces: each run of packages is one member of a gzip file, and members are put after each other.

A gzip file may have several members (RFC 1952, 2.2), and every reader of repositories reads them as one. So an index
with one package more is the old one's bytes with one small piece made anew. Its checksums are not calculated from the
beginning either: what was calculated up to the last pieces is remembered.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cleanroom_base.errors import InfrastructureError
from cleanroom_master.publish.generation import Run

if TYPE_CHECKING:
    from hashlib import _Hash

# Higher levels take twice as long and save some per cent.
_LEVEL = 6
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Piece:
    """A run's piece of an index, packed, and how many bytes it has when unpacked."""

    packed: bytes
    plain: int


Pieces = dict[tuple[str, str], Piece]
"""Pieces by index and the listing of their run."""


def pack(plain: bytes) -> Piece:
    """One member of an index file."""
    return Piece(gzip.compress(plain, _LEVEL, mtime=0), len(plain))


def unpack(packed: bytes, limit: int) -> bytes:
    """What a member holds, which is at most `limit` bytes. Raises InfrastructureError when it is none, or more."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(packed, limit + 1)
    except zlib.error as error:
        raise InfrastructureError(f"a piece of an index cannot be unpacked: {error}") from error
    if len(plain) > limit or not decompressor.eof or decompressor.unused_data:
        raise InfrastructureError("a piece of an index is not as long as its listing says")
    return plain


def split(content: bytes, runs: Iterable[Run], index: str, *, start: int = 0) -> dict[str, bytes]:
    """The packed pieces of an index file by the listings of their runs; the first begins at `start`."""
    found = {}
    for run in runs:
        end = start + run.sizes[index][1]
        found[run.listing] = content[start:end]
        start = end
    return found


class Memory:
    """Checksums of what indexes begin with, from one generation to the next."""

    def __init__(self) -> None:
        self._states: OrderedDict[bytes, _Hash] = OrderedDict()
        self._lock = threading.Lock()

    def sha256(self, index: str, runs: Sequence[Run], pieces: Mapping[str, bytes]) -> str:
        """The sha256 of an index when it is unpacked."""
        keys = [hashlib.sha256(index.encode()).digest()]
        for run in runs:
            keys.append(hashlib.sha256(keys[-1] + bytes.fromhex(run.listing)).digest())
        with self._lock:
            known = next((number for number in range(len(runs), 0, -1) if keys[number] in self._states), 0)
            state = self._states[keys[known]].copy() if known else hashlib.sha256()
        for number, run in enumerate(runs[known:], known + 1):
            state.update(unpack(pieces[run.listing], run.sizes[index][0]))
            # The last run is the one that grows, so what is before it is what will be asked for.
            if number >= len(runs) - 1:
                self._remember(keys[number], state)
        return state.hexdigest()

    def _remember(self, key: bytes, state: _Hash) -> None:
        with self._lock:
            self._states[key] = state.copy()
            while len(self._states) > _REMEMBERED:
                self._states.popitem(last=False)


def read(file: Path) -> bytes:
    """An index file, empty where there is none."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
