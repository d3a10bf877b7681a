"""Whether a generation is fit to be shown: asked of the clients' own programs, and of every checksum.

What a consumer's apt, gpgv or rpm would refuse must never be switched to. The programs get private
directories and none of this machine's configuration, and no network: the generation is read as files.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from cleanroom_base.errors import CleanroomError, InfrastructureError, Problem
from cleanroom_base.run import CommandError, run
from cleanroom_master.publish import apt, generation, yum
from cleanroom_master.publish.generation import Generation
from cleanroom_master.publish.inspect import hash_file
from cleanroom_master.publish.package import Package, Stream
from cleanroom_master.publish.signing import Signer

_TIMEOUT = 300.0
# So many files are given to one rpm command: a command line has a limit.
_RPM_BATCH = 500


def verify(directory: Path, since: Path | None, signer: Signer) -> list[Problem]:
    """Check the generation in `directory`; of one in `since`, what is the same file is taken as checked."""
    with tempfile.TemporaryDirectory() as scratch:
        return _Check(directory, since, Path(scratch), signer).problems()


class _Check:
    def __init__(self, directory: Path, since: Path | None, scratch: Path, signer: Signer) -> None:
        self._directory = directory
        self._since = since
        self._scratch = scratch
        self._keyring = scratch / "keyring.gpg"
        self._keyring.write_bytes(signer.keyring())
        self._public_key = signer.public_key()

    def problems(self) -> list[Problem]:
        """What is wrong. The checks run side by side, since they wait for programs; the slowest begins first."""
        try:
            listing = generation.read(self._directory)
        except InfrastructureError as error:
            return [Problem(generation.LISTING, error.message)]
        known = set(generation.read(self._since).packages) if self._since else set()
        new = [package for package in listing.packages if package not in known]
        channels = sorted({stream.channel for stream in listing.streams if stream.family == "apt"})
        checks = [
            self._apt_client(listing),
            self._rpm_client([package for package in new if package.format == "rpm"]),
            *(self._apt(listing, channel) for channel in channels),
            *(self._yum(listing, stream) for stream in listing.streams if stream.family == "yum"),
            self._key(),
            self._files(new),
        ]
        with ThreadPoolExecutor() as threads:
            return [problem for problems in threads.map(list[Problem], checks) for problem in problems]

    def _files(self, packages: list[Package]) -> Iterator[Problem]:
        for package in packages:
            yield from self._same(self._place(package), package.sha256, package.size)

    def _key(self) -> Iterator[Problem]:
        place = "keys/cleanroom.asc"
        key = self._directory / place
        if not key.is_file() or key.read_bytes() != self._public_key:
            yield Problem(place, "is not the public key of this repository")

    def _apt(self, listing: Generation, channel: str) -> Iterator[Problem]:
        place = f"apt/dists/{channel}"
        directory = self._directory / place
        release = directory / "Release"
        if not self._is_new(f"{place}/InRelease"):
            return
        yield from self._signature(f"{place}/Release.gpg", release)
        yield from self._signature(f"{place}/InRelease")
        if not release.is_file():
            return
        for file in apt.listed(release.read_text()):
            if self._is_new(f"{place}/{file.path}"):
                yield from self._same(f"{place}/{file.path}", file.sha256, file.size)
                yield from self._same(f"{place}/{file.by_hash}", file.sha256, file.size)
        for stream in listing.apt_streams(channel):
            lines = self._lines(directory / stream.image)
            for package in listing.of(stream):
                if not _apt_lines(package) <= lines:
                    yield Problem(f"{place}/{stream.image}", f"{package.file} is in no index")

    @staticmethod
    def _lines(component: Path) -> set[str]:
        indexes = [*component.glob("binary-*/Packages"), *component.glob("source/Sources")]
        return {line for index in indexes for line in index.read_text(errors="replace").split("\n")}

    def _yum(self, listing: Generation, stream: Stream) -> Iterator[Problem]:
        place = f"{generation.root_of(stream)}/repodata"
        repomd = self._directory / place / "repomd.xml"
        if not self._is_new(f"{place}/repomd.xml"):
            return
        yield from self._signature(f"{place}/repomd.xml.asc", repomd)
        if not repomd.is_file():
            return
        lines: set[str] = set()
        for name, sha256 in yum.listed(repomd.read_bytes()):
            problems = list(self._same(f"{place}/{name}", sha256))
            yield from problems
            if name.endswith("-primary.xml.gz") and not problems:
                text = gzip.decompress((self._directory / place / name).read_bytes()).decode()
                lines = {line.strip() for line in text.split("\n")}
        for package in listing.of(stream):
            checksum = f'<checksum type="sha256" pkgid="YES">{package.sha256}</checksum>'
            if not {f'<location href="{package.path}"/>', checksum} <= lines:
                yield Problem(place, f"{package.file} is in no index")

    def _apt_client(self, listing: Generation) -> Iterator[Problem]:
        """Run `apt-get update` on the channels that changed."""
        changed = {
            stream
            for stream in listing.streams
            if stream.family == "apt" and self._is_new(f"apt/dists/{stream.channel}/InRelease")
        }
        if not changed:
            return
        architectures = ",".join(apt.ARCHITECTURES)
        options = f"[signed-by={self._keyring} arch={architectures}]"
        address = "file:" + quote(str(self._directory / "apt"))
        lines = [
            f"{kind} {options} {address} {stream.channel} {stream.image}\n"
            for stream in sorted(changed)
            for kind in ("deb", "deb-src")
        ]
        sources = self._scratch / "sources.list"
        sources.write_text("".join(lines))
        configuration = self._scratch / "apt.conf"
        configuration.write_text(_apt_configuration(self._scratch, sources))
        command = ["apt-get", "--quiet", "--error-on=any", "update"]
        try:
            run(command, environment={"APT_CONFIG": str(configuration)}, timeout=_TIMEOUT)
        except CommandError as error:
            yield Problem("apt", f"apt refuses it: {error.message}")

    def _rpm_client(self, packages: list[Package]) -> Iterator[Problem]:
        """Let rpm, trusting our key alone, check signatures and digests of new rpms."""
        if not packages:
            return
        rpm = ["rpm", "--dbpath", str(self._scratch / "rpm")]
        key = self._scratch / "key.asc"
        key.write_bytes(self._public_key)
        run([*rpm, "--import", key], timeout=_TIMEOUT)
        for first in range(0, len(packages), _RPM_BATCH):
            files = [self._directory / self._place(package) for package in packages[first : first + _RPM_BATCH]]
            strict = ["--define", "_pkgverify_level all", "--define", "_pkgverify_flags 0x0"]
            completed = run([*rpm, *strict, "--checksig", *files], timeout=_TIMEOUT, check=False)
            if completed.exit_status != 0:
                bad = [line for line in completed.text.splitlines() if "NOT OK" in line]
                yield Problem("yum", f"rpm refuses it: {'; '.join(bad) or completed.stderr.decode(errors='replace')}")

    def _signature(self, place: str, content: Path | None = None) -> Iterator[Problem]:
        """Check a signature over `content`, or a signed text; gpgv is what apt itself asks."""
        files = [self._directory / place, *([content] if content else [])]
        try:
            run(["gpgv", "--quiet", "--keyring", self._keyring, *files], timeout=_TIMEOUT)
        except CommandError as error:
            yield Problem(place, f"is not signed by this repository's key: {error.message}")

    def _same(self, place: str, sha256: str, size: int | None = None) -> Iterator[Problem]:
        try:
            found, found_size = hash_file(self._directory / place)
        except (OSError, CleanroomError) as error:
            yield Problem(place, f"cannot be read: {error}")
            return
        if found != sha256 or (size is not None and found_size != size):
            yield Problem(place, f"has the sha256 {found} ({found_size} bytes), but {sha256} is listed")

    def _is_new(self, place: str) -> bool:
        """Whether a path below `dists` or `repodata` is another file than in the generation verified before."""
        if self._since is None:
            return True
        try:
            return not (self._directory / place).samefile(self._since / place)
        except FileNotFoundError:
            return True

    @staticmethod
    def _place(package: Package) -> str:
        return f"{generation.root_of(package.stream)}/{package.path}"


def _apt_lines(package: Package) -> set[str]:
    """The lines of an index that lead a client to a package."""
    if package.format == "dsc":
        directory = Path(package.path).parent
        return {f"Directory: {directory}", f" {package.sha256} {package.size} {package.file}"}
    return {f"Filename: {package.path}", f"SHA256: {package.sha256}"}


def _apt_configuration(scratch: Path, sources: Path) -> str:
    """Private directories for apt, and nothing from this machine's own configuration."""
    for name in ("lists/partial", "cache/archives/partial", "state"):
        (scratch / name).mkdir(parents=True)
    (scratch / "state/status").touch()
    values = {
        "Dir::Etc::Main": "/dev/null",
        "Dir::Etc::Parts": "/dev/null",
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Trusted": "/dev/null",
        "Dir::Etc::TrustedParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::Etc::NetRC": "/dev/null",
        "Dir::Etc::NetRCParts": "/dev/null",
        "Dir::State": scratch / "state",
        "Dir::State::Lists": scratch / "lists",
        "Dir::State::Status": scratch / "state/status",
        "Dir::Cache": scratch / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "0",
    }
    return "".join(f'{key} "{value}";\n' for key, value in values.items())
