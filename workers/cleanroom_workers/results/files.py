"""The result files that a guest left: found and sent by one command in it, told apart by what is in them.

They come as a tar stream that is read from its beginning to its end and never unpacked. What does not fit into the
limits, or is not what it seems, is said in a remark: it is neither the step's failure nor ours.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, Protocol, cast

from cleanroom_recipes.events import TestCase
from cleanroom_workers.results import autopkgtest, junit, subunit, tap
from cleanroom_workers.results.case import BrokenResults, stable_name

FILES_LIMIT = 5000
BYTES_LIMIT = 128 << 20
_HEAD = 512
_SHOWN_NAME = 100
_RESULTS = ("*.xml", "*.tap", "*.subunit", "*/autopkgtest/summary")
# What this guest has told already is older than the mark; before there is one, what was sent into it is.
_SCRIPT = f"""
exec 2>/dev/null
cd "$1" || exit
since=steps/0
[ ! -e results-read ] || since=results-read
: >results-reading
shift
find build results -xdev -type f -newer "$since" \\( "$@" \\) -print0 |
	LC_ALL=C sort -z | head -z -n {FILES_LIMIT + 1} |
	tar --create --format=posix --null --no-recursion --files-from=- --file=-
mv results-reading results-read
"""


class Format(Protocol):
    """A module for one format of result files."""

    def fits(self, name: str, head: bytes, /) -> bool:
        """Whether a file is of this format, by its path or its first bytes."""

    def read(self, stream: IO[bytes], /) -> Iterator[TestCase]:
        """The cases of a file, as they come. Raises BrokenResults."""


# The first that fits counts.
FORMATS = cast("tuple[Format, ...]", (autopkgtest, subunit, junit, tap))


def command(home: str, patterns: Sequence[str]) -> list[str]:
    """The command that sends the result files of the guest's directory `home` as a tar stream.

    `patterns` are those of find(1)'s `-path` inside the source tree (`*` goes over slashes): the tree itself, and
    what rpmbuild unpacked of it.
    """
    trees = ("build/tree", "build/rpm/BUILD/*")
    places = [f"results/{pattern}" for pattern in _RESULTS]
    places += [f"{tree}/{pattern}" for pattern in patterns for tree in trees]
    wanted = [word for place in places for word in ("-o", "-path", place)][1:]
    return ["sh", "-c", _SCRIPT, "sh", home, *wanted]


class Files:
    """Reads such a stream; afterwards `remarks` say what was not read."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def read(self, stream: IO[bytes]) -> Iterator[TestCase]:
        """The cases of all files, as they come. Raises nothing that the stream could cause."""
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for number, member in enumerate(tar):
                    if number >= FILES_LIMIT:
                        self.remarks.append(f"only the first {FILES_LIMIT} result files were read")
                        return
                    if member.isreg() and not member.issparse():
                        yield from self._file(tar, member)
        except (tarfile.TarError, EOFError, ValueError, OSError) as error:
            self.remarks.append(f"the result files end early ({error})")

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[TestCase]:
        content = tar.extractfile(member)
        assert content is not None
        stream = _Peeked(cast("io.BufferedReader", content))
        chosen = next((form for form in FORMATS if form.fits(member.name, stream.head)), None)
        try:
            if not stream.head.strip():
                raise BrokenResults("is empty")
            if chosen is None:
                raise BrokenResults("is no result file of a known format")
            yield from chosen.read(cast("IO[bytes]", stream))
        except BrokenResults as error:
            self.remarks.append(f"{_shown(member.name)} {error}")


class _Peeked:
    """A file in the stream whose beginning was looked at.

    Where the stream breaks off, what came before is given out first: tarfile would keep it to itself.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._broken: Exception | None = None
        self._left = b""
        self.head = self._left = self.read(_HEAD)

    def read(self, count: int) -> bytes:
        """At most `count` bytes, fewer only at the end. Raises what tarfile raises."""
        taken, self._left = self._left[:count], self._left[count:]
        if self._broken is not None and not taken:
            raise self._broken
        while len(taken) < count and self._broken is None:
            try:
                more = self._stream.read1(count - len(taken))
            except (tarfile.TarError, OSError) as error:
                self._broken = error
                more = b""
            if not more:
                break
            taken += more
        return taken

    def readline(self, limit: int) -> bytes:
        """A line or the first `limit` bytes of it."""
        if not self._left:
            return self._stream.readline(limit)
        end = self._left.find(b"\n") + 1
        if end or len(self._left) >= limit:
            return self.read(min(end or limit, limit))
        begun = self.read(len(self._left))
        return begun + self._stream.readline(limit - len(begun))


def _shown(name: str) -> str:
    for tree in ("build/tree/", "build/rpm/BUILD/"):
        name = name.removeprefix(tree)
    return stable_name(name[-_SHOWN_NAME:])
