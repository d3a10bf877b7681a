"""The pool: every published file once, under the checksum of its content, with what it says of itself.

Generations share it. It only grows; a file in it is complete, checked, signed (rpm) and on the disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cleanroom_base.errors import InfrastructureError, InputError
from cleanroom_master.publish import storage
from cleanroom_master.publish.inspect import check_file_name, check_rpm, hash_file, inspect, open_plain
from cleanroom_master.publish.package import Package, PackageFile
from cleanroom_master.publish.signing import Signer

_REMEMBERED = 2048


class Pool:
    """Files by sha256 in `pool/`, what they say of themselves in `facts/`, both below a directory."""

    def __init__(self, directory: Path, signer: Signer) -> None:
        self._files = directory / "pool"
        self._facts = directory / "facts"
        self._incoming = directory / "incoming"
        self._signer = signer
        self._known: dict[str, PackageFile] = {}

    def path(self, sha256: str) -> Path:
        """Where the file with this checksum is, or would be."""
        return self._files / sha256[:2] / sha256

    def holds(self, sha256: str) -> bool:
        """Whether a file that was built with this checksum was taken in."""
        return self._facts_path(sha256).exists() or self.path(sha256).exists()

    def facts(self, sha256: str) -> PackageFile:
        """What the package with this checksum, published or built, says of itself.

        Raises InfrastructureError when the pool does not hold it.
        """
        known = self._known.get(sha256)
        if known is None:
            known = self._known[sha256] = self._read_facts(sha256)
            # Those that came last are asked for again when the next ones come.
            while len(self._known) > _REMEMBERED:
                self._known.pop(next(iter(self._known)), None)
        return known

    def _read_facts(self, sha256: str) -> PackageFile:
        try:
            return PackageFile(**json.loads(self._facts_path(sha256).read_bytes()))
        except FileNotFoundError as error:
            raise InfrastructureError(f"the pool holds no package with the sha256 {sha256}") from error
        except (ValueError, TypeError) as error:
            raise InfrastructureError(f"what the pool knows of {sha256} cannot be read: {error}") from error

    def add_package(self, source: Path, sha256: str, file: str) -> PackageFile:
        """Take a package in; `sha256` is the recorded one and `file` its base name.

        An rpm is signed on its way. Taking the same package in twice gives the same file. Raises InputError when
        the content is not the recorded one, or is not what the name says.
        """
        check_file_name(file)
        if self._facts_path(sha256).exists():
            known = self.facts(sha256)
            if known.file != file:
                raise InputError(f"{file} is really {known.file}: its name and its content disagree")
            return known
        with self._arrival() as directory:
            arrived = directory / file
            _copy(source, arrived, sha256)
            checked = None
            if arrived.suffix == ".rpm":
                checked = self._sign(source, arrived)
            package = dataclasses.replace(inspect(arrived, checked=checked), built_sha256=sha256)
            self._check_companions(package)
            self._settle(arrived, package.sha256)
        # The built checksum last: it is the one that says "done".
        self._note(package, package.sha256, package.built_sha256)
        return package

    def _sign(self, source: Path, arrived: Path) -> tuple[str, str, str]:
        """Sign an rpm, and say what it is.

        Signing changes nothing of that. What came is looked at meanwhile, where it came from; if that is not what it
        should be, the signed one goes nowhere.
        """
        with ThreadPoolExecutor(1) as threads:
            signed = threads.submit(self._signer.sign_rpm, arrived)
            checked = check_rpm(source, arrived.name)
        signed.result()
        return checked

    def add_companion(self, source: Path, sha256: str) -> None:
        """Take in a file that a .dsc names, before the .dsc itself."""
        if not self.path(sha256).exists():
            with self._arrival() as directory:
                _copy(source, directory / "companion", sha256)
                self._settle(directory / "companion", sha256)

    def mend(self, package: Package, kept: Path | None) -> bool:
        """Make sure that the pool has a package's bytes and what it says of itself; False where that cannot be.

        `kept` is the artifact as it was built; of a signed rpm it has other bytes, and is no help.
        """
        if not _is(self.path(package.sha256), package.sha256):
            if kept is None or not _is(kept, package.sha256):
                return False
            with self._arrival() as directory:
                _copy(kept, directory / package.file, package.sha256)
                self._settle(directory / package.file, package.sha256)
        self._known.pop(package.sha256, None)
        try:
            facts = self.facts(package.sha256)
        except InfrastructureError:
            with self._arrival() as directory:
                storage.link(self.path(package.sha256), directory / package.file)
                facts = inspect(directory / package.file)
            self._note(facts, package.sha256)
        return all(_is(self.path(sha256), sha256) for sha256 in facts.companions.values())

    def remove_unneeded(self, published: Set[str], built: Set[str], *, before: float) -> tuple[int, int]:
        """Remove the files of packages that are not among these, and that came before a time (seconds since 1970).

        Returns how many, and how many bytes. What says "this is done" goes first, so a kill leaves nothing that is
        believed and not there.
        """
        for place in self._facts.glob("*/*.json"):
            if place.stem not in published | built and _older(place, before):
                facts = self._read_facts(place.stem)
                if facts.sha256 not in published:
                    for checksum in (facts.built_sha256, facts.sha256):
                        self._facts_path(checksum).unlink(missing_ok=True)
                        self._known.pop(checksum, None)
        left = [self._read_facts(place.stem) for place in self._sources()]
        needed = published | {sha256 for facts in left for sha256 in facts.companions.values()}
        removed, size = 0, 0
        for file in self._files.glob("*/*"):
            # A package whose facts are still there is on its way to a generation.
            if file.name not in needed and not self._facts_path(file.name).exists() and _older(file, before):
                removed, size = removed + 1, size + file.stat().st_size
                file.unlink()
        return removed, size

    def unneeded(self, published: Set[str], built: Set[str], *, before: float) -> tuple[int, int]:
        """How many files `remove_unneeded` would remove, and how many bytes."""
        left = [self._read_facts(place.stem) for place in self._facts.glob("*/*.json")]
        kept = [
            facts
            for facts in left
            if {facts.sha256, facts.built_sha256} & (published | built)
            or not _older(self._facts_path(facts.sha256), before)
        ]
        needed = published | {sha256 for facts in kept for sha256 in (facts.sha256, *facts.companions.values())}
        gone = [file for file in self._files.glob("*/*") if file.name not in needed and _older(file, before)]
        return len(gone), sum(file.stat().st_size for file in gone)

    def _sources(self) -> Iterator[Path]:
        """The facts of source packages, which need files beside them."""
        return (place for place in self._facts.glob("*/*.json") if b'"format": "dsc"' in place.read_bytes()[:64])

    def discard_unfinished(self) -> None:
        """Remove what was on its way in when the process was killed."""
        storage.remove(self._incoming)

    @contextlib.contextmanager
    def _arrival(self) -> Iterator[Path]:
        storage.make_directory(self._incoming)
        with tempfile.TemporaryDirectory(dir=self._incoming) as directory:
            yield Path(directory)

    def _note(self, package: PackageFile, *checksums: str) -> None:
        facts = json.dumps(dataclasses.asdict(package)).encode()
        for checksum in dict.fromkeys(checksums):
            storage.make_lasting_directory(self._facts_path(checksum).parent)
            storage.replace(self._facts_path(checksum), facts)

    def _settle(self, arrived: Path, sha256: str) -> None:
        arrived.chmod(0o644)
        storage.flush_file(arrived)
        place = self.path(sha256)
        storage.make_lasting_directory(place.parent)
        arrived.rename(place)
        storage.flush(place.parent)

    def _check_companions(self, package: PackageFile) -> None:
        missing = [file for file, sha256 in package.companions.items() if not self.path(sha256).exists()]
        if missing:
            raise InputError(f"{package.file} names files that were not given: {', '.join(missing)}")

    def _facts_path(self, sha256: str) -> Path:
        return self._facts / sha256[:2] / f"{sha256}.json"


def _is(file: Path, sha256: str) -> bool:
    """Whether a file is there and has this content."""
    try:
        return hash_file(file)[0] == sha256
    except (OSError, InputError):
        return False


def _older(file: Path, before: float) -> bool:
    try:
        return file.stat().st_mtime < before
    except FileNotFoundError:
        return False


def _copy(source: Path, destination: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with open_plain(source) as reader, destination.open("xb") as writer:
        while chunk := reader.read(1 << 20):
            digest.update(chunk)
            writer.write(chunk)
    if digest.hexdigest() != sha256:
        raise InputError(
            f"{destination.name} is not the file that was recorded: its sha256 is {digest.hexdigest()}, not {sha256}"
        )
